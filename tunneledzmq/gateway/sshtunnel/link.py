"""The SSH connection's socket, under paramiko's session and on the pump.

paramiko's ``Transport`` reads from a :class:`Link` instead of a socket, on its own thread: whenever
the link has no bytes for it, :meth:`Link.recv` runs the pump until there are some.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from ...shared.system.leg import AF_UNIX
from ...shared.system.polling import look_at
from ..traffic.pump import READ, WRITE, Pump

__all__ = ["Link"]

# Twice the largest packet that OpenSSH sends.
_INPUT_SIZE = 1 << 19

# Local sockets are not read while more than this waits for the SSH socket.
_HIGH_WATER = 1 << 20
_LOW_WATER = 1 << 18

# The SSH socket is not read while more than this waits for it, which only the answers can be that a
# server asks for and does not read: data stops at the high-water mark.
_FLOODED = 1 << 22

# Room for what waits for the SSH socket: with less, what is left must be moved often.
_OUTPUT_SIZE = 2 * _HIGH_WATER

# Seconds that an orderly end waits for the last bytes to leave.
_CLOSE_TIMEOUT = 2.0


class Link:
    """The SSH connection's socket, in the form in which ``paramiko.Transport`` takes one."""

    def __init__(self, sock: socket.socket, pump: Pump) -> None:
        self._sock = sock
        self.pump = pump
        self._timeout: float | None = None
        # Whether recv() tells the end of file, and whether the socket is closed.
        self._closed = False
        self._released = False
        self._readable = False

        # Received bytes that paramiko has not taken yet: buffer[start:end].
        self.buffer = memoryview(bytearray(_INPUT_SIZE))
        self.start = 0
        self.end = 0
        self.last_received = time.monotonic()

        # Bytes for the server: output[start:end].
        self._output = memoryview(bytearray(_OUTPUT_SIZE))
        self._output_start = 0
        self._output_end = 0
        self._waits_to_write = False
        # Why nothing can be sent any more, which is told when all that has come is read.
        self._lost: OSError | None = None
        # The thread that runs the pump; it sends when all that can be done at once is done.
        self._thread = 0
        # Called when the output falls below the low-water mark.
        self.on_writable = _nothing
        self._was_full = False

        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Without it, the window adjusts of a fast download meet Nagle and the delayed ACK.
        self._quickack = getattr(socket, "TCP_QUICKACK", None) if sock.family != AF_UNIX else None
        self._unacknowledged = False
        with pump.lock:
            pump.watch(self, READ)

    # The methods that paramiko.Transport asks of a socket

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that :meth:`recv` waits at most."""
        self._timeout = timeout

    def send(self, data: bytes | memoryview) -> int:
        """Take `data` for the server. Never blocks, and takes all of it."""
        with self.pump.lock:
            output, at = self.room(len(data))
            output[at : at + len(data)] = data
            self.sent(len(data))
        return len(data)

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes; run the pump while there are none.

        Raises:
            TimeoutError: no bytes within the timeout.
        """
        if self.start == self.end and not self.fill():
            return b""
        end = min(self.end, self.start + size)
        data = bytes(self.buffer[self.start : end])
        self.start = end
        return data

    def abort(self) -> None:
        """Close without sending what still waits."""
        with self.pump.lock:
            self._output_start = self._output_end
            self.close()

    def close(self) -> None:
        """Send what can still be sent, and close.

        The thread that runs the pump may be waiting for this socket: another thread only shuts it
        down, wakes that thread, and leaves it to close it when its session ends.
        """
        with self.pump.lock:
            if not self._closed:
                self._closed = True
                with suppress(OSError):
                    self._sock.settimeout(_CLOSE_TIMEOUT)
                    self._sock.sendall(self._output[self._output_start : self._output_end])
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
                self.pump.wake()  # a silent server answers no end, and Windows waits for one
            if not self._released and self._thread in (0, threading.get_ident()):
                self._released = True
                self.pump.forget(self)
                self._sock.close()

    def after_fork(self) -> None:
        """Close a forked child's copy of the socket, which is still the parent's to use."""
        self._closed = self._released = True
        self._sock.close()

    def release(self) -> None:
        """Drop the buffers: the session has ended."""
        self.buffer = self._output = memoryview(b"")
        self.start = self.end = self._output_start = self._output_end = 0
        self.on_writable = _nothing

    def heard(self, now: float) -> float:
        """Return when bytes came last (time.monotonic); `now` if some lie in the kernel."""
        with self.pump.lock:
            return now if not self._closed and look_at(self._sock)[1] else self.last_received

    # For the packetizer and the connections

    @property
    def full(self) -> bool:
        """Whether so much waits for the server that no more should be read for it."""
        if self._output_end - self._output_start > _HIGH_WATER:
            self._was_full = True
        return self._was_full

    @property
    def waits(self) -> bool:
        """Whether the kernel has not taken all: the link is slower than those who send."""
        return self._waits_to_write

    @property
    def _flooded(self) -> bool:
        return self._output_end - self._output_start > _FLOODED

    def room(self, size: int) -> tuple[memoryview, int]:
        """Make room for `size` more bytes for the server; return the buffer, and where to write.

        Raises:
            EOFError: the connection is closed.
        """
        if self._closed:
            raise EOFError
        if self._output_end + size > len(self._output):
            rest = self._output[self._output_start : self._output_end]
            if len(rest) + size > len(self._output):
                self._output = memoryview(bytearray(2 * (len(rest) + size)))
            self._output[: len(rest)] = rest
            self._output_start, self._output_end = 0, len(rest)
        return self._output, self._output_end

    def sent(self, size: int) -> None:
        """Take over the `size` bytes that were written where :meth:`room` said."""
        self._output_end += size
        if threading.get_ident() != self._thread:
            self._flush()

    def fill(self) -> bool:
        """Run the pump until there are new bytes in the buffer; `False` at the end of file.

        Raises:
            TimeoutError: nothing came within the timeout.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            with self.pump.lock:
                self._thread = threading.get_ident()
                if self._closed:
                    return False
                if self._output_end:
                    self._flush()
                if (
                    self._readable
                    and not self._flooded
                    and (received := self._receive()) is not None
                ):
                    return received
            timeout = None if deadline is None else deadline - time.monotonic()
            if timeout is not None and timeout <= 0:
                raise TimeoutError
            if self._unacknowledged:
                # What is sent meanwhile takes the acknowledgement along.
                if self.pump.run_once(0):
                    continue
                self._acknowledge()
            self.pump.run_once(timeout)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def ready(self, events: int) -> None:
        """Note that the socket can be read, and write what waits."""
        if events & READ:
            self._readable = True
        if events & WRITE:
            self._flush()

    def _receive(self) -> bool | None:
        """Tell whether bytes came (`True`), or the end of file (`False`)."""
        if self.start == self.end:
            self.start = self.end = 0
        elif len(self.buffer) - self.end < len(self.buffer) // 2:
            rest = bytes(self.buffer[self.start : self.end])
            self.buffer[: len(rest)] = rest
            self.start, self.end = 0, len(rest)
        self._readable = False
        try:
            count = self._sock.recv_into(self.buffer[self.end :])
        except (BlockingIOError, InterruptedError):
            return None
        if count == 0:
            if self._lost is not None:
                raise self._lost
            return False
        self.end += count
        self.last_received = time.monotonic()
        self._unacknowledged = self._quickack is not None
        return True

    def _acknowledge(self) -> None:
        with self.pump.lock:
            self._unacknowledged = False
            if self._quickack is not None and not self._closed:
                self._sock.setsockopt(socket.IPPROTO_TCP, self._quickack, 1)

    def _flush(self) -> None:
        if self._closed:
            return
        start, end = self._output_start, self._output_end
        try:
            while start < end:
                start += self._sock.send(self._output[start:end])
                self._unacknowledged = False
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            start = end  # what has come before the end is read first
            if not isinstance(exc, BrokenPipeError):
                self._lost = exc
        if start < end:
            self._output_start = start
        else:
            self._output_start = self._output_end = 0
            if len(self._output) > _OUTPUT_SIZE:
                self._output = memoryview(bytearray(_OUTPUT_SIZE))
        waits = start < end
        if waits or self._waits_to_write:
            self._waits_to_write = waits
            self.pump.watch(self, (0 if self._flooded else READ) | (WRITE if waits else 0))
        if self._was_full and end - start < _LOW_WATER:
            self._was_full = False
            self.on_writable()


def _nothing() -> None:
    pass
