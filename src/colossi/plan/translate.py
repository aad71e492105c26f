"""From a spec to the numbers that its step depends on."""

import math

from colossi.errors import SpecError
from colossi.plan.case import Case, Layout, Machine, Model, Training
from colossi.plan.efficiency import Fitted, published
from colossi.plan.profile import Measured, read_profile
from colossi.spec.cluster import ClusterSpec
from colossi.spec.hardware import Gpu, Node, gpu, node
from colossi.spec.layout import LayoutSpec
from colossi.spec.model import ModelSpec
from colossi.spec.spec import Spec
from colossi.spec.training import TrainingSpec

# Bytes read and written to cast a number of an operand, as it is and turned: one byte each written, two read;
# a scale of its own for a tensor needs one more reading, one for each row of both forms two and another cast.
CAST_BYTES = {"delayed": 4.0, "tensor": 6.0, "block": 5.0, "row": 12.0}
BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "fp4": 4}


def case_of(spec: Spec, fitted: Fitted) -> Case:
    """The run of a spec that names a cluster of the catalogue."""
    assert spec.training is not None
    if not spec.has_layout:
        raise SpecError(f"{spec.name}: table [layout] is missing", "colossi plan finds the best ones")
    return Case(
        model_of(spec.model, spec.training),
        device_of(spec, fitted),
        layout_of(spec),
        training_of(spec.training, measured=spec.cluster.profile is not None),
    )


def open_case_of(spec: Spec, fitted: Fitted) -> Case:
    """The same without a layout: only what overlaps is taken from [layout]."""
    assert spec.training is not None
    if spec.cluster.profile is not None:
        raise SpecError(
            f"cluster.profile = {spec.cluster.profile!r}: layouts are searched on machines of the catalogue",
            "give cluster.gpu or node; colossi forecast takes the profile",
        )
    return Case(
        model_of(spec.model, spec.training),
        machine_of(spec.cluster, spec.training, fitted),
        Layout(**overlaps_of(spec)),
        training_of(spec.training),
    )


def device_of(spec: Spec, fitted: Fitted) -> Machine:
    """What a worker runs on: of the catalogue, or as it was measured."""
    assert spec.training is not None
    if spec.cluster.profile is not None:
        return world_of(spec).machine()
    return machine_of(spec.cluster, spec.training, fitted)


def fitted_of(spec: Spec) -> Fitted:
    """The efficiencies that go with it."""
    if spec.cluster.profile is not None:
        return Fitted(world_of(spec).efficiency, {})
    return published()


def world_of(spec: Spec) -> Measured:
    """What so many workers of this spec were measured as."""
    assert spec.cluster.profile is not None
    layout = spec.layout
    returned = layout.shard * layout.context * layout.expert > 1
    return read_profile(spec.cluster.profile).world(spec.cluster.workers, returned)


def hardware_of(cluster: ClusterSpec) -> tuple[Gpu, Node]:
    """The GPU and the server that a cluster is made of."""
    if cluster.node is not None:
        server = node(cluster.node)
        return server.gpu, server
    if cluster.gpu is not None:
        device = gpu(cluster.gpu)
        return device, node(device.usual_node)
    raise SpecError(
        "[cluster] names no machine: a forecast needs gpu or node", 'gpu = "H100-SXM" and gpus = 1024'
    )


def model_of(model: ModelSpec, training: TrainingSpec) -> Model:
    """Sizes, with attention's window averaged over the blocks."""
    window = math.inf
    if model.window:
        full = training.sequence_length / 2
        narrow = model.window_layers / model.layers
        window = narrow * min(model.window, full) + (1 - narrow) * full
    moe = model.moe_layers
    return Model(
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn_hidden=model.dense_ffn or model.ffn_hidden,
        gated=int(model.gated_ffn),
        vocabulary=model.vocabulary,
        tied=int(model.tied_embeddings),
        moe_layers=moe,
        moe_every=model.moe_every,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        expert_ffn=model.ffn_hidden if moe else 0,
        shared_ffn=model.shared_expert_ffn if moe else 0,
        q_rank=model.q_lora_rank,
        kv_rank=model.kv_lora_rank,
        rope_dim=model.rope_head_dim,
        value_dim=model.value_head_dim,
        window=window,
    )


def machine_of(cluster: ClusterSpec, training: TrainingSpec, fitted: Fitted) -> Machine:
    """The accelerator and its share of the node's network cards."""
    device, server = hardware_of(cluster)
    kind = fitted.architectures[device.architecture]
    peak_16 = device.peak_of("fp16" if training.precision == "fp16" else "bf16")
    watts = device.power / peak_16
    return Machine(
        gpus=cluster.workers,
        peak=device.peak_of(training.precision),
        peak_16=peak_16,
        memory=device.memory,
        memory_rate=device.memory_bandwidth,
        domain=server.domain,
        link=device.link_bandwidth,
        nic=server.network_bandwidth,
        product_share=kind.product * (watts / kind.watts) ** fitted.efficiency.power,
        attention_share=kind.flash_2 if training.attention == "flash-2" else kind.flash,
        tiles=device.compute_units,
    )


def layout_of(spec: Spec) -> Layout:
    """As resolved: every axis, and how many ranks share what."""
    layout: LayoutSpec = spec.layout
    assert layout.replicate is not None and layout.micro_batch is not None
    folded = layout.expert_tensor is not None
    sharded = layout.shard * layout.context * (1 if folded else layout.expert)
    return Layout(
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        interleave=layout.interleave,
        split_backward={"1f1b": 0, "zero-bubble": 1, "zero-bubble-v": 2}[layout.schedule],
        context=layout.context,
        expert=layout.expert,
        expert_tensor=layout.expert_tensor if folded else layout.tensor,
        shard=sharded if layout.zero > 1 else 1,
        keep_gathered=int(layout.zero == 2 or layout.pipeline > 1),
        gather_once=int(layout.pipeline > 1),
        gathers=12 if layout.gathers == "tensor" else 1,
        optimizer_shard=sharded,
        micro_batch=layout.micro_batch,
        recompute=int(layout.recompute == "full"),
        recompute_attention=int(layout.recompute == "selective"),
        sequence_parallel=int(layout.sequence_parallel),
        **overlaps_of(spec),
    )


def overlaps_of(spec: Spec) -> dict[str, int]:
    """Which axes' messages travel under computation; none on cores that do both."""
    layout, own_host = spec.layout, spec.cluster.profile is not None
    return {
        f"overlap_{axis}": int(axis in layout.overlap and not own_host)
        for axis in ("tensor", "data", "pipeline", "expert")
    }


def training_of(training: TrainingSpec, measured: bool = False) -> Training:
    """What a step is; a measured device's passes over memory are those of the trainer's kernels."""
    return Training(
        sequence=training.sequence_length,
        global_batch=training.global_batch,
        eight_bit=int(BITS[training.precision] <= 8),
        four_bit=int(BITS[training.precision] <= 4),
        cast_bytes=CAST_BYTES[training.scaling],
        number_bytes=max(2, BITS[training.precision] // 8),
        muon=int(training.optimizer == "muon"),
        gradient_bytes=4.0 if training.gradient_precision == "fp32" else 2.0,
        fused_attention=int(training.attention != "unfused"),
        fused_elementwise=int(training.fused_kernels and not measured),
        imbalance=training.imbalance,
    )
