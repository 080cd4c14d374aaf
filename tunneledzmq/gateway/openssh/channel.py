"""A channel of an ssh master, for one connection of libzmq."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..traffic import transport
from ..traffic.pump import READ, WRITE, Pump
from ..traffic.window import FIRST_SIZE
from . import mux

__all__ = ["Channel"]

# What libzmq may have sent and ssh not taken yet, in bytes, beyond the kernel's buffer.
_OUT_WINDOW = 1 << 18

# The kernel's buffers between ssh and us, in bytes.
_BUFFER = 1 << 19

# Bytes to read from ssh at once.
_READ_SIZE = 1 << 18

# Seconds for ssh to take a control connection: it has few others waiting at a time.
_CONNECT_TIMEOUT = 2.0


class Master(Protocol):
    """The session, as its channels see it."""

    pump: Pump
    control_path: str
    """Where ssh listens."""

    def start_waiting(self) -> None:
        """Ask for the channels whose turn it is: this one has been taken."""
        ...

    def refuse(self, channel: Channel, text: str) -> None:
        """There is no such channel, and why."""
        ...

    def forget(self, channel: transport.Channel) -> None:
        """Let go of a channel."""
        ...

    def check_alive(self) -> bool:
        """Tell whether the master lives, and end the session if it does not."""
        ...


class Watched:
    """A socket as a source of the pump, which closes with it."""

    def __init__(self, sock: socket.socket, pump: Pump) -> None:
        self.sock = sock
        self._pump = pump
        self.on_read: Callable[[], None] = sock.close
        self.on_write: Callable[[], None] = sock.close
        sock.setblocking(False)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    def ready(self, events: int) -> None:
        """Handle `events`."""
        if events & WRITE:
            self.on_write()
        if events & READ and self.open:
            self.on_read()

    @property
    def open(self) -> bool:
        """Whether the socket is not closed."""
        return self.sock.fileno() >= 0

    def watch(self, events: int) -> None:
        """Wait for `events` from now on."""
        if self.open:
            self._pump.watch(self, events)

    def receive(self, size: int = 4096) -> bytes | None:
        """Return up to `size` bytes; none at the end of file, `None` while nothing is there."""
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """Close the socket."""
        if self.open:
            self._pump.forget(self)
            self.sock.close()


class Channel:
    """A control connection, by which ssh tells of the channel's life, and a socket each way.

    Two sockets, since each direction ends by itself: ssh closes a descriptor when there is no
    more to come, or no more to be had.

    All methods are called with the pump's lock held.
    """

    def __init__(
        self, master: Master, connection: transport.Channel, remote: tuple[str, int]
    ) -> None:
        self.connection = connection
        self.remote = remote
        self._master = master
        self._sockets: list[Watched] = []

        # Whether ssh has taken the control connection, and whether it has closed it.
        self.greeted = False
        self._control_eof = False
        self._replies = mux.Receiver()

        # What ssh has not taken yet, and whether nothing more will come.
        self._output: deque[memoryview] = deque()
        self._eof = False
        # Bytes that the connection takes.
        self._room = FIRST_SIZE
        self._input_eof = False

    def start(self) -> None:
        """Ask ssh for the channel.

        Raises:
            OSError: out of descriptors, or ssh is gone.
        """
        control = socket.socket(socket.AF_UNIX)
        self._control = self._watched(control)
        control.settimeout(_CONNECT_TIMEOUT)
        control.connect(self._master.control_path)
        ours, their_input = socket.socketpair()
        with their_input:
            self._to_ssh = self._watched(ours)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            ours, their_output = socket.socketpair()
            with their_output:
                self._from_ssh = self._watched(ours)
                their_output.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                control.sendall(mux.hello() + mux.stdio_forward(*self.remote))
                # With bytes of their own: ssh reads messages without looking for descriptors.
                for theirs in (their_input, their_output):
                    socket.send_fds(control, [b"\0"], [theirs.fileno()])
        control.setblocking(False)
        self._control.on_read = self._read_control
        self._to_ssh.on_write = self._flush
        self._from_ssh.on_read = self._read
        self._control.watch(READ)

    def _watched(self, sock: socket.socket) -> Watched:
        self._sockets.append(Watched(sock, self._master.pump))
        return self._sockets[-1]

    # The channel's life

    def _read_control(self) -> None:
        data = self._control.receive()
        if data is None:
            return
        if not data:
            self._on_control_eof()
            return
        for kind, text in self._replies.feed(data):
            if kind == mux.HELLO:
                self.greeted = True
                self._master.start_waiting()
            elif kind == mux.SESSION_OPENED:
                self._from_ssh.watch(READ)
                self.connection.opened(0, _OUT_WINDOW, _OUT_WINDOW)
            elif kind in mux.FAILURES:
                self._master.refuse(self, text)

    def _on_control_eof(self) -> None:
        self._control.close()
        if not self._master.check_alive():
            return  # the transport ends everything
        if not self.connection.answered:
            self._master.refuse(self, "ssh gave the channel up")
            return
        self._control_eof = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        # What the peer has sent comes before the end of the channel.
        if self._control_eof and not self._from_ssh.open:
            self._control_eof = False  # once
            self.connection.close()

    # Towards the server

    def send(self, data: memoryview) -> None:
        """Hand data to ssh; what it does not take now waits, and takes up window."""
        taken = 0 if self._output else self._send(data)
        if taken < len(data):
            self._output.append(memoryview(bytes(data[taken:])))
            self._to_ssh.watch(WRITE)
        if taken:
            self.connection.window_adjust(taken)

    def _send(self, data: memoryview) -> int:
        if not self._to_ssh.open:
            return len(data)
        try:
            return self._to_ssh.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # ssh takes nothing any more: the server has closed the channel, or the session ends.
            self._to_ssh.close()
            return len(data)

    def _flush(self) -> None:
        total = 0
        while self._output:
            taken = self._send(self._output[0])
            total += taken
            if taken < len(self._output[0]):
                self._output[0] = self._output[0][taken:]
                break
            self._output.popleft()
        if not self._output:
            self._to_ssh.watch(0)
            if self._eof:
                self._to_ssh.close()
        if total:
            self.connection.window_adjust(total)

    def send_eof(self) -> None:
        """Tell ssh that nothing more comes, when it has all."""
        self._eof = True
        if not self._output:
            self._to_ssh.close()

    def end(self) -> None:
        """Take nothing more; what was sent before the end of file still arrives."""
        if self._eof:
            self._from_ssh.close()
            self._close_if_done()
        else:
            self._master.forget(self.connection)

    # From the server

    def adjust(self, size: int) -> None:
        """The connection takes `size` more bytes."""
        self._room += size
        if not self._input_eof:
            self._from_ssh.watch(READ)

    def _read(self) -> None:
        data = self._receive()
        if data is None:
            return
        if data:
            self._feed(data)
        elif self._master.check_alive():
            self._input_eof = True
            self._from_ssh.close()
            self.connection.eof()
            self._close_if_done()

    def _feed(self, data: bytes) -> None:
        self._room -= len(data)
        if not self._room:
            self._from_ssh.watch(0)
        self.connection.feed(memoryview(data))

    def _receive(self) -> bytes | None:
        return self._from_ssh.receive(min(self._room, _READ_SIZE))

    def lose(self) -> None:
        """The session is gone: what had come through it is still libzmq's."""
        if self.connection.answered and self._from_ssh.open:
            while self._room and (data := self._receive()):
                self._feed(data)
        self.close()
        self.connection.lost()

    def close(self) -> None:
        """Close all sockets."""
        self._output.clear()
        for watched in self._sockets:
            watched.close()

    def after_fork(self) -> None:
        """Close a forked child's copies of the sockets."""
        for watched in self._sockets:
            with suppress(OSError):
                watched.sock.close()
