"""One connection of libzmq, and the SSH channel that carries it on."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from paramiko.ssh_exception import SSHException

from .pump import READ, WRITE

if TYPE_CHECKING:
    from .forward import Forward
    from .transport import ForwardTransport

__all__ = ["STALL_TIMEOUT", "WINDOW", "Connection", "Owes", "is_abandoned"]

# Bytes that the server may send before we have to take them (RFC 4254, section 5.2). A larger
# window makes sshd slow, see "How it works" in the README.
WINDOW = 1 << 21

# The server is told of new room in steps of this size.
_WINDOW_STEP = WINDOW // 8

# Seconds for which a connection that one end has closed may stand still before it is given up:
# about as long as the kernel tries to deliver what a program left in a TCP socket.
STALL_TIMEOUT = 100.0

# The kernel's buffer towards libzmq, in bytes.
_SEND_BUFFER = 1 << 20

# What is read before the server has connected to the peer: libzmq sends its greeting, and waits.
_EARLY_SIZE = 4096
_GREETING_SIZE = 64

# Pieces to write to libzmq at once; more are joined first.
_MAX_PIECES = 16


class Owes(Enum):
    """What is left to do for a connection whose tunnel is being given up."""

    REST = "libzmq has closed it; the peer may not have all of it yet"
    DATA = "libzmq holds it open, and may have something to send"
    NOTHING = "libzmq holds it open, and has nothing to send"


class Connection:
    """A local socket and a ``direct-tcpip`` channel (RFC 4254, section 7.2).

    The two directions are independent of each other: what one end does not take stops the other
    end's sender, and nothing else. All methods are called with the pump's lock held, or take it.

    ::

        opening -> open -> closed
           |                  ^
           +------------------+
    """

    def __init__(self, sock: socket.socket, forward: Forward, transport: ForwardTransport) -> None:
        self._sock = sock
        self._forward = forward
        self.transport = transport
        self.pump = transport.pump
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        self.state = "opening"
        # When something moved last (time.monotonic), for those who wait for the end.
        self.last_progress = time.monotonic()

        # Towards the server: its channel number, and how much it takes.
        self.remote_id = 0
        self.max_packet = 0
        self._out_window = 0
        self._early = b""
        # The session takes no data at the moment.
        self._paused = False
        # libzmq has closed.
        self.local_eof = False
        self._eof_sent = False
        self._close_sent = False

        # From the server: what libzmq has not taken yet, and the room that the server has left.
        self._pending: deque[memoryview] = deque()
        self._in_window = WINDOW
        self._taken = 0
        self._greeted = False
        self._remote_eof = False
        self._remote_closed = False
        # libzmq takes nothing any more.
        self._discarding = False

        # Whether the server has answered.
        self.answered = False
        self.id = transport.open(self, forward.remote)
        self.update()

    def after_fork(self) -> None:
        """Close a forked child's copy of the local socket."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the local socket's descriptor."""
        return self._sock.fileno()

    def owes(self) -> Owes:
        """Find out whether there is anything left to do for libzmq, which gives the tunnel up."""
        gone, readable = _look_at(self._sock)
        if gone or self.local_eof:
            return Owes.REST
        if readable or self._early or self._pending or not self._greeted:
            return Owes.DATA
        return Owes.NOTHING

    # Towards the server

    def ready(self, events: int) -> None:
        """Read from libzmq and write to it."""
        if events & WRITE:
            self._write()
        if events & READ:
            if self.state == "opening":
                self._read_early()
            elif self.state == "open":
                self._read()

    def _read(self) -> None:
        if not self.transport.writable:
            self._pause()
            return
        data = self._receive(self._out_window)
        if data:
            self._send_data(data)
        elif data is not None:
            self._send_eof()
        if not self._out_window or self.local_eof:
            self.update()

    def _read_early(self) -> None:
        self._early += self._receive(_EARLY_SIZE - len(self._early)) or b""
        if self.local_eof and _is_greeting(self._early):
            self.abort()
        self.update()

    def _receive(self, size: int) -> memoryview | None:
        """Read from libzmq; nothing at its end, `None` if there is nothing yet."""
        buffer = self.transport.read_buffer
        try:
            count = self._sock.recv_into(buffer[:size])
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            count = 0
        self.last_progress = time.monotonic()
        self.local_eof = not count
        return buffer[:count]

    def _send_data(self, data: memoryview) -> None:
        self._out_window -= len(data)
        self._forward.bytes_sent += len(data)
        self.transport.send_data(self, data)

    def _send_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self.transport.send_eof(self)
            self._close_if_done()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.paused.append(self)
            self.update()

    def resume(self) -> None:
        """Go on after a pause of the session, with what was read before it was ready."""
        self._paused = False
        if self.state != "open":
            return
        if self._early or self.local_eof:
            if not self.transport.writable:
                self._pause()
                return
            data, self._early = self._early[: self._out_window], self._early[self._out_window :]
            if data:
                self._send_data(memoryview(data))
            if self.local_eof and not self._early:
                self._send_eof()
        self.update()

    def window_adjust(self, size: int) -> None:
        """The server takes `size` more bytes."""
        self.last_progress = time.monotonic()
        self._out_window += size
        if self._out_window > 0xFFFFFFFF:
            raise SSHException("the server opened the channel's window beyond its limit")
        if self._out_window == size:
            self.resume()

    # From the server

    def opened(self, remote_id: int, window: int, max_packet: int) -> None:
        """The server has connected to the peer."""
        self.answered = True
        self.remote_id, self._out_window, self.max_packet = remote_id, window, max_packet
        if self.state == "closed":
            self._send_close()  # given up meanwhile
            return
        self.state = "open"
        self._forward.on_opened()
        self.resume()

    def refused(self, reason: str) -> None:
        """The server cannot, or will not, connect to the peer."""
        self.answered = True
        if self.state != "closed":
            self._finish()
            self._forward.on_refused(reason)

    def feed(self, pieces: list[memoryview], size: int) -> None:
        """Hand data to libzmq; what it does not take now waits, and takes up window."""
        if self.state == "closed":
            return  # given up here, and the server does not know yet
        self._in_window -= size
        if self._in_window < 0 or self._remote_eof:
            raise SSHException("the server sent more than the channel's window, or after its end")
        self._forward.bytes_received += size
        self._greeted = True
        if len(pieces) > _MAX_PIECES:
            pieces = [memoryview(b"".join(pieces))]
        if self._pending:
            self._pending.extend(pieces)
            return
        self.last_progress = time.monotonic()
        taken = size if self._discarding else self._send(pieces)
        if taken < size:
            for piece in pieces:
                if taken >= len(piece):
                    taken -= len(piece)
                else:
                    self._pending.append(piece[taken:])
                    taken = 0
            self.update()

    def skip(self, size: int) -> None:
        """Drop data that is not for libzmq."""
        self._in_window -= size
        self._give_back(size)

    def eof(self) -> None:
        """The peer sends nothing more."""
        self._remote_eof = True
        self._after_write()

    def close(self) -> None:
        """The server has closed the channel: all that we sent is with the peer."""
        self._remote_closed = True
        self._send_close()
        self.transport.forget(self)
        if self._pending:
            self.transport.finishing.add(self)
        self._after_write()

    def lost(self) -> None:
        """The SSH session is gone; libzmq connects again when it has what the peer sent."""
        with self.pump.lock:
            if self._remote_eof and self._pending:
                self._remote_closed = self._close_sent = True
                self.transport.finishing.add(self)
                self.update()
            else:
                self._finish()

    # paramiko.Transport calls this on each of its channels when its session ends.
    _unlink = lost

    def give_up_if_stalled(self) -> None:
        """Close the connection if libzmq takes nothing of what is left for it."""
        if time.monotonic() >= self.last_progress + STALL_TIMEOUT:
            self._finish()

    def abort(self) -> None:
        """Give the connection up, whatever it still holds."""
        if self.state == "open":
            self._send_close()
        self._finish()

    def _write(self) -> None:
        while self._pending:
            pieces = [self._pending.popleft() for _ in range(min(len(self._pending), _MAX_PIECES))]
            taken = self._send(pieces)
            while pieces and taken >= len(pieces[0]):
                taken -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][taken:]
                self._pending.extendleft(reversed(pieces))
                break
        self.last_progress = time.monotonic()
        self._after_write()

    def _send(self, pieces: list[memoryview]) -> int:
        """Write to libzmq and give the server the room back; return the number of bytes taken."""
        try:
            taken = self._sock.send(pieces[0]) if len(pieces) == 1 else self._sock.sendmsg(pieces)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            if exc.errno in (errno.ENOBUFS, errno.ENOMEM):
                return 0
            # libzmq has closed: what is for it goes nowhere, what came from it still arrives.
            self._discarding = True
            taken = sum(map(len, pieces))
        self._give_back(taken)
        return taken

    def _give_back(self, size: int) -> None:
        """Let the server send as much again as libzmq has taken."""
        self._taken += size
        if self._taken >= _WINDOW_STEP and not self._remote_eof and not self._close_sent:
            self.transport.send_window_adjust(self, self._taken)
            self._in_window += self._taken
            self._taken = 0

    def _after_write(self) -> None:
        if not self._pending:
            if self._remote_closed:
                self._finish()
                return
            if self._remote_eof:
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)
            self._close_if_done()
        self.update()

    # Both

    def update(self) -> None:
        """Watch the local socket for what can be done with it now."""
        if self.state != "closed":
            self.pump.watch(self, self._events())

    def _events(self) -> int:
        if self.local_eof or self._close_sent or self._paused:
            reading = False
        elif self.state == "opening":
            reading = len(self._early) < _EARLY_SIZE
        else:
            reading = self._out_window > 0 and not self._early
        return (READ if reading else 0) | (WRITE if self._pending else 0)

    def _close_if_done(self) -> None:
        if self._eof_sent and (self._remote_eof or self._discarding) and not self._pending:
            self._send_close()

    def _send_close(self) -> None:
        if not self._close_sent:
            self._close_sent = True
            self.transport.send_close(self)

    def _finish(self) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        self.transport.finishing.discard(self)
        self.pump.forget(self)
        with suppress(OSError):
            # A forked child of the program may hold a copy of it.
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._pending.clear()
        self._forward.on_connection_closed(self)


def is_abandoned(sock: socket.socket) -> bool:
    """Tell whether libzmq has closed a connection on which it sent no more than its greeting."""
    gone, _ = _look_at(sock)
    try:
        return gone and _is_greeting(sock.recv(_GREETING_SIZE + 1, socket.MSG_PEEK))
    except OSError:
        return gone


def _is_greeting(data: bytes) -> bool:
    # Without the peer's greeting libzmq has sent no messages yet. ZMQ_STREAM may have.
    return len(data) <= _GREETING_SIZE and data[:1] in (b"", b"\xff")


def _look_at(sock: socket.socket) -> tuple[bool, bool]:
    """Ask the kernel whether the other end has closed, and whether there is data to read."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | getattr(select, "POLLRDHUP", 0))
    [(_, events)] = poll.poll(0) or [(0, 0)]
    gone = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)
    return bool(events & gone), bool(events & select.POLLIN)
