"""
How long each event of a trace takes, by the planner's models of kernels and collectives. [seconds]

Products by tiles and waves, attention by its FLOPs, the rest by its bytes; collectives by their rings. The
machine is the spec's, or H100s where it names none. What the host needs to launch a kernel is not in it, nor
does anything overlap: an operation is as long as the planner's formula for it alone.
"""

from collections.abc import Callable

from colossi.plan.case import Case, Number
from colossi.plan.collectives import all_to_all, gather, reduce, send
from colossi.plan.efficiency import Efficiency
from colossi.plan.kernels import fused_attention, moved
from colossi.plan.layer import grouped_products, products
from colossi.plan.translate import case_of, fitted_of
from colossi.spec.layout import AXES
from colossi.spec.spec import Spec
from colossi.train.account import Collective, Event, Op

USUAL = "H100-SXM"  # where the spec names no machine


def durations(spec: Spec) -> Callable[[Event], float]:
    """Seconds of an event of this spec's trace."""
    spec = on_a_machine(spec)
    fitted = fitted_of(spec)
    case, e = case_of(spec, fitted), fitted.efficiency

    def seconds(event: Event) -> float:
        if isinstance(event, Op):
            return float(operation(event, case, e))
        return float(exchange(event, stride(event.axis, spec), case, e))

    return seconds


def on_a_machine(spec: Spec) -> Spec:
    """The spec on GPUs of the catalogue, if it names neither these nor a measured device."""
    cluster = spec.cluster
    if cluster.gpu is not None or cluster.node is not None or cluster.profile is not None:
        return spec
    usual = cluster.model_copy(update={"gpu": USUAL, "gpus": cluster.workers})
    return spec.model_copy(update={"cluster": usual})


def operation(op: Op, case: Case, e: Efficiency) -> Number:
    """One kernel: a product as the planner has it, anything else by what it reads and writes."""
    bytes_ = moved(op.read + op.written, case.machine, e)
    if op.sides is None or not op.flops:
        return bytes_
    rows, columns, inner, groups = op.sides
    if op.kind == "attention":
        length = case.training.sequence / case.layout.context
        forward, _ = fused_attention(op.flops, length, case.machine, e)
        return forward / (e.attention_backward if op.name.endswith("backward") else 1.0)
    run = grouped_products(case, e, min(rows, inner)) if op.kind == "experts" else products(case, e)
    return run.seconds(rows, columns, inner, groups)


def exchange(event: Collective, apart: int, case: Case, e: Efficiency) -> Number:
    """One collective; the bytes are those of its larger side."""
    machine = case.machine
    if event.kind in ("send", "recv"):
        return send(event.nbytes, apart, machine, e)
    kinds = {"all_reduce": reduce, "all_to_all": all_to_all}
    return kinds.get(event.kind, gather)(event.nbytes, event.ranks, apart, machine, e)


def stride(axis: str, spec: Spec) -> int:
    """How far apart in rank order neighbours along an axis stand; of joined ones the innermost counts."""
    found = 1
    for each in reversed(AXES):
        if each in axis.split("*"):
            return found
        found *= getattr(spec.layout, each) or 1
    return 1
