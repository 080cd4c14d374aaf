"""The local leg that nobody else can use: a Unix socket, or a TCP port for one process alone.

Python has no Unix sockets on Windows. There the gateway asks whose a connection is before it
carries a byte (see `owner`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

__all__ = ["AF_UNIX", "HAS_UNIX_SOCKETS", "connect_to", "private_leg", "whose"]

AF_UNIX: int = getattr(socket, "AF_UNIX", -1)
"""The family of Unix sockets; none has it where there are none."""

HAS_UNIX_SOCKETS = AF_UNIX != -1


def private_leg(directory: Callable[[], str], number: int) -> str:
    """Return the endpoint of a private leg.

    Args:
        directory: tells a private directory, where one is needed.
        number: what tells it from the others there.
    """
    return f"ipc://{directory()}/{number}" if HAS_UNIX_SOCKETS else "tcp://127.0.0.1:*"


def whose(pid: int | None) -> int | None:
    """Return the process that alone may use a private leg; `None` where the system sees to that.

    Args:
        pid: that process; `None` for this one.
    """
    if HAS_UNIX_SOCKETS:
        return None
    return os.getpid() if pid is None else pid


def connect_to(endpoint: str, timeout: float) -> socket.socket:
    """Connect to a local leg.

    Raises:
        OSError: nobody listens there, or not within `timeout` seconds.
    """
    if endpoint.startswith("ipc://"):
        sock = socket.socket(AF_UNIX)
        address: str | tuple[str, int] = endpoint[len("ipc://") :]
    else:
        host, _, port = endpoint[len("tcp://") :].rpartition(":")
        sock = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET)
        address = host.strip("[]"), int(port)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
        if sock.family != AF_UNIX:
            # Wine does not know whose a socket is that has only been connected.
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.recv(1, socket.MSG_PEEK)
            sock.settimeout(timeout)
    except BaseException:
        sock.close()
        raise
    return sock
