"""How long the kernel waits for a peer that acknowledges nothing."""

from __future__ import annotations

import math
import socket
import sys
from contextlib import suppress

__all__ = ["watch_peer"]

# They take an int.
_MOST = 2**31 - 1

# Options of IPPROTO_TCP of which Python does not know the names: netinet/tcp.h, ws2ipdef.h.
_TCP_RXT_CONNDROPTIME = 0x80
_TCP_MAXRT = 5


def watch_peer(sock: socket.socket, patience: float) -> None:
    """Let the kernel give up on a peer that acknowledges nothing, as is done at a higher level.

    Args:
        sock: the connection to it.
        patience: the seconds until then; 0 for the kernel's own.
    """
    if not patience:
        return
    seconds = min(math.ceil(patience), _MOST)
    with suppress(OSError):
        if sys.platform == "win32":
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_MAXRT, seconds)
        elif sys.platform == "darwin":
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RXT_CONNDROPTIME, seconds)
        elif hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = min(int(patience * 1000), _MOST)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
