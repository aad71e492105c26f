"""
What the peers of `benchmarks/recovery.py` train: the same model, batches and step as `colossi train`.

A peer's script gives the group and decides what happens after a failure; here is what it trains, its
asynchronous checkpoints, and the log that the benchmark reads: a JSON object a line, times in seconds of
CLOCK_MONOTONIC, which all processes of a machine share.

    {"kind": "up",   "time": ..., "formed": ..., "rank": 0, "pid": ...}         a rank is in a new group
    {"kind": "step", "time": ..., "formed": ..., "step": 7, "samples": ..., "loss": ...}
"""

import json
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh

from colossi.data.corpus import Batch, Corpus
from colossi.ledger.run import Run, checkpoint_name, open_run, step_of
from colossi.spec.spec import Spec
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import Parts, build_model, initialise
from colossi.train.step import forward_backward

RANKS = 2
SAVE_EVERY = 20
CPU = torch.device("cpu")


@dataclass
class Log:
    """Lines for the benchmark; those of all processes go to one file."""

    folder: Path
    formed: float = 0.0  # when the present group was formed

    def up(self, rank: int, formed: float | None = None) -> None:
        """This process is in a group that was formed then, or just now."""
        self.formed = time.monotonic() if formed is None else formed
        self._write(kind="up", rank=rank, pid=os.getpid())

    def step(self, step: int, samples: int, loss: float) -> None:
        """A step is done, with so many samples of the global batch."""
        self._write(kind="step", step=step, samples=samples, loss=loss)

    def _write(self, **more: object) -> None:
        line = json.dumps({"time": time.monotonic(), "formed": self.formed, **more}) + "\n"
        with (self.folder / "steps.jsonl").open("a") as file:
            file.write(line)


@dataclass
class Trainee:
    """Model, optimizer and data of a run folder, which outlive any group."""

    run: Run
    spec: Spec
    corpus: Corpus
    parts: Parts
    optimizer: Optimizer
    world: World
    saving: Future[Any] | None = field(default=None)

    @classmethod
    def make(cls, folder: Path) -> "Trainee":
        """Without a group as yet."""
        torch.set_num_threads(1)
        run = open_run(folder)
        spec = run.spec()
        assert spec.training is not None
        world = World(spec.layout, CPU, None)
        parts = build_model(spec, world)
        optimizer = Optimizer(parts, spec.training, world)
        return cls(run, spec, Corpus.open(run.corpus_folder()), parts, optimizer, world)

    @property
    def global_batch(self) -> int:
        """Samples of a step."""
        assert self.spec.training is not None
        return self.spec.training.global_batch

    def batch(self, step: int, share: int) -> Batch:
        """Half of the global batch of a step, counted from 1."""
        rows = self.global_batch // RANKS
        return self.corpus.batch(step - 1, self.global_batch, slice(share * rows, (share + 1) * rows))

    def step(self, step: int, rank: int) -> float:
        """Forward, backward, all-reduce and the optimizer, as colossi's loop does them; the loss."""
        assert self.spec.training is not None
        found = forward_backward(self.parts, self.batch(step, rank), self.spec, self.world)
        self.optimizer.step(step, min(1.0, self.spec.training.clip / found.gradient_norm))
        return found.loss

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        weights = {f"model.{name}": p.detach() for name, p in self.parts.weights().items()}
        return weights | self.optimizer.state()

    def restore(self) -> int:
        """Load the newest whole checkpoint, which rank 0 chooses, or begin; the steps that are done."""
        assert self.spec.training is not None
        for parameter in self.parts.parameters():
            parameter.grad = None  # of a step that was broken off
        newest: list[Path | None] = [None]
        if dist.get_rank() == 0:
            whole = [path.parent for path in self.run.checkpoints.glob("step-*/.metadata")]
            newest = [max(whole, default=None)]
        dist.broadcast_object_list(newest)
        if newest[0] is None:
            initialise(self.parts.stages()[0], self.spec.training.seed)
            self.optimizer = Optimizer(self.parts, self.spec.training, self.world)
            return 0
        state = self.state()
        dcp.load(state, checkpoint_id=newest[0], no_dist=True)
        self.optimizer.load(state, step_of(newest[0]))
        return step_of(newest[0])

    def save(self, step: int, group: dist.ProcessGroup) -> None:
        """Begin to write a checkpoint, when the one before is written."""
        if self.saving is not None:
            self.saving.result()
        folder = self.run.checkpoints / checkpoint_name(step)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of its own deprecated calls
            saving = dcp.async_save(self.state(), checkpoint_id=folder, process_group=group)
        self.saving = cast(Future[Any], saving)


def join() -> None:
    """Form the group of a launcher's workers.

    torchrun keeps one store through all restarts, and in PyTorch 2.13 nothing in it tells one round from the
    next: a worker that finds the dead one's address there retries for five seconds and dies, and a restart
    becomes two or three (seen here in most). So each round gets a prefix of its own.
    """
    store, rank, ranks = next(dist.rendezvous("env://"))
    round_ = os.environ["TORCHELASTIC_RESTART_COUNT"]
    dist.init_process_group("gloo", store=dist.PrefixStore(round_, store), rank=rank, world_size=ranks)


def train(trainee: Trainee, log: Log, after_step: Callable[[], None] = lambda: None) -> None:
    """Train in the group that stands, from the newest checkpoint, until something breaks."""
    assert trainee.spec.training is not None
    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("replicate",))
    trainee.world, trainee.saving = World(trainee.spec.layout, CPU, mesh), None
    savers = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))  # used by nothing else
    log.up(rank)
    done = trainee.restore()
    for step in range(done + 1, trainee.spec.training.total_steps + 1):
        loss = trainee.step(step, rank)
        if rank == 0:
            log.step(step, trainee.global_batch, loss)
        if step % SAVE_EVERY == 0:
            trainee.save(step, savers)
        after_step()
