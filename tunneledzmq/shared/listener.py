"""The listener of a local leg, as program and gateway make it."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from .system.advice import raise_limit
from .system.leg import AF_UNIX
from .system.ports import before_listen, claim_port

__all__ = [
    "BACKLOG",
    "address_of",
    "beside",
    "bind_private",
    "cannot_listen",
    "endpoint_of",
    "listen",
    "remove_stale",
    "take_place",
]

BACKLOG = 128
"""How many connections of libzmq may wait for the SSH session."""


def listen(local: str) -> tuple[socket.socket, str]:
    """Listen on a local endpoint; return the listener, and the endpoint with its port.

    Raises:
        OSError: the endpoint is taken, or cannot be had.
    """
    address = address_of(local)
    if isinstance(address, str):
        listener = socket.socket(AF_UNIX)
        try:
            bind_private(listener, address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener, local
    listener = claim_port(address)
    try:
        before_listen(listener)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener, endpoint_of(listener)


def address_of(local: str) -> str | tuple[str, int]:
    """Return what `local` means: a path, or a host and a port (0 for any)."""
    if local.startswith("ipc://"):
        return local[len("ipc://") :]
    host, _, port = local[len("tcp://") :].rpartition(":")
    return host.strip("[]"), 0 if port == "*" else int(port)


def endpoint_of(listener: socket.socket) -> str:
    """Return the ``tcp://`` endpoint on which a socket listens."""
    host, port = listener.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def bind_private(listener: socket.socket, path: str) -> None:
    """Bind with mode 0600, in place of a Unix socket that nobody listens on.

    Raises:
        OSError: the path is taken, or cannot be had.
    """
    remove_stale(path)
    listener.bind(path)
    # Nobody can connect before listen(), which is after this.
    os.chmod(path, 0o600)


def beside(path: str) -> str:
    """Return where a socket is bound that is to take the place of the one at `path`."""
    return f"{path}~"


def take_place(sock: socket.socket, path: str, *, ours: bool) -> None:
    """Bind with mode 0600, in place of a Unix socket of ours if it is still there.

    Raises:
        OSError: the path is taken, or cannot be had.
    """
    if ours:
        with suppress(OSError):  # the path may be as long as it can be
            bind_private(sock, beside(path))
            os.rename(beside(path), path)
            return
        os.unlink(path)
    bind_private(sock, path)


def remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody listens on any more; leave everything else alone."""
    with suppress(OSError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(AF_UNIX) as probe:
            # A listener whose queue is full would keep us waiting.
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def cannot_listen(server: str, local: str, error: OSError) -> str:
    """Say that a local endpoint cannot be had, and what to do about it."""
    return (
        f"{server}: cannot listen on {local} for the local leg: "
        f"{error.strerror or error}; {raise_limit(error) or 'local= takes another endpoint'}"
    )
