"""Sockets on their way from one process to another, and pairs of sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque

__all__ = ["beyond_standard_streams", "give", "receive", "send", "socketpair", "take"]


def beyond_standard_streams(descriptor: int) -> int:
    """Return a descriptor of the same for a process that is to be started, and close this one.

    A program that has closed its own standard streams gets their numbers for what it opens next; in
    what it starts, they are the standard streams'.
    """
    if descriptor > 2:
        return descriptor
    try:
        return beyond_standard_streams(os.dup(descriptor))
    finally:
        os.close(descriptor)


def _blocking(ours: socket.socket, theirs: socket.socket) -> tuple[socket.socket, socket.socket]:
    # Whatever the program has chosen for its own (socket.setdefaulttimeout).
    ours.settimeout(None)
    theirs.settimeout(None)
    return ours, theirs


if sys.platform == "win32":

    def socketpair() -> tuple[socket.socket, socket.socket]:
        """Return two sockets that are connected to each other, and to nobody else.

        Raises:
            OSError: there are none to be had.
        """
        # Python makes them of TCP, where somebody else may have been faster to connect.
        ours, theirs = _blocking(*socket.socketpair())
        if (ours.getsockname(), ours.getpeername()) != (theirs.getpeername(), theirs.getsockname()):
            ours.close()
            theirs.close()
            raise ConnectionAbortedError("somebody else has connected to a socket of ours")
        return ours, theirs

    def give(sock: socket.socket, pid: int) -> str | None:
        """Say in a message which socket comes with it; `None` if it cannot be given away.

        Args:
            sock: the socket.
            pid: the process that gets it.
        """
        try:
            return sock.share(pid).hex()
        except OSError:
            return None  # that process has ended

    def send(control: socket.socket, line: bytes, sock: socket.socket) -> bytes:
        """Send the beginning of a line, with the socket beside it; return what is left to send."""
        return line

    def receive(control: socket.socket, size: int) -> tuple[bytes, list[int]]:
        """Receive data, and the descriptors beside it."""
        return control.recv(size), []

    def take(given: str, descriptors: deque[int]) -> socket.socket | None:
        """Return the socket that came with a message."""
        try:
            return socket.fromshare(bytes.fromhex(given))
        except OSError:
            return None

else:

    def socketpair() -> tuple[socket.socket, socket.socket]:
        """Return two sockets that are connected to each other, and to nobody else.

        Raises:
            OSError: there are none to be had.
        """
        ours, theirs = socket.socketpair()
        return _blocking(ours, socket.socket(fileno=beyond_standard_streams(theirs.detach())))

    def give(sock: socket.socket, pid: int) -> bool | None:
        """Say in a message which socket comes with it; `None` if it cannot be given away.

        Args:
            sock: the socket.
            pid: the process that gets it.
        """
        return True

    def send(control: socket.socket, line: bytes, sock: socket.socket) -> bytes:
        """Send the beginning of a line, with the socket beside it; return what is left to send."""
        return line[socket.send_fds(control, [line], [sock.fileno()]) :]

    def receive(control: socket.socket, size: int) -> tuple[bytes, list[int]]:
        """Receive data, and the descriptors beside it."""
        data, descriptors, _, _ = socket.recv_fds(control, size, 16)
        return data, descriptors

    def take(given: bool, descriptors: deque[int]) -> socket.socket | None:
        """Return the socket that came with a message."""
        # Without a descriptor left for it, the kernel has dropped it.
        return socket.socket(fileno=descriptors.popleft()) if descriptors else None
