"""What the kernel knows of a connected socket's other end."""

from __future__ import annotations

import select
import socket
import struct
import sys
from contextlib import suppress

__all__ = ["look_at", "untaken"]

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


def look_at(sock: socket.socket) -> tuple[bool, bool]:
    """Ask whether the other end has closed, and whether there is data to read."""
    if sock.fileno() < 0:
        return True, False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | getattr(select, "POLLRDHUP", 0))
    [(_, events)] = poll.poll(0) or [(0, 0)]
    return bool(events & _GONE), bool(events & select.POLLIN)


def untaken(sock: socket.socket) -> int | None:
    """Ask how many bytes, at least, the other end has not taken yet of what was sent to it.

    Returns:
        `None` where the kernel does not know: over TCP, what was sent is with the other kernel.
    """
    if sock.family != socket.AF_UNIX:
        return None
    with suppress(OSError):
        if sys.platform == "linux":
            from fcntl import ioctl
            from termios import TIOCOUTQ  # SIOCOUTQ, unix(7)

            (count,) = struct.unpack("i", ioctl(sock, TIOCOUTQ, bytes(4)))
            return int(count)
        if sys.platform == "darwin":
            return sock.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE, getsockopt(2)
    return None
