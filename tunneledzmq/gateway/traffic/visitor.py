"""A connection of libzmq that has to wait, since there is no way to the peer yet."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from .connection import EARLY_SIZE, is_greeting
from .pump import READ, Pump

__all__ = ["Visitor"]


class Visitor:
    """A local socket without a channel: what libzmq sends first is read, and kept.

    That libzmq makes one tells that it still wants something of a tunnel that it gives up.

    Args:
        sock: the connection, which becomes this object's.
        pump: who watches it; that one's thread calls all methods.
        on_read: called when libzmq has sent something, or has closed it.
        for_gateway: another gateway has made it, which waits for an answer.
    """

    def __init__(
        self,
        sock: socket.socket,
        pump: Pump,
        on_read: Callable[[], None],
        *,
        for_gateway: bool = False,
    ) -> None:
        self._sock = sock
        self._pump = pump
        self._on_read = on_read
        self._for_gateway = for_gateway
        self.since = 0.0
        """Of the program's clock, when it came; for whom that matters."""

        self._early = b""
        self._eof = False
        sock.setblocking(False)
        pump.watch(self, READ)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def ready(self, events: int) -> None:
        """Read what libzmq sends before the peer has greeted it."""
        if self.read():
            self._on_read()

    def read(self) -> bool:
        """Read what libzmq has sent by now; tell whether there was something, or its end."""
        size = EARLY_SIZE - len(self._early)
        if self._eof or not size:
            return False
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        self._early += data
        self._eof = not data
        if self._eof or len(data) == size:
            self._pump.watch(self, 0)
        return True

    @property
    def has_greeted(self) -> bool:
        """Whether libzmq has sent something, as it does at once."""
        return bool(self._early)

    @property
    def has_data(self) -> bool:
        """Whether libzmq has sent more than it sends before the peer has greeted it."""
        return not is_greeting(self._early)

    @property
    def gone(self) -> bool:
        """Whether libzmq has closed it, and has left no message in it for the peer."""
        return self._eof and (self._for_gateway or not self.has_data)

    def release(self) -> tuple[socket.socket, bytes]:
        """Let go of the socket, with what has been read from it."""
        self._pump.forget(self)
        return self._sock, self._early

    def close(self) -> None:
        """Close the socket."""
        self._pump.forget(self)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def after_fork(self) -> None:
        """Close a forked child's copy of the socket."""
        self._sock.close()
