"""
The training loop of one rank, from its run folder: fetch, forward, backward, step, record, save.

Rank 0 writes what happens into the ledger; all ranks take the same decisions at the same steps, as they see
the same sums. The state of a run is (weights, optimizer, step): the data of step s follows from s alone.
"""

import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import ProcessGroup

from colossi.data.corpus import Batch, Corpus
from colossi.errors import CheckpointFailed, TrainingFailed
from colossi.ledger.events import Event
from colossi.ledger.run import MARKER, Run, step_of
from colossi.ledger.store import Ledger
from colossi.model.grok import Grok
from colossi.spec.size import count_parameters, flops_per_token
from colossi.spec.spec import Spec, data_parallel
from colossi.train.checkpoint import Found, Saved, Saver, load_into, newest_whole
from colossi.train.diagnosis import where_it_broke
from colossi.train.mesh import AXES, World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import DTYPES, build_model
from colossi.train.peak import world_peak
from colossi.train.step import StepResult, forward_backward

Record = Callable[..., None]  # kind, step, and the data of an event


@dataclass(slots=True)
class Stop:
    """Set by a signal; the ranks agree on it at the end of a step."""

    wanted: bool = False

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True


@dataclass(frozen=True, slots=True)
class Training:
    """All that a rank works with."""

    spec: Spec
    world: World
    corpus: Corpus
    grok: Grok
    optimizer: Optimizer
    saver: Saver
    record: Record

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, by name."""
        weights = {f"model.{name}": p.detach() for name, p in self.grok.named_parameters()}
        return weights | self.optimizer.state()

    def batch(self, step: int) -> Batch:
        """This rank's rows of the global batch of a step, counted from 1."""
        assert self.spec.training is not None
        total = self.spec.training.global_batch
        share = total // data_parallel(self.spec.layout)
        first = self.world.data_rank() * share
        return self.corpus.batch(step - 1, total, slice(first, first + share))


def train(run: Run, rank: int, ranks: int, device: torch.device, incarnation: int) -> None:
    """Train the run to its end, from the newest whole checkpoint if it has one."""
    spec = run.spec()
    stop = Stop()
    stop.listen()
    with run.ledger() as ledger:
        record = _recorder(ledger, incarnation) if rank == 0 else _say_nothing
        group = dist.new_group(backend="gloo") if ranks > 1 else None
        training = _set_up(run, spec, ranks, device, group, record)
        start = _resume(training, run, ranks)
        try:
            _run_steps(training, start, stop)
        finally:
            training.saver.wait()


def _set_up(
    run: Run, spec: Spec, ranks: int, device: torch.device, group: ProcessGroup | None, record: Record
) -> Training:
    assert spec.training is not None
    world = World.make(spec.layout, device, ranks)
    peak = world_peak(device, DTYPES[spec.training.precision], ranks)
    grok = build_model(spec, world)
    parameters = count_parameters(spec.model)
    record(
        "run_started",
        None,
        world=ranks,
        workers=ranks,
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
        grok=grok,
        optimizer=Optimizer(grok, spec.training),
        saver=Saver(run.checkpoints, spec.checkpoint.keep, group),
        record=record,
    )


def _resume(training: Training, run: Run, ranks: int) -> int:
    """Load the newest whole checkpoint, which rank 0 chooses; returns the steps that are done."""
    found = [newest_whole(run.checkpoints) if not ranks > 1 or dist.get_rank() == 0 else Found(None)]
    if ranks > 1:
        dist.broadcast_object_list(found, src=0)
    for name, why in found[0].damaged:
        training.record("checkpoint_damaged", None, folder=name, why=why)
        if training.world.mesh is None or dist.get_rank() == 0:  # retention must not count it as one to keep
            (run.checkpoints / name / MARKER).unlink(missing_ok=True)
    folder = found[0].folder
    if folder is None:
        return 0
    state = training.state()
    load_into(folder, state)
    training.optimizer.load(state, step_of(folder))
    training.record("resumed", step_of(folder), from_step=step_of(folder), source="disk")
    return step_of(folder)


def _run_steps(training: Training, start: int, stop: Stop) -> None:
    assert training.spec.training is not None
    parameters = list(training.grok.parameters())
    total, every = training.spec.training.total_steps, training.spec.checkpoint.every
    saved = start
    for step in range(start + 1, total + 1):
        result = _one_step(training, step, parameters, stop)
        stopping = result.stop > 0 and step < total
        _record_saves(training)
        if step == total or stopping or (every and step % every == 0):
            training.record("checkpoint_begun", step)
            training.saver.begin(step, training.state())
            saved = step
        if stopping:
            break
    if saved > start:
        _wait_for_last(training, saved)
    if saved == total:
        training.record("finished", total)
    else:
        training.record("stopped", saved, why="asked to stop")


def _one_step(training: Training, step: int, parameters: list[nn.Parameter], stop: Stop) -> StepResult:
    spec, start = training.spec, time.monotonic()
    assert spec.training is not None
    batch = training.batch(step)
    result = forward_backward(training.grok, batch, spec, training.world, parameters, stop.wanted)
    _refuse_nonsense(training, step, batch, result)
    clip = spec.training.clip
    scale = min(1.0, clip / result.gradient_norm) if clip and result.gradient_norm > 0 else 1.0
    rate = training.optimizer.step(step, scale)
    training.record(
        "step_done",
        step,
        loss=result.loss,
        tokens=spec.training.tokens_per_step,
        seconds=time.monotonic() - start,
        learning_rate=rate,
        gradient_norm=result.gradient_norm,
        balance_loss=result.balance_loss,
        z_loss=result.z_loss,
        router_max=result.router_max,
        expert_load=result.expert_load,
    )
    return result


def _refuse_nonsense(training: Training, step: int, batch: Batch, result: StepResult) -> None:
    """A loss or gradient that is no number, or a loss above the limit, ends the run before it does harm."""
    assert training.spec.training is not None
    limit = training.spec.training.loss_limit
    good = abs(result.loss) <= limit and result.gradient_norm < float("inf")  # false for NaN too
    if not good:
        place = where_it_broke(training.grok, batch, training.world.device)
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
    def record(kind: str, step: int | None, **data: Any) -> None:
        ledger.append(Event(time=time.time(), kind=kind, incarnation=incarnation, step=step, data=data))

    return record


def _say_nothing(kind: str, step: int | None, **data: Any) -> None:
    """Every rank but the first."""
