"""
What can happen to a run.

An Event is one fact: when, what kind, in which incarnation of the run, at which step, and the numbers of
that kind. KINDS is the whole vocabulary; the store refuses any other word. Simulated runs use the same
words with virtual time. An event knows nothing of where it is kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

# kind -> the keys of its data and what they hold. Keys may be missing or more (a report says what it can
# from what it finds), kinds may not.
KINDS: dict[str, dict[str, str]] = {
    # the controller's words
    "controller_started": {
        "pid": "its process",
        "took_over": "whether the run was going on without one",
        "chaos": "whether it makes faults on purpose",
        "quarantined": "node -> why it is not used, of those that it knows from the ledger",
    },
    "node_joined": {"node": "name", "rack": "where it stands, if known"},
    "node_lost": {"node": "name", "why": "one line"},
    "incarnation_started": {
        "nodes": "list by place",
        "changed": "in a simulated run, after the first: place -> a node that was not there before",
        "buddies": "list by place: who keeps copies of its snapshots",
        "replicate": "copies of the model",
        "workers": "in this world",
        "spares": "idle workers beside it",
        "missing": "workers that the spec asks for and this world has not",
        "restore": "the step to go on from; -1 for what is on disk",
        "reason": "why the one before ended; empty at first",
        "fruitless": "worker, node -> incarnations in a row before this one that such a failure ended "
        "before a step was done",
        "aside": "node -> why it is to be checked before it is used again",
    },
    "fault": {
        "cause": "one line, e.g. worker 1 killed by SIGKILL",
        "node": "where",
        "rank": "whose, if it was a worker",
        "seconds_to_detect": "from the last sign of life to this event [s]",
    },
    "workers_stopped": {},
    "waiting": {"node": "if it is about one", "why": "there are too few nodes"},
    "promoted": {"node": "the spare that now trains", "why": "one line"},
    "shrunk": {"node": "that is gone", "why": "one line"},
    "grown": {"node": "that has come", "why": "one line"},
    "straggler": {"node": "that is slower than its peers", "why": "one line"},
    "checked": {
        "node": "that was set aside",
        "passed": "true if it is a spare again",
        "why": "what is wrong with it",
    },
    "suspected": {
        "agreed": "the last step after which copies of the weights were equal",
        "fingerprints": "rank -> that of its gradient, and of its weights, after this step",
    },
    "corrupted": {"node": "where weights went wrong", "rank": "whose", "why": "one line"},
    "quarantined": {"node": "that is not used again", "why": "one line"},
    "readmitted": {"node": "of which all is forgotten that was held against it", "why": "one line"},
    "refused": {"peer": "that came without the token", "why": "one line"},
    "chaos": {"fault": "what was done on purpose"},
    "gave_up": {"why": "the run cannot go on"},
    # the words of rank 0
    "run_started": {
        "world": "ranks",
        "workers": "processes that train; as a rule one for each rank",
        "hostname": "the machine of rank 0",
        "parameters": "of the whole model",
        "active_parameters": "that one token passes through",
        "flops_per_token": "model FLOPs, forward and backward, without recomputation [FLOP]",
        "peak_flops": "of all workers together; missing when unknown [FLOP/s]",
        "steps": "the goal",
        "tokens_per_step": "in the global batch",
        "layout": "axis -> size, e.g. {replicate: 2, shard: 1}",
    },
    "restored": {
        "from_step": "the last step in what was restored",
        "source": "memory, buddy, disk, or start where there was nothing",
        "seconds": "that it took [s]",
    },
    "resumed": {"from_step": "the last step in the checkpoint that was loaded", "source": "disk"},
    "step_done": {
        "loss": "of the global batch, cross-entropy per token [nat]",
        "steps": "that this stands for, in a row up to the one that it names; 1 where it does not say",
        "tokens": "in the global batch; of all these steps together, as all that follows",
        "seconds": "of the step, from fetching its batch to the end of the optimizer's work [s]",
        "cpu_seconds": "rank 0's of the cores meanwhile, over all its threads [s]",
        "learning_rate": "that the step used",
        "gradient_norm": "before clipping",
        "balance_loss": "the load-balancing loss, weighted as in the total",
        "z_loss": "the router z-loss, weighted as in the total",
        "router_max": "the largest router logit; above 3 the router saturates",
        "expert_load": "list: share of the tokens that each expert got, mean over layers",
        "stall_seconds": "spent waiting for a checkpoint copy, inside or beside `seconds` [s]",
        "snapshot_seconds": "spent waiting for a snapshot, inside `seconds` [s]",
        "busy_seconds": "list by rank: own work, without waiting for others [s]",
    },
    "checkpoint_begun": {},
    "checkpoint_complete": {
        "seconds": "from begun to its commit marker, mostly in the background [s]",
        "stall_seconds": "that training waited for it [s]",
        "bytes": "of all shards together [B]",
    },
    "checkpoint_failed": {"why": "one line"},
    "checkpoint_damaged": {"folder": "that was skipped", "why": "one line"},
    "failed": {"why": "one line: a worker's own words, or the error that ended the run", "rank": "if known"},
    "stopped": {"why": "on purpose and cleanly: Ctrl-C, a time limit"},
    "finished": {},
    # beside training
    "evaluated": {"task": "name", "questions": "how many", "accuracy": "share that was right, 0 to 1"},
    "node_tested": {
        "node": "name",
        "rack": "where it stands, if known",
        "verdict": "pass, warn or fail",
        "why": "one line; empty if it passed",
        "results": "list of what each check found, as `colossi check --json` has it",
    },
    "left_in": {"node": "that failed its test and was not taken out", "why": "one line"},
    "data_prepared": {"tokens": "in the shards", "samples": "in the shards", "seconds": "spent on it [s]"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact. `time` in unix seconds; incarnations count from 1, a restart begins the next one."""

    time: float
    kind: str
    incarnation: int
    step: int | None = None
    data: Mapping[str, JSON] = field(default_factory=dict)

    def number(self, key: str) -> float | None:
        """The number under `key`, or None when there is none."""
        value = self.data.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def whole(self, key: str) -> int | None:
        """The number under `key` as an integer; None when there is none, or none that is finite."""
        value = self.number(key)
        return None if value is None or not math.isfinite(value) else int(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """The list of numbers under `key`; empty when there is none."""
        value = self.data.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return ()
        return tuple(v for v in value if isinstance(v, int | float) and not isinstance(v, bool))

    def text(self, key: str) -> str:
        """What stands under `key` as text; empty when nothing does."""
        value = self.data.get(key)
        return "" if value is None else str(value)
