"""
The training loop of one rank, from its run folder: fetch, forward, backward, step, record, snapshot, save.

Rank 0 writes what happens into the ledger; all ranks take the same decisions at the same steps, as they see
the same sums. The state of a run is (weights, optimizer, step): the data of step s follows from s alone.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from colossi.data.corpus import Batch, Corpus
from colossi.errors import CheckpointFailed, TrainingFailed
from colossi.ledger.events import Event
from colossi.ledger.fence import Fence
from colossi.ledger.run import MARKER, Run, checkpoint_name, step_of
from colossi.ledger.store import Ledger
from colossi.spec.layout import AXES
from colossi.spec.size import count_parameters, flops_per_token
from colossi.spec.spec import Spec, data_parallel
from colossi.train.checkpoint import Found, Saved, Saver, load_into, newest_whole
from colossi.train.diagnosis import where_it_broke
from colossi.train.faults import Faults
from colossi.train.link import CHECKPOINT, SAVE_AND_STOP, Link, Order
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer, clipping
from colossi.train.parallel import Parts, build_model, number_format
from colossi.train.peak import world_peak
from colossi.train.snapshot import Manifest, Snapshots, Source, map_region, restore
from colossi.train.step import StepResult, Wishes, forward_backward

Record = Callable[..., None]  # kind, step, and the data of an event


class Corrupted(Exception):
    """Copies of the same weights differed after `step`; this rank had these fingerprints."""

    def __init__(self, snapshots: Snapshots) -> None:
        super().__init__(f"copies of the weights differ after step {snapshots.step}")
        self.step = snapshots.step
        self.fingerprint = (snapshots.gradient, snapshots.fingerprint)


@dataclass(frozen=True, slots=True)
class Training:
    """All that a rank works with."""

    spec: Spec
    world: World
    corpus: Corpus
    parts: Parts
    optimizer: Optimizer
    saver: Saver
    record: Record
    tell: Callable[..., None]  # the controller: rank 0 does
    link: Link | None  # None under torchrun: nobody to tell, no snapshots
    snapshots: Snapshots | None
    faults: Faults

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, by name."""
        return _state(self.parts, self.optimizer)

    def batch(self, step: int) -> Batch:
        """This rank's rows of the global batch of a step, counted from 1."""
        assert self.spec.training is not None
        total = self.spec.training.global_batch
        share = total // data_parallel(self.spec.layout)
        first = self.world.data_rank() * share
        return self.corpus.batch(
            step - 1, total, slice(first, first + share), self.spec.training.document_mask
        )


def train(run: Run, order: Order, device: torch.device, link: Link | None) -> None:
    """One rank's part of an incarnation: to the run's end, or until somebody asks to stop."""
    spec = run.spec()
    spec = spec.model_copy(update={"layout": spec.layout.model_copy(update={"replicate": order.replicate})})
    with run.ledger() as ledger:
        record = _recorder(ledger, order.incarnation) if order.rank == 0 else _say_nothing
        training = _set_up(run, spec, order, device, record, link, _known_peak(ledger, order))
        start = _restore(training, run, order)
        try:
            _run_steps(training, start)
        except BaseException:
            if link is not None:
                link.ending()
            raise
        finally:
            if training.snapshots is not None:
                training.snapshots.close()
            training.saver.wait()


def _known_peak(ledger: Ledger, order: Order) -> float:
    """FLOP/s of all workers, as an earlier incarnation has measured them; 0 if none has."""
    if order.rank != 0:
        return 0.0
    for _, event in reversed(list(ledger.events("run_started"))):
        peak, world = event.number("peak_flops"), event.whole("world")
        if peak and world:
            return peak * order.ranks / world
    return 0.0


def _set_up(
    run: Run,
    spec: Spec,
    order: Order,
    device: torch.device,
    record: Record,
    link: Link | None,
    peak: float,
) -> Training:
    assert spec.training is not None
    world = World.make(spec.layout, device, order.ranks)
    group = dist.new_group(backend="gloo") if order.ranks > 1 else None
    if link is not None:
        link.connected()
    if order.restore < 0:  # an incarnation that restores from memory is in a hurry, and its peak is known
        peak = world_peak(device, number_format(spec.training.precision), order.ranks)
    parts = build_model(spec, world, with_values=order.restore < 0)
    optimizer = Optimizer(parts, spec.training, world)
    parameters = count_parameters(spec.model)
    record(
        "run_started",
        None,
        world=order.ranks,
        workers=order.ranks,
        hostname=socket.gethostname(),
        parameters=parameters.total,
        active_parameters=parameters.active,
        flops_per_token=flops_per_token(spec.model, spec.training.sequence_length),
        peak_flops=peak,
        steps=spec.training.total_steps,
        tokens_per_step=spec.training.tokens_per_step,
        layout={axis: world.size(axis) for axis in AXES},
    )
    return Training(
        spec=spec,
        world=world,
        corpus=Corpus.open(run.corpus_folder()),
        parts=parts,
        optimizer=optimizer,
        saver=Saver(run.checkpoints, spec.checkpoint.keep, group),
        record=record,
        tell=link.say if link is not None and order.rank == 0 else _say_nothing,
        link=link,
        snapshots=_snapshots(parts, optimizer, spec, order, link),
        faults=Faults(link.faults if link else None),
    )


