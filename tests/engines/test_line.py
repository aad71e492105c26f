"""The controller's end of a connection: whole messages however bytes come, and nothing before the proof."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from colossi.channel import (
    Channel,
    Message,
    frame,
    frame_with,
    is_proof,
    length_of,
    message_of,
    opened,
    proof,
)
from colossi.engines.line import Line

TOKEN = b"the token of this run"
HELLO = {"node": "a", "rack": "r", "store": "h:1", "data": "h:2", "pid": 7, "challenge": "c"}


class Wire(asyncio.Transport):
    """What was sent, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.9", 4711)})
        self.sent: list[Message] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert length_of(data[:4]) == len(data) - 4
        self.sent.append(message_of(data[4:]))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Ear:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.then: Callable[[Line], None] = lambda line: None

    def joined(self, agent: Line, hello: Message) -> None:
        self.told.append(("joined", agent.node))

    def heard(self, agent: Line, message: Message) -> None:
        self.told.append(message)
        self.then(agent)

    def gone(self, agent: Line) -> None:
        self.told.append(("gone", agent.node))

    def refused(self, peer: str, why: str) -> None:
        self.told.append(("refused", peer, why))


def come(line: Line, data: bytes, at_once: int = 1 << 16) -> None:
    """Bytes arrive, at most so many at once."""
    while data:
        room = line.get_buffer(-1)
        count = min(len(data), at_once, len(room))
        room[:count] = data[:count]
        line.buffer_updated(count)
        data = data[count:]


async def connected() -> tuple[Line, Wire, Ear]:
    wire, ear = Wire(), Ear()
    line = Line(TOKEN, ear)
    line.connection_made(wire)
    return line, wire, ear


async def admitted(at_once: int = 1 << 16) -> tuple[Line, Wire, Ear]:
    line, wire, ear = await connected()
    come(line, frame(HELLO), at_once)
    assert is_proof(TOKEN, "server", "c", wire.sent[0]["proof"])
    come(line, frame({"proof": proof(TOKEN, "client", wire.sent[0]["challenge"])}), at_once)
    assert wire.sent[1:] == [{"welcome": True}] and ear.told == [("joined", "a")]
    return line, wire, ear


MESSAGES: list[Message] = [{"say": "beat"}, {"say": "stopped", "held": [[1, 2, 0, 3, 1]] * 9_000}, {"é": 1}]


@pytest.mark.parametrize("at_once", [1, 3, 1000, 1 << 16])
def test_messages_are_whole_however_their_bytes_come(at_once: int) -> None:
    async def story() -> None:
        line, _, ear = await admitted(at_once)
        come(line, b"".join(map(frame, MESSAGES)), at_once)
        assert ear.told[1:] == MESSAGES
        line.connection_lost(None)
        assert ear.told[-1] == ("gone", "a") and line.ended.done()

    asyncio.run(story())


def test_nothing_more_is_heard_of_a_line_that_was_closed() -> None:
    async def story() -> None:
        line, _, ear = await admitted()
        ear.then = Line.close
        come(line, b"".join(map(frame, MESSAGES)))
        assert ear.told[1:] == MESSAGES[:1]

    asyncio.run(story())


STRANGERS: list[tuple[str, bytes, str]] = [
    ("no message", b"GET / HTTP/1.1\r\n\r\n", "a message of 1195725856 bytes"),
    ("no JSON", frame({})[:3] + b"\x01" + b"x", "Expecting value: line 1 column 1 (char 0)"),
    ("no object", b"\x00\x00\x00\x02[]", "a message is a JSON object"),
    ("no challenge", frame({"node": "a"}), "'challenge'"),
    (
        "a guess",
        frame(HELLO) + frame({"proof": proof(b"?", "client", "c")}),
        "does not know the token of this run",
    ),
    ("no proof", frame(HELLO) + frame({"say": "beat"}), "does not know the token of this run"),
]


@pytest.mark.parametrize(("data", "why"), [row[1:] for row in STRANGERS], ids=[row[0] for row in STRANGERS])
def test_who_proves_nothing_is_refused_once(data: bytes, why: str) -> None:
    async def story() -> None:
        line, wire, ear = await connected()
        come(line, data)
        assert wire.closed and ear.told == [("refused", "10.0.0.9", why)]
        line.connection_lost(None)
        assert len(ear.told) == 1

    asyncio.run(story())


def test_who_goes_before_proving_anything_is_refused() -> None:
    async def story() -> None:
        line, _, ear = await connected()
        line.connection_lost(None)
        assert ear.told == [("refused", "10.0.0.9", "it went before it had proved who it is")]

    asyncio.run(story())


def test_an_agent_that_makes_no_sense_is_cut_off() -> None:
    async def story() -> None:
        line, wire, ear = await admitted()
        come(line, b"\x00\x00\x00\x01x")
        assert wire.closed
        line.connection_lost(None)
        assert ear.told[1:] == [("gone", "a")]

    asyncio.run(story())


def test_the_agents_end_understands_it() -> None:
    """Over a real connection, both proofs and a message each way."""

    async def story() -> None:
        ear = Ear()
        server = await asyncio.get_running_loop().create_server(lambda: Line(TOKEN, ear), "127.0.0.1", 0)
        ear.then = lambda line: line.send(frame({"do": "beat"}))
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answers: list[Message | None] = []

        def agent() -> None:
            channel = Channel.connect(
                address, TOKEN, {key: HELLO[key] for key in HELLO if key != "challenge"}
            )
            channel.send({"say": "beat"})
            answers.append(channel.receive())
            channel.close()

        thread = threading.Thread(target=agent)
        thread.start()
        while ("gone", "a") not in ear.told:
            await asyncio.sleep(0.01)
        thread.join()
        assert answers == [{"do": "beat"}]
        server.close()

    asyncio.run(asyncio.wait_for(story(), 20.0))


def test_what_is_common_and_what_is_ones_own_are_one_message() -> None:
    common, own = {"do": "start", "sources": None, "of": [1, 2]}, {"first": 8, "fetch": {"8": 'h"1'}}
    both = frame_with(opened(common), own)
    assert length_of(both[:4]) == len(both) - 4 and message_of(both[4:]) == common | own
    near, far = socket.socketpair()
    with near, far:
        far.sendall(both)
        assert Channel(near).receive() == common | own
