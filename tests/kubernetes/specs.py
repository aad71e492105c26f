"""The spec that these tests launch: four nodes of eight GPUs."""

import tomllib

from colossi.spec import Spec, build_spec
from colossi.spec.read import apply_override

CLOUD = """
name = "cloud"

[model]
preset = "laptop"

[[data.sources]]
kind = "reasoning"
task = "chain_sum"
samples = 500

[training]
sequence_length = 64
global_batch = 32
steps = 20

[cluster]
nodes = 4
workers_per_node = 8
device = "cuda"

[kubernetes]
image = "registry.example/colossi:0.1"
claim = "runs"
namespace = "research"
"""
TOPOLOGY = "cloud.provider.com/topology-rack"


def spec_with(*overrides: str) -> Spec:
    document = tomllib.loads(CLOUD)
    for override in overrides:
        apply_override(document, override)
    return build_spec(document, "cloud.toml")
