"""
`python -m colossi.acceptance.agent FOLDER NODE [RACK]`: what is on a node while it is checked.

It does what the fleet's side (fleet.py) asks for, one thing after another, and keeps an ear open for other
nodes that measure themselves against this one. It ends when that side is gone.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from colossi.acceptance.checks import check_node
from colossi.acceptance.clock import boot_time
from colossi.acceptance.wire import Echo, exchange
from colossi.channel import Channel, Message, Refused, token_of

JOIN_SECONDS = 30.0  # for the other side to be there


def serve(folder: Path, node: str, rack: str) -> None:
    """Until nobody asks any more."""
    token = token_of(folder)
    address = json.loads((folder / "check.json").read_text(encoding="utf-8"))["address"]
    host = _own_address(address)
    echo = Echo(host, token)
    hello = {"node": node, "rack": rack, "pairs": echo.address, "boot": boot_time(), "pid": os.getpid()}
    channel = Channel.connect(address, token, hello, timeout=JOIN_SECONDS)
    while (asked := channel.receive()) is not None and asked["ask"] != "quit":
        answer = {"clock": _clock, "checks": _checks, "pair": _pair}[asked["ask"]]
        channel.send({"number": asked["number"]} | answer(asked, folder, token))


def _clock(asked: Message, folder: Path, token: bytes) -> Message:
    return {"time": time.time()}


def _checks(asked: Message, folder: Path, token: bytes) -> Message:
    found: list[dict[str, Any]] = []
    for _, results in check_node(folder, asked["groups"]):
        found += [result.as_json() for result in results]
    return {"results": found}


def _pair(asked: Message, folder: Path, token: bytes) -> Message:
    """A pair that cannot be is a rate of 0, and why."""
    try:
        return {"rate": exchange(asked["with"], token, asked["seconds"]), "why": ""}
    except (OSError, Refused) as error:
        return {"rate": 0.0, "why": str(error) or type(error).__name__}


def _own_address(address: str) -> str:
    """Of the network that the other side is reached by."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # a connected UDP socket sends nothing
        probe.connect((host, int(port)))
        return str(probe.getsockname()[0])


def main() -> int:
    """An exit code; what went wrong is one line of the node's log."""
    folder, node, *rack = sys.argv[1:]
    try:
        serve(Path(folder), node, "".join(rack))
    except (OSError, Refused, ValueError, KeyError) as error:
        sys.stderr.write(f"{node}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
