"""
The warm standby of a node: a process that has imported everything, and becomes a worker in milliseconds.

The agent asks it to fork and sends one end of a connection along; the child is the worker. Forking is safe
here because nothing has been computed yet: neither OpenMP nor CUDA has started its threads.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

import torch._dynamo  # noqa: F401  (the first optimizer would import it, for half a second)

import colossi.train.worker  # noqa: F401  (with it all that a worker needs)
from colossi.channel import Channel


def stand_by(descriptor: int, folder: Path) -> int:
    """Fork a worker whenever the agent says so, tell it who exited, and end with it."""
    agent = Channel(socket.socket(fileno=descriptor))
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    agent.send({"say": "warm"})
    while True:
        ready, _, _ = select.select([agent.socket.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _tell_of_exits(agent, children)
        if agent.socket.fileno() in ready:
            message, files = agent.receive_with_files()
            if message is None:
                break
            pid = os.fork()
            if pid == 0:
                _become_worker(agent, (woken, wake), files[0], folder)
            os.close(files[0])
            children.add(pid)
            agent.send({"say": "forked", "worker": message["worker"], "pid": pid})
    for pid in children:  # the agent is gone, so this node is
        os.kill(pid, signal.SIGKILL)
    return 0


def _become_worker(agent: Channel, pipe: tuple[int, int], descriptor: int, folder: Path) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    agent.socket.close()
    for end in pipe:
        os.close(end)
    code = 1
    try:
        from colossi.train.worker import work

        code = work(Channel(socket.socket(fileno=descriptor)), folder)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # never back into the loop of the standby, and no wait for threads of a broken group


def _tell_of_exits(agent: Channel, children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        agent.send({"say": "exited", "pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _nothing(number: int, frame: object) -> None:
    """A handler, so that the signal wakes us."""
