"""
A replica group of one worker under torchft 0.2.0: the other goes on alone until this one is back.

As torchft's own train_ddp.py, with two changes to its favour. The batch follows from the step that the
manager has committed, so a step that was not committed is done again with the same samples. And the manager
sums the gradients itself, in one all-reduce: in torchft's DistributedDataParallel, on gloo, the survivor of a
failed all-reduce dies of an AssertionError (`assert fut._fut` in ddp.py), and both replicas begin anew.

`TORCHFT_LIGHTHOUSE=http://... torchrun --nproc-per-node 1 --max-restarts 100 torchft_run.py RUN REPLICA`
"""

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchft import Manager, Optimizer, ProcessGroupGloo
from trainee import RANKS, Log, Trainee

from colossi.data.corpus import Batch
from colossi.model.grok import PAD
from colossi.train.step import Counts, total_loss


class Dated(ProcessGroupGloo):
    """A group that knows when it was last formed."""

    formed = 0.0

    def configure(self, *arguments: Any, **more: Any) -> None:
        super().configure(*arguments, **more)
        self.formed = time.monotonic()


def loss_of(trainee: Trainee, batch: Batch) -> Tensor:
    """Of a replica's rows, as if they were the whole batch; the manager takes the mean of the replicas."""
    is_target = torch.from_numpy(batch.is_target)
    inputs = torch.from_numpy(batch.inputs)
    counts = Counts(is_target.sum(), (inputs != PAD).sum(), torch.tensor(len(inputs)))
    losses = trainee.grok(inputs, torch.from_numpy(batch.targets), is_target)
    return total_loss(losses, counts, trainee.spec)


def average(manager: Manager, parameters: list[nn.Parameter]) -> None:
    """The gradients of all replicas; after a failure what is left in them is not committed."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    manager.allreduce(flat).wait()
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def main(folder: Path, replica: int) -> None:
    """Train until killed; a new process takes its weights from the other replica."""
    log, trainee = Log(folder), Trainee.make(folder)
    training = trainee.spec.training
    assert training is not None
    group = Dated(timeout=timedelta(seconds=5))
    model = trainee.grok
    parameters = list(model.parameters())

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def save() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    manager = Manager(
        pg=group,
        min_replica_size=1,
        load_state_dict=load,
        state_dict=save,
        replica_id=f"replica_{replica}",
        timeout=timedelta(seconds=30),
    )
    adamw = torch.optim.AdamW(
        parameters, lr=training.learning_rate, betas=(training.beta1, training.beta2), fused=True
    )
    optimizer = Optimizer(manager, adamw)
    formed = 0.0
    while (done := manager.current_step()) < training.total_steps:
        optimizer.zero_grad()  # a new quorum begins to form
        loss = loss_of(trainee, trainee.batch(done + 1, replica))
        loss.backward()
        average(manager, parameters)
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        optimizer.step()
        if group.formed != formed:
            formed = group.formed
            log.up(replica, formed)
        if (step := manager.current_step()) > done:
            samples = trainee.global_batch // RANKS * manager.num_participants()
            log.step(step, samples, float(loss.detach()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
