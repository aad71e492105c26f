"""
What colossi's own trainer can do of all that a spec can describe.

The planner knows models, layouts and number formats of other programs too; `colossi train` refuses them.
"""

from colossi.errors import SpecError
from colossi.spec.fit import divisors_near, multiples_near
from colossi.spec.spec import Spec

PLANNED_ONLY: dict[str, dict[str, tuple[object, ...]]] = {  # table: {key: the values that can be trained}
    "model": {
        "gated_ffn": (True,),
        "moe_every": (1,),
        "dense_layers": (0,),
        "dense_ffn": (0,),
        "q_lora_rank": (0,),
        "kv_lora_rank": (0,),
        "rope_head_dim": (0,),
        "value_head_dim": (0,),
        "window": (0,),
    },
    "layout": {
        "recompute": ("none", "full"),
        "zero": (3,),
        "gathers": ("block",),
        "expert_tensor": (None,),
        "sequence_parallel": (False,),
    },
    "training": {"precision": ("fp32", "bf16"), "gradient_precision": ("fp32",)},
    "cluster": {"gpus": (None,)},
}


def check_trainable(spec: Spec) -> None:
    """Raise a ValueError with one sentence if the trainer cannot do it."""
    for table, keys in PLANNED_ONLY.items():
        for key, values in keys.items():
            found = getattr(getattr(spec, table), key)
            if found not in values:
                allowed = " or ".join(_as_said(value) for value in values)
                raise ValueError(
                    f"{table}.{key} = {_as_said(found)} can be planned and not be trained: use {allowed}"
                )
    layout, hidden = spec.layout, spec.model.hidden
    if layout.stages > spec.model.layers:
        raise ValueError(
            f"layout.pipeline * interleave = {layout.stages} stages, two of them without a block, can be "
            f"planned and not be trained: use at most model.layers = {spec.model.layers}"
        )
    parts = layout.shard * layout.context * layout.expert
    if hidden % parts:
        raise ValueError(
            f"model.hidden = {hidden} does not divide by layout.shard * context * expert = {parts}: use "
            f"{divisors_near(hidden, parts)} there, or hidden = {multiples_near(parts, hidden)}"
        )


def check_traceable(spec: Spec) -> None:
    """The same for a trace, which needs a layout and no machines; raises SpecError."""
    if not spec.has_layout:
        raise SpecError(f"{spec.name}: table [layout] is missing", "`colossi plan SPEC` finds the best")
    try:
        check_trainable(spec.model_copy(update={"cluster": spec.cluster.model_copy(update={"gpus": None})}))
    except ValueError as error:
        raise SpecError(f"{spec.name}: {error}", "what can be trained can be traced") from None


def _as_said(value: object) -> str:
    if value is None:
        return "no value"
    return str(value).lower() if isinstance(value, bool) else f"{value!r}"
