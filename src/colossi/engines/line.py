"""
A line: the controller's end of an agent's connection, in the controller's event loop.

The same frames and the same proof as channel.py, whose other end is the agent's. A plain asyncio protocol: a
task and a stream for each of 25,000 agents would cost several times the CPU.
"""

import asyncio
from typing import Protocol

from colossi.channel import LENGTH, Message, frame, is_proof, length_of, message_of, new_challenge, proof
from colossi.control import events

HANDSHAKE_SECONDS = 5.0


class Listener(Protocol):
    """Who is told what happens on the lines."""

    def joined(self, agent: "Line", hello: Message) -> None:
        """It has proved to be of this run, and says this of its node."""

    def heard(self, agent: "Line", message: Message) -> None:
        """One message of an agent that has joined."""

    def gone(self, agent: "Line") -> None:
        """Its connection has ended, by either side."""

    def refused(self, peer: str, why: str) -> None:
        """Somebody who did not prove anything."""


class Line(asyncio.BufferedProtocol):
    """To one peer; `node` is "" until it has proved to be an agent of this run."""

    _incoming = memoryview(bytearray(1 << 16))  # of all lines, as it is emptied at once

    def __init__(self, token: bytes, listener: Listener) -> None:
        self.node = self.rack = self.store = self.data = ""
        self.pid = 0
        self.ended = asyncio.get_running_loop().create_future()
        self._token, self._listener = token, listener
        self._challenge = new_challenge()
        self._hello: Message | None = None
        self._buffer = bytearray()

    def send(self, framed: bytes) -> None:
        """Without waiting; a connection that is gone is noticed by its reader."""
        self._transport.write(framed)

    def close(self) -> None:
        """What was sent still goes; nothing more is heard."""
        self._transport.close()

    # --- what asyncio calls -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stranger has this long to prove that it is none."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._late = loop.call_later(HANDSHAKE_SECONDS, self._refuse, "it did not prove who it is in time")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._incoming

    def buffer_updated(self, nbytes: int) -> None:
        """So many have come: of one message or of several."""
        if not self._buffer and self.node and not self._transport.is_closing():
            message = self._whole(nbytes)
            if message is not None:
                self._listener.heard(self, message)
                return
        self._buffer += self._incoming[:nbytes]
        while len(self._buffer) >= LENGTH.size and not self._transport.is_closing():
            try:
                end = LENGTH.size + length_of(self._buffer[: LENGTH.size])
                if len(self._buffer) < end:
                    return
                message = message_of(self._buffer[LENGTH.size : end])
            except (ValueError, RecursionError) as error:
                self._refuse(str(error))
                return
            del self._buffer[:end]
            if self.node:
                self._listener.heard(self, message)
            else:
                self._prove(message)

    def _whole(self, nbytes: int) -> Message | None:
        """What has come, if that is one message and nothing else, as is the rule: not copied twice."""
        if nbytes < LENGTH.size or LENGTH.unpack_from(self._incoming)[0] != nbytes - LENGTH.size:
            return None
        try:
            return message_of(bytes(self._incoming[LENGTH.size : nbytes]))
        except (ValueError, RecursionError):
            return None  # the long way says what is wrong

    def connection_lost(self, error: Exception | None) -> None:
        """For whatever reason."""
        self._refuse("it went before it had proved who it is")
        if self.node:
            self._listener.gone(self)
        self.ended.set_result(None)

    # --- both sides prove that they know the token --------------------------------------------------------

    def _prove(self, message: Message) -> None:
        try:
            if self._hello is None:
                answer = proof(self._token, "server", str(message["challenge"]))
                self._hello = message
                self.send(frame({"proof": answer, "challenge": self._challenge}))
                return
            if not is_proof(self._token, "client", self._challenge, message.get("proof")):
                raise ValueError("does not know the token of this run")
            hello = self._hello
            node, self.rack, self.store, self.data, self.pid = (
                hello[key] for key in ("node", "rack", "store", "data", "pid")
            )
        except (KeyError, ValueError) as error:
            self._refuse(str(error))
            return
        self._late.cancel()
        self.node, self._hello = node, None
        self.send(frame({"welcome": True}))
        self._listener.joined(self, hello)

    def _refuse(self, why: str) -> None:
        """Whoever has not joined is refused, once; an agent that no longer makes sense is cut off."""
        if not self.node and not self._late.cancelled():
            self._late.cancel()
            peer = self._transport.get_extra_info("peername")
            self._listener.refused(str(peer[0]) if peer else "", why)
        self._transport.close()


def held(message: Message) -> events.Held:
    """The snapshots that an agent says it has."""
    return tuple(map(events.Snapshot._make, message["held"]))
