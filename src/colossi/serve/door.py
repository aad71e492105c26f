"""Where a server listens, and the keys of those who may ask; light, so that a refusal comes at once."""

import ipaddress
import socket
from pathlib import Path

from colossi.errors import BadInput

CONNECTIONS = 1024  # open at once


def read_keys(path: Path) -> frozenset[str]:
    """One key a line; empty lines and those that begin with # are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {error}", "give a file with a key on each line") from None
    keys = {line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")}
    if not keys:
        raise BadInput(f"{path}: has no key", "write one on each line")
    return frozenset(keys)


def listen(host: str, port: int, keys: bool) -> socket.socket:
    """A socket that listens; refused beyond loopback where everybody could ask."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BadInput(f"--host {host}: {error}", "give an address of this machine") from None
    if not keys and not ipaddress.ip_address(str(address[0])).is_loopback:
        raise BadInput(f"--host {host}: everybody there could ask", "give --keys FILE, or leave --host out")
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(CONNECTIONS)
    except OSError as error:
        sock.close()
        raise BadInput(f"{host}:{port}: {error.strerror}", "give another --port, or 0 for any") from None
    return sock
