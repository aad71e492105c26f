"""
A worker: takes part in one incarnation of the run after another, as its agent orders.

Between incarnations the process, its imports and its memory stay; the groups, the model and the optimizer are
made anew, and the state comes from a snapshot.
"""

import os
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from colossi.channel import Channel
from colossi.errors import ColossiError
from colossi.ledger.run import Run, open_run
from colossi.train.link import Interrupted, Link, Order
from colossi.train.loop import Corrupted, train
from colossi.train.snapshot import Damaged

PEER_WORDS = ("gloo", "NCCL", "Connection", "Socket", "connection")
MEET_SECONDS = 60.0
PEER_GRACE = 2.0  # [s] a broken connection is as a rule another's death, of which we shall hear


def work(channel: Channel, folder: Path) -> int:
    """Until the agent is gone or something breaks; the exit code tells it which."""
    link = Link(channel)
    link.listen()
    run = open_run(folder)
    while True:
        order = link.orders.get()
        try:
            with link.incarnation(order.incarnation):
                _take_part(run, order, link)
        except Interrupted:
            pass
        except Corrupted as found:
            link.say("corrupted", step=found.step, fingerprint=found.fingerprint)
        except Exception as error:  # the edge of the process
            traceback.print_exc()
            if isinstance(error, Damaged):
                link.say("damaged", step=order.restore)
            link.say("failed", why=in_words(error), fatal=isinstance(error, ColossiError))
            return 1
        _leave()
        link.say("stopped", incarnation=order.incarnation)


def _take_part(run: Run, order: Order, link: Link) -> None:
    _log_to(run.logs / f"rank-{order.rank}.log")
    device = choose_device(run.spec().cluster.device, order.local_rank, order.threads)
    try:
        if order.ranks > 1:
            join(order.store, order.rank, order.ranks, device)
        train(run, order, device, link)
    except Exception as error:
        link.wait_for_stop(PEER_GRACE if _may_be_a_peer(error) else 0.0)
        raise


def choose_device(wanted: str, local_rank: int, threads: int) -> torch.device:
    """The GPU of this worker, or so many threads on the CPU."""
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        return device
    torch.set_num_threads(threads)
    return torch.device("cpu")


def join(store: str | None, rank: int, ranks: int, device: torch.device) -> None:
    """Form the group of all ranks; the first one keeps the store where they meet, at host:port.

    None: where torchrun's variables say.
    """
    meeting = None
    if store is not None:
        host, _, port = store.rpartition(":")
        if rank > 0:
            _wait_for_first(host, int(port))
        meeting = dist.TCPStore(  # type: ignore[attr-defined]
            host,
            int(port),
            ranks,
            is_master=rank == 0,
            timeout=timedelta(seconds=MEET_SECONDS),
            wait_for_workers=False,
        )
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=meeting,
        rank=rank,
        world_size=ranks,
        timeout=timedelta(minutes=10),
    )


def _may_be_a_peer(error: Exception) -> bool:
    """Whether it is how the death of another worker looks from here; the libraries have no type for it."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in PEER_WORDS)


def _wait_for_first(host: str, port: int) -> None:
    """Until rank 0 listens. The library would wait too, but look again only after half a second."""
    deadline = time.monotonic() + MEET_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError:
            time.sleep(0.003)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def in_words(error: Exception) -> str:
    """An error as a line for the ledger."""
    return str(error) if isinstance(error, ColossiError) else f"{type(error).__name__}: {error}"


def _log_to(path: Path) -> None:
    """Standard output and error of a rank, in its log."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.stderr.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} pid {os.getpid()}\n")
