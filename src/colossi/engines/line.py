"""
A line: the controller's end of an agent's connection, in the controller's event loop.

The same frames and the same proof as channel.py, whose other end is the agent's.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from colossi.channel import LENGTH, Message, frame, is_proof, length_of, message_of, new_challenge, proof
from colossi.control import events


@dataclass(slots=True)
class Line:
    """To one agent, that has proved to be of this run."""

    node: str
    rack: str
    store: str
    data: str
    pid: int
    writer: asyncio.StreamWriter

    def send(self, message: Message) -> None:
        """Without waiting; a connection that is gone is noticed by its reader."""
        with contextlib.suppress(OSError, RuntimeError):
            write(self.writer, message)


async def admit(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes
) -> tuple[Line, Message]:
    """Both sides prove that they know the token; then the line, and what the agent says of its node."""
    hello, challenge = await read(reader), new_challenge()
    write(writer, {"proof": proof(token, "server", str(hello["challenge"])), "challenge": challenge})
    if not is_proof(token, "client", challenge, (await read(reader)).get("proof")):
        raise ValueError("does not know the token of this run")
    write(writer, {"welcome": True})
    line = Line(hello["node"], hello["rack"], hello["store"], hello["data"], hello["pid"], writer)
    return line, hello


async def read(reader: asyncio.StreamReader) -> Message:
    """The next message; EOFError when the other end is gone."""
    length = length_of(await reader.readexactly(LENGTH.size))
    return message_of(await reader.readexactly(length))


def write(writer: asyncio.StreamWriter, message: Message) -> None:
    """Without waiting for it to be sent."""
    writer.write(frame(message))


def held(message: Message) -> events.Held:
    """The snapshots that an agent says it has."""
    return tuple(events.Snapshot(*each) for each in message["held"])