def _snapshots(
    parts: Parts, optimizer: Optimizer, spec: Spec, order: Order, link: Link | None
) -> Snapshots | None:
    """Memory of the agent for this rank's snapshots."""
    every = spec.checkpoint.snapshot_every
    if link is None or not every:
        return None
    manifest = Manifest.of(_state(parts, optimizer), order.replicate, order.alike_nearby)
    region, next_slot = link.region(manifest=manifest.as_json())
    return Snapshots(link, manifest, map_region(region), every, next_slot)


def _state(parts: Parts, optimizer: Optimizer) -> dict[str, Any]:
    weights = {f"model.{key}": p.detach() for key, p in parts.kept().items()}
    return weights | optimizer.state()


def _restore(training: Training, run: Run, order: Order) -> int:
    """The state to go on from: a snapshot in memory, or the newest whole checkpoint. Returns its step."""
    if order.restore < 0:
        return _resume(training, run, order)
    start = time.monotonic()
    state, sources = training.state(), [_source(each, order) for each in order.sources]
    restore(state, sources)
    if training.snapshots is not None and len(sources) == 1:  # compared like any other, at the end of a step
        training.snapshots.step, training.snapshots.fingerprint = order.restore, sources[0].sums[1]
    _take(training, state, order.restore)
    training.record(
        "restored",
        order.restore,
        from_step=order.restore,
        source="buddy" if order.fetched else "memory",
        seconds=time.monotonic() - start,
    )
    return order.restore


def _take(training: Training, state: dict[str, Any], step: int) -> None:
    """The state after `step` has been filled in; what is not part of it follows."""
    training.parts.copy_tied()
    training.optimizer.load(state, step)


def _source(each: dict[str, Any], order: Order) -> Source:
    data = map_region(order.files[each["file"]])
    manifest = Manifest.from_json(each["manifest"])
    return Source(data[each["offset"] : each["offset"] + manifest.total], manifest, tuple(each["sums"]))


def _resume(training: Training, run: Run, order: Order) -> int:
    """Load the newest whole checkpoint, which rank 0 chooses; returns the steps that are done."""
    found = [newest_whole(run.checkpoints) if order.rank == 0 else Found(None)]
    if order.ranks > 1:
        dist.broadcast_object_list(found, src=0)
    for name, why in found[0].damaged:
        training.record("checkpoint_damaged", None, folder=name, why=why)
        if order.rank == 0:  # retention must not count it as one to keep
            (run.checkpoints / name / MARKER).unlink(missing_ok=True)
    folder = found[0].folder
    if folder is None:
        return 0
    state = training.state()
    load_into(folder, state)
    _take(training, state, step_of(folder))
    training.record("resumed", step_of(folder), from_step=step_of(folder), source="disk")
    return step_of(folder)


def _run_steps(training: Training, start: int) -> None:
    assert training.spec.training is not None
    total, every = training.spec.training.total_steps, training.spec.checkpoint.every
    saved = start
    for step in range(start + 1, total + 1):
        result = _one_step(training, step)
        stopping = result.stop and step < total
        _record_saves(training)
        if step == total or stopping or result.checkpoint or (every and step % every == 0):
            training.record("checkpoint_begun", step)
            training.saver.begin(step, training.state())
            saved = step
        if stopping:
            break
    if start == total and not _is_saved(training, total):  # its save was cut short, its snapshot was whole
        training.record("checkpoint_begun", total)
        training.saver.begin(total, training.state())
        _wait_for_last(training, total)
    elif saved > start:
        _wait_for_last(training, saved)
    if saved == total:
        training.record("finished", total)
    else:
        training.record("stopped", saved, why="asked to stop")
    training.tell("done", step=saved, stopped=saved < total)


