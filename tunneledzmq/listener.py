"""The listener of a local leg, as program and gateway make it."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

__all__ = ["BACKLOG", "bind_private", "cannot_listen", "listen", "remove_stale"]

BACKLOG = 128
"""How many connections of libzmq may wait for the SSH session."""


def listen(local: str) -> tuple[socket.socket, str]:
    """Listen on a local endpoint; return the listener, and the endpoint with its port.

    Raises:
        OSError: the endpoint is taken, or cannot be had.
    """
    if local.startswith("ipc://"):
        listener = socket.socket(socket.AF_UNIX)
        try:
            bind_private(listener, local[len("ipc://") :])
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener, local
    host, _, port = local[len("tcp://") :].rpartition(":")
    host = host.strip("[]")
    listener = socket.create_server(
        (host, 0 if port == "*" else int(port)),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=BACKLOG,
    )
    host, number = listener.getsockname()[:2]
    return listener, f"tcp://[{host}]:{number}" if ":" in host else f"tcp://{host}:{number}"


def bind_private(listener: socket.socket, path: str) -> None:
    """Bind with mode 0600, in place of a Unix socket that nobody listens on.

    Raises:
        OSError: the path is taken, or cannot be had.
    """
    remove_stale(path)
    listener.bind(path)
    # Nobody can connect before listen(), which is after this.
    os.chmod(path, 0o600)


def remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody listens on any more; leave everything else alone."""
    with suppress(OSError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
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
        f"{error.strerror or error}; local= takes another endpoint"
    )
