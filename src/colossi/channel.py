"""
Messages between the processes of a run: JSON objects over a socket, with bytes or open files behind them.

A frame is the length of its JSON (4 bytes, big-endian), the JSON, and, if it says `"bytes": n`, n raw bytes.
Over TCP both sides first prove that they know the run's token, without sending it (HMAC-SHA256 of the other's
random challenge); over a socket pair between parent and child there is nothing to prove.
"""

import contextlib
import hmac
import json
import os
import secrets
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

Message = dict[str, Any]

LENGTH = struct.Struct(">I")
_ENCODE = json.JSONEncoder(check_circular=False).encode
LARGEST = 64 << 20  # of a message's JSON [B]: 25,000 nodes fit in; more is no message of ours
FILES = 64  # open files that one message may carry


class Refused(Exception):
    """The other side did not prove that it knows the token."""


class Channel:
    """One end of a connection. One thread receives; any thread sends."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._sending = threading.Lock()

    @classmethod
    def connect(cls, address: str, token: bytes, hello: Message, timeout: float = 5.0) -> Self:
        """To host:port, proving the token; `hello` says who calls."""
        host, _, port = address.rpartition(":")
        connected = socket.create_connection((host, int(port)), timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = cls(connected)
        try:
            channel._prove(token, hello, address)
        except (OSError, Refused, ValueError):
            connected.close()
            raise
        connected.settimeout(None)
        return channel

    def _prove(self, token: bytes, hello: Message, address: str) -> None:
        challenge = new_challenge()
        self.send(hello | {"challenge": challenge})
        asked = self.receive()
        if asked is None or not is_proof(token, "server", challenge, asked.get("proof")):
            raise Refused(f"{address} does not know the token of this run")
        self.send({"proof": proof(token, "client", str(asked["challenge"]))})
        if self.receive() != {"welcome": True}:
            raise Refused(f"{address} refused us")

    @classmethod
    def accept(cls, connected: socket.socket, token: bytes, timeout: float = 5.0) -> tuple[Self, Message]:
        """The server's side of `connect`: a channel, and the caller's hello."""
        connected.settimeout(timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = cls(connected)
        try:
            hello = channel.receive() or {}
            challenge = new_challenge()
            channel.send({"proof": proof(token, "server", str(hello["challenge"])), "challenge": challenge})
            answer = channel.receive() or {}
        except (OSError, ValueError, KeyError, UnicodeDecodeError) as error:
            raise Refused(f"not a peer of this run ({type(error).__name__})") from error
        if not is_proof(token, "client", challenge, answer.get("proof")):
            raise Refused("does not know the token of this run")
        channel.send({"welcome": True})
        connected.settimeout(None)
        return channel, hello

    def send(self, message: Message, data: memoryview | bytes = b"", files: Sequence[int] = ()) -> None:
        """All of it or an OSError. `files` (descriptors) only over a Unix socket."""
        head = frame(message | ({"bytes": len(data)} if data else {}))
        with self._sending:
            if files:
                sent = socket.send_fds(self.socket, [head], list(files))
                head = head[sent:]
            self.socket.sendall(head)
            if data:
                self.socket.sendall(data)

    def receive(self) -> Message | None:
        """The next message, None when the other end is gone. Its raw bytes are left to `read_into`."""
        message, files = self.receive_with_files()
        for descriptor in files:
            os.close(descriptor)
        return message

    def receive_with_files(self) -> tuple[Message | None, list[int]]:
        """The same, with the descriptors that came along; they are the caller's to close."""
        head, files = b"", []
        try:
            while len(head) < LENGTH.size:
                if self.socket.family == socket.AF_UNIX:
                    part, came, _, _ = socket.recv_fds(self.socket, LENGTH.size - len(head), FILES)
                    files += came
                else:
                    part = self.socket.recv(LENGTH.size - len(head))
                if not part:
                    return None, files
                head += part
            body = bytearray(length_of(head))
            if not self.read_into(memoryview(body)):
                return None, files
        except ConnectionError:
            return None, files
        return message_of(body), files

    def read_into(self, buffer: memoryview) -> bool:
        """Fill the buffer with raw bytes; False if the other end goes before it is full."""
        while buffer:
            try:
                got = self.socket.recv_into(buffer)
            except ConnectionError:
                return False
            if not got:
                return False
            buffer = buffer[got:]
        return True

    def close(self) -> None:
        """Wakes up whoever waits in `receive`."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection between a parent and its child."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def frame(message: Message) -> bytes:
    """A message as it is sent."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def opened(message: Message) -> bytes:
    """What many messages have in common, encoded once; it must have a field."""
    return json.dumps(message).encode()[:-1]


def frame_with(common: bytes, own: Message) -> bytes:
    """The message with all fields of an `opened` one and its own, which must be others, as it is sent."""
    body = common + b", " + _ENCODE(own).encode()[1:]
    return LENGTH.pack(len(body)) + body


def length_of(head: bytes | bytearray) -> int:
    """The bytes that follow the first LENGTH.size of a frame; a ValueError if it can be none of ours."""
    (length,) = LENGTH.unpack(head)
    if length > LARGEST:
        raise ValueError(f"a message of {length} bytes")
    return int(length)


def message_of(body: bytes | bytearray) -> Message:
    """What follows; a ValueError if it is no message."""
    message = json.loads(body.decode())
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message


def new_challenge() -> str:
    """Never used twice."""
    return secrets.token_hex(16)


def proof(token: bytes, side: str, challenge: str) -> str:
    """What only one who knows the token can answer; `side` keeps it from being sent back as our own."""
    return hmac.new(token, f"{side}:{challenge}".encode(), "sha256").hexdigest()


def is_proof(token: bytes, side: str, challenge: str, found: object) -> bool:
    """Whether it is that answer."""
    return isinstance(found, str) and hmac.compare_digest(
        proof(token, side, challenge).encode(), found.encode()
    )


def token_of(folder: Path) -> bytes:
    """The secret of a run: made when first asked for, readable by its owner only."""
    path = folder / "token"
    if not path.exists():
        temporary = folder / f"tmp-token-{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # not rename: of two makers the first one's stays
        os.unlink(temporary)
    return path.read_bytes().strip()
