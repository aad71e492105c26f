"""Runs to try the formulas on."""

from dataclasses import replace
from typing import Any

from colossi.plan.case import Case, Layout, Machine, Model, Training

GPT = Model(
    layers=96,
    hidden=12288,
    heads=96,
    kv_heads=96,
    head_dim=128,
    ffn_hidden=49152,
    gated=0,
    vocabulary=51200,
    tied=1,
)
GROK = Model(
    layers=64,
    hidden=6144,
    heads=48,
    kv_heads=8,
    head_dim=128,
    ffn_hidden=32768,
    gated=1,
    vocabulary=131072,
    tied=1,
    moe_layers=64,
    experts=8,
    experts_per_token=2,
    expert_ffn=32768,
)
H100 = Machine(
    gpus=1024,
    peak=989e12,
    peak_16=989e12,
    memory=80e9,
    memory_rate=3.35e12,
    domain=8,
    link=450e9,
    nic=50e9,
    product_share=0.7,
    attention_share=0.6,
    tiles=132,
)


def run(model: Model = GPT, gpus: int = 1024, batch: int = 1024, sequence: int = 2048, **layout: Any) -> Case:
    """A run on H100s; keywords are the layout's."""
    return Case(model, replace(H100, gpus=gpus), Layout(**layout), Training(sequence, batch))
