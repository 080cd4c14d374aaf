"""One SSH channel to a peer, and the connection of libzmq that it carries."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import suppress
from enum import Enum
from typing import Protocol

from paramiko.ssh_exception import SSHException

from ...shared.system.leg import AF_UNIX
from ...shared.system.polling import look_at
from .ending import Owes
from .pump import READ, WRITE
from .transport import Transport
from .window import ReceiveWindow

__all__ = ["EARLY_SIZE", "Connection", "End", "Owner", "is_greeting"]

# The kernel's buffer towards libzmq, in bytes.
_SEND_BUFFER = 1 << 20

EARLY_SIZE = 4096
"""Bytes that are read before the server has connected to the peer: libzmq sends its greeting, and
waits."""

_GREETING_SIZE = 64

# Bytes after which it is not worth to look at once whether libzmq has written more.
_SMALL = 1 << 12

# Bytes to write to libzmq at once, of what it did not take before.
_WRITE_SIZE = 1 << 18

# Seconds after which a peer that has said nothing may not be there.
_SILENT = 5.0


class End(Enum):
    """How a connection ended."""

    LIBZMQ = "libzmq has closed it, and nobody else had ended it before"
    PEER = "the peer has ended it, or the server its channel"
    REFUSED = "the server does not reach the peer"
    LOST = "the SSH session has ended"
    GIVEN_UP = "we have given it up"


class Owner(Protocol):
    """Who is told of a connection. Called with the pump's lock held, on any thread."""

    def opened(self, connection: Connection) -> None:
        """The server has connected to the peer."""
        ...

    def peer_ended(self, connection: Connection, *, answers: bool) -> None:
        """The peer sends nothing more; it may answer libzmq, which has closed."""
        ...

    def ended(self, connection: Connection, end: End, reason: str) -> None:
        """It is closed; what it still has for libzmq is had by :meth:`Connection.release`.

        Args:
            connection: which.
            end: how.
            reason: the server's, where that has refused.
        """
        ...


