"""From a spec to what interrupts its run, and so to its goodput."""

import math

from colossi.plan.goodput import Conditions, Goodput, Snapshots, goodput
from colossi.plan.translate import hardware_of
from colossi.spec.failures import FailuresSpec, failure_rates
from colossi.spec.spec import Spec


def goodput_of(spec: Spec, step_seconds: float) -> Goodput:
    """Of a run whose steps take so long, under the spec's [failures]."""
    return goodput(conditions_of(spec, step_seconds))


def conditions_of(spec: Spec, step_seconds: float) -> Conditions:
    """Rates of the fleet that [failures] names, for as many GPUs and servers as the cluster has."""
    failures = spec.failures or FailuresSpec()
    rates = failure_rates(failures.rates)
    cluster, gpus = spec.cluster, spec.cluster.workers
    each = cluster.workers_per_node if cluster.profile else hardware_of(cluster)[1].gpus
    nodes = math.ceil(gpus / each)
    rate = rates.of_job(gpus, each)
    every = spec.checkpoint.snapshot_every
    snapshots = None
    if failures.snapshots and every:
        snapshots = Snapshots(
            interval=every * step_seconds, cost=failures.snapshot_seconds, lost=failures.snapshots_lost
        )
    return Conditions(
        failure_rate=rate,
        detection=failures.detection_seconds,
        restart=failures.restart_seconds,
        reload=failures.reload_seconds,
        checkpoint=failures.checkpoint_seconds,
        snapshots=snapshots,
        nodes=nodes,
        spares=round(failures.spares_fraction * nodes),
        node_loss_rate=rate * rates.repaired_share,
        repair=failures.repair_hours * 3600,
        planned_rate=rates.planned_per_second,
    )
