"""What the peer has sent and libzmq has not taken yet, when there is no channel any more."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from ...shared.system.polling import SEES_END_BEHIND_DATA, look_at, untaken
from .pump import WRITE, Pump

__all__ = ["Delivery"]

# Bytes to write at once, and to read.
_WRITE_SIZE = 1 << 18
_READ_SIZE = 1 << 16

# Seconds between looks at a libzmq that has yet to take what is in the kernel: doubling, up to.
_FIRST_STEP = 0.01
_LAST_STEP = 1.0


class Delivery:
    """The end of a local connection: all of it arrives, however late it is read.

    libzmq drops what is in a Unix socket when that is closed, if its reader is slow. So it is told
    of the end as TCP would tell it, behind the data, and the socket is closed when libzmq has taken
    all, or has closed it itself. What libzmq sends meanwhile goes nowhere, as to a peer that has
    ended.

    Args:
        sock: the connection, which becomes this object's.
        pending: what is to be written yet.
        pump: who watches it; that one's thread calls all methods.
        on_change: called when there is something to :meth:`check`.
    """

    def __init__(
        self,
        sock: socket.socket,
        pending: bytearray,
        pump: Pump,
        on_change: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._pending = pending
        self._pump = pump
        self._on_change = on_change
        self.closed = False
        """Whether it is over."""

        self._step = _FIRST_STEP
        self._next_look = float("inf")
        self._write()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def ready(self, events: int) -> None:
        """Write what libzmq has room for."""
        self._write()

    def _write(self) -> None:
        try:
            while self._pending:
                with memoryview(self._pending) as pending, pending[:_WRITE_SIZE] as data:
                    taken = self._sock.send(data)
                del self._pending[:taken]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            if exc.errno not in (errno.ENOBUFS, errno.ENOMEM):
                self.close()  # libzmq has
                return
        if self._pending:
            self._pump.watch(self, WRITE)
            return
        self._pump.watch(self, 0)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._next_look = 0.0
        self._on_change()

    def check(self, now: float) -> float:
        """Close the socket if it can be closed.

        Returns:
            When to look again (time.monotonic).
        """
        if not self.closed and now >= self._next_look:
            if self._has_gone() or untaken(self._sock) == 0:
                self.close()
                return float("inf")
            self._next_look = now + self._step
            self._step = min(2 * self._step, _LAST_STEP)
        return self._next_look

    def _has_gone(self) -> bool:
        """Tell whether libzmq has closed; what it has sent goes nowhere."""
        if not SEES_END_BEHIND_DATA:
            with suppress(OSError):
                while self._sock.recv(_READ_SIZE):
                    pass
                return True
        return look_at(self._sock)[0]

    def close(self) -> None:
        """Close the socket, whatever libzmq has not taken."""
        if not self.closed:
            self.closed = True
            self._next_look = float("inf")
            self._pump.forget(self)
            with suppress(OSError):
                # A forked child of the program may hold a copy of it.
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()
            self._pending.clear()
            self._on_change()

    def after_fork(self) -> None:
        """Close a forked child's copy of the socket."""
        self._sock.close()