class Connection:
    """A ``direct-tcpip`` channel (RFC 4254, section 7.2), and the local socket that it carries.

    The channel may be there before the socket: to find out whether the server reaches the peer.

    The two directions are independent of each other: what one end does not take stops the other
    end's sender, and nothing else. All methods are called with the pump's lock held, or take it.

    ::

        opening -> open -> closed
           |                  ^
           +------------------+

    Args:
        transport: the SSH session.
        remote: host and port of the peer, as the server sees them.
        owner: who is told.
    """

    def __init__(self, transport: Transport, remote: tuple[str, int], owner: Owner) -> None:
        self.transport = transport
        self.pump = transport.pump
        self.remote = remote
        self._owner = owner
        self._sock: socket.socket | None = None

        self.state = "opening"
        # When something moved last (time.monotonic), for those who wait for the end.
        self.last_progress = time.monotonic()
        self.bytes_sent = 0
        self.bytes_received = 0

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

        # From the server: what libzmq has not taken yet, and how much may come.
        self._pending = bytearray()
        self._in_window = ReceiveWindow(transport.path)
        self._remote_eof = False
        # What libzmq has been told of that; whatever it does then, it does because of it.
        self._told_eof = False
        # libzmq takes nothing any more.
        self._discarding = False

        # Whether the server has answered, and since when it has been asked.
        self.answered = False
        self._asked = time.monotonic()
        with self.pump.lock:
            self.id = transport.open(self, remote)

    def attach(self, sock: socket.socket, early: bytes = b"") -> bool:
        """Carry a connection of libzmq; `False` if there is no channel for it any more.

        Args:
            sock: the connection.
            early: what has been read from it already.
        """
        with self.pump.lock:
            if self.state == "closed":
                return False
            sock.setblocking(False)
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                if sock.family != AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock = sock
            self._early = early
            self.last_progress = time.monotonic()
            if self._remote_eof:
                self._owner.peer_ended(self, answers=False)
            if self._pending:
                self._write()
            if self.state == "open":
                self.resume()
            self.update()
        return True

    def after_fork(self) -> None:
        """Close a forked child's copy of the local socket."""
        if self._sock is not None:
            self._sock.close()

    def fileno(self) -> int:
        """Return the local socket's descriptor."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def age(self) -> float:
        """Seconds since it was asked for."""
        return time.monotonic() - self._asked

    @property
    def silent(self) -> bool:
        """Whether libzmq has waited long for a greeting, and given the peer up (HANDSHAKE_IVL)."""
        return not self.bytes_received and self.age > _SILENT

    @property
    def greeted(self) -> bool:
        """Whether the peer has said more than the first part of its greeting."""
        return self.bytes_received > _GREETING_SIZE

    def owes(self) -> Owes:
        """Find out whether there is anything left to do for libzmq, which gives the tunnel up."""
        with self.pump.lock:
            if self._sock is None:
                return Owes.NOTHING
            gone, readable = look_at(self._sock)
            if gone or self.local_eof:
                return Owes.REST
            if readable or self._early or self._pending or not self.greeted:
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
        rest = self.transport.turn
        while rest > 0:
            if not self.transport.writable:
                self._pause()
                return
            count = self._receive(min(rest, self._out_window))
            if count is None:
                return
            if count:
                self._send_data(count)
            else:
                self._send_eof()
            if not self._out_window or self.local_eof:
                self.update()
                return
            # libzmq may have written more meanwhile: so it can leave with one system call.
            rest = 0 if count < _SMALL else rest - count

    def _read_early(self) -> None:
        count = self._receive(EARLY_SIZE - len(self._early)) or 0
        self._early += self.transport.read_buffer[:count]
        if self.local_eof and is_greeting(self._early):
            self._finish(End.LIBZMQ)
        self.update()

    def _receive(self, size: int) -> int | None:
        """Read from libzmq to the transport's buffer; 0 at its end, `None` if nothing is there."""
        assert self._sock is not None
        try:
            count = self._sock.recv_into(self.transport.read_buffer[:size])
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            count = 0
        self.last_progress = time.monotonic()
        self.local_eof = not count
        return count

    def _send_data(self, count: int) -> None:
        self._out_window -= count
        self.bytes_sent += count
        self.transport.send_data(self, count)

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
                self.transport.read_buffer[: len(data)] = data
                self._send_data(len(data))
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
        self.transport.path.answered(time.monotonic() - self._asked)
        self.remote_id, self._out_window, self.max_packet = remote_id, window, max_packet
        if self.state == "closed":
            self._send_close()  # given up meanwhile
            return
        self.state = "open"
        self.transport.carried = True
        self._owner.opened(self)
        if self._sock is not None:
            self.resume()

    def refused(self, reason: str) -> None:
        """The server cannot, or will not, connect to the peer."""
        self.answered = True
        self._finish(End.REFUSED, reason)

    def feed(self, data: memoryview) -> None:
        """Hand data to libzmq; what it does not take now is copied, and takes up window."""
        if self.state == "closed":
            return  # given up here, and the server does not know yet
        size = len(data)
        if not self._in_window.receive(size):
            raise SSHException("the server sent more than the channel's window")
        if self._remote_eof:
            return  # as ssh does
        self.bytes_received += size
        if self._discarding:
            return  # nor does it count as progress: the peer may send for ever
        if self._pending or self._sock is None:
            self._pending += data
            return
        self.last_progress = time.monotonic()
        taken = self._send(data)
        if taken < size:
            self._pending += data[taken:]
            self.update()
        elif self._discarding:
            self._close_if_done()

    def skip(self, size: int) -> None:
        """Drop data that is not for libzmq."""
        self._in_window.receive(size)
        self._give_back(size)

    def eof(self) -> None:
        """The peer sends nothing more."""
        self._remote_eof = True
        if self._sock is None:
            if not self._pending:
                self.abort(End.PEER)  # of no use to anybody
        else:
            # Before libzmq is told: it connects again at once.
            self._owner.peer_ended(self, answers=self._left_alone())
            self._after_write()

    def close(self) -> None:
        """The server has closed the channel: all that we sent is with the peer."""
        self._send_close()
        self.transport.forget(self)
        self._finish(End.LIBZMQ if self._left_alone() else End.PEER)

    def lost(self) -> None:
        """The SSH session is gone; libzmq connects again when it has what the peer sent."""
        with self.pump.lock:
            self._finish(End.LIBZMQ if self._left_alone() else End.LOST)

    def abort(self, end: End = End.GIVEN_UP) -> None:
        """Give the connection up, whatever it still holds."""
        with self.pump.lock:
            if self.state == "open":
                self._send_close()
            self._finish(end)

    def _left_alone(self) -> bool:
        """Tell whether libzmq has closed without being told of any other end."""
        if self._told_eof or self._sock is None:
            return False
        return self.local_eof or look_at(self._sock)[0]

    def _write(self) -> None:
        while self._pending:
            with memoryview(self._pending) as pending, pending[:_WRITE_SIZE] as data:
                taken = self._send(data)
            if not taken:
                break
            del self._pending[:taken]
        self.last_progress = time.monotonic()
        self._after_write()

    def _send(self, data: memoryview) -> int:
        """Write to libzmq and give the server the room back; return the number of bytes taken."""
        assert self._sock is not None
        try:
            taken = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            if exc.errno in (errno.ENOBUFS, errno.ENOMEM):
                return 0
            # libzmq has closed: what is for it goes nowhere, what came from it still arrives.
            self._discarding = True
            taken = len(data)
        self._give_back(taken)
        return taken

    def _give_back(self, size: int) -> None:
        """Let the server send as much again as libzmq has taken."""
        room = self._in_window.take(size)
        if room and not self._remote_eof and not self._close_sent:
            self.transport.send_window_adjust(self, room)

    def _after_write(self) -> None:
        if not self._pending:
            if self._remote_eof and not self._told_eof and self._sock is not None:
                self._told_eof = not self.local_eof
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)
            self._close_if_done()
        self.update()

    # Both

    def update(self) -> None:
        """Watch the local socket for what can be done with it now."""
        if self.state != "closed" and self._sock is not None:
            self.pump.watch(self, self._events())

    def _events(self) -> int:
        if self.local_eof or self._close_sent or self._paused:
            reading = False
        elif self.state == "opening":
            reading = len(self._early) < EARLY_SIZE
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

    def _finish(self, end: End, reason: str = "") -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        if self._sock is not None:
            self.pump.forget(self)
            if self._discarding or end not in (End.PEER, End.LOST):
                self._close_socket()
        self._in_window.close()
        self._owner.ended(self, end, reason)

    def _close_socket(self) -> None:
        assert self._sock is not None
        with suppress(OSError):
            # A forked child of the program may hold a copy of it.
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._sock = None
        self._pending.clear()

    def release(self) -> tuple[socket.socket, bytearray] | None:
        """Let go of the local socket, with what libzmq has not taken yet of what the peer sent.

        Returns:
            `None` if there is nobody to take it.
        """
        sock, self._sock = self._sock, None
        return None if sock is None else (sock, self._pending)


def is_greeting(data: bytes) -> bool:
    """Tell by what libzmq has sent whether that has no messages in it. ZMQ_STREAM's may have."""
    return len(data) <= _GREETING_SIZE and data[:1] in (b"", b"\xff")