def _is_saved(training: Training, step: int) -> bool:
    """Whether the checkpoint of a step is complete, as rank 0 sees it."""
    found = [(training.saver.folder / checkpoint_name(step) / MARKER).exists()]
    if training.saver.group is not None:
        dist.broadcast_object_list(found, src=0)
    return found[0]


def _one_step(training: Training, step: int) -> StepResult:
    spec, link, start, on_cores = training.spec, training.link, time.monotonic(), time.process_time()
    assert spec.training is not None
    training.faults.before(step, training.parts)
    batch = training.batch(step)
    result = forward_backward(training.parts, batch, spec, training.world, lambda: _wishes(training), start)
    if result.corrupted and training.snapshots is not None:
        raise Corrupted(training.snapshots)
    _refuse_nonsense(training, step, batch, result)
    rate = training.optimizer.step(step, clipping(result.gradient_norm, spec.training.clip))
    with link.sheltered() if link else contextlib.nullcontext():  # a step with a snapshot is in the ledger
        training.record(
            "step_done",
            step,
            loss=result.loss,
            tokens=spec.training.tokens_per_step,
            seconds=time.monotonic() - start,
            cpu_seconds=time.process_time() - on_cores,
            snapshot_seconds=training.snapshots.waited if training.snapshots else 0.0,
            busy_seconds=result.busy_seconds,
            learning_rate=rate,
            gradient_norm=result.gradient_norm,
            balance_loss=result.balance_loss,
            z_loss=result.z_loss,
            router_max=result.router_max,
            expert_load=result.expert_load,
        )
        if training.snapshots is not None:
            training.snapshots.begin(step, training.state(), result.fingerprint)
    training.tell("step", step=step, busy=result.busy_seconds)
    return result


def _wishes(training: Training) -> Wishes:
    """What this rank has to say at the end of a step; the snapshot of the one before is whole by then."""
    link, snapshots = training.link, training.snapshots
    if link is None:
        return Wishes()
    if snapshots is not None:
        snapshots.settle()
    return Wishes(
        stop=bool(link.wishes & SAVE_AND_STOP),
        checkpoint=bool(link.take_wish(CHECKPOINT)),
        fingerprint=snapshots.fingerprint if snapshots is not None else None,
    )


def _refuse_nonsense(training: Training, step: int, batch: Batch, result: StepResult) -> None:
    """A loss or gradient that is no number, or a loss above the limit, ends the run before it does harm."""
    assert training.spec.training is not None
    limit = training.spec.training.loss_limit
    good = abs(result.loss) <= limit and result.gradient_norm < float("inf")  # false for NaN too
    if not good:
        place = where_it_broke(training.parts, batch, training.world)
        raise TrainingFailed(
            f"step {step}: loss {result.loss:.4g}, gradient norm {result.gradient_norm:.4g}, "
            f"largest router logit {result.router_max:.3g}; {place}",
            f"lower training.learning_rate or clip (loss_limit is {limit:g}); "
            "the weights of earlier steps are in the newest checkpoint",
        )


def _record_saves(training: Training) -> list[Saved]:
    ended = training.saver.ended()
    for saved in ended:
        if saved.why:
            training.record("checkpoint_failed", saved.step, why=saved.why)
        else:
            training.record(
                "checkpoint_complete",
                saved.step,
                seconds=saved.seconds,
                stall_seconds=saved.stall_seconds,
                bytes=saved.nbytes,
            )
        training.tell("checkpoint", step=saved.step, seconds=saved.seconds, why=saved.why)
    return ended


def _wait_for_last(training: Training, saved: int) -> None:
    """The run is finished, or stopped, only when its last checkpoint is whole."""
    training.saver.wait()
    ends = {end.step: end.why for end in _record_saves(training)}
    if why := ends.get(saved, "the save never ended"):
        raise CheckpointFailed(
            f"step {saved}: the last checkpoint could not be written: {why}",
            "make room on the disk and run the same command again: it goes on from the checkpoint before",
        )


def _recorder(ledger: Ledger, incarnation: int) -> Record:
    fence = Fence(ledger, incarnation)

    def record(kind: str, step: int | None, **data: Any) -> None:
        if fence.replaced():
            raise RuntimeError(f"incarnation {incarnation} has been replaced")
        ledger.append(Event(time=time.time(), kind=kind, incarnation=incarnation, step=step, data=data))

    return record


def _say_nothing(kind: str, step: int | None = None, **data: Any) -> None:
    """Every rank but the first."""
