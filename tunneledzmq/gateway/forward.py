"""A tunnel, as the gateway sees it: a listener, and the connections that it took."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sshtunnel import _ForwardServer, _StreamForwardServer

from ..listener import BACKLOG, bind_private, endpoint_of
from .connection import STALL_TIMEOUT, Connection, Owes, is_abandoned
from .pump import READ

if TYPE_CHECKING:
    from .backend import Forwarder

__all__ = ["Forward", "StreamServer", "TCPServer"]

# Instead of STALL_TIMEOUT where LINGER has run out: no more is owed, but what was written may yet
# arrive.
LINGER_STALL_TIMEOUT = 5.0

# The same for connections that libzmq has no more use for, with nothing left to send: after
# disconnect() it closes them only when the program next calls into the socket.
IDLE_TIMEOUT = 10.0

# The same for connections that the program holds open, when the program itself has ended.
ORPHAN_TIMEOUT = 1.0

# Seconds without accepting after the process ran out of descriptors.
ACCEPT_PAUSE = 0.5


class _ServerMixin:
    """What our listeners do otherwise than socketserver's: accepted sockets go to the pump."""

    request_queue_size = BACKLOG
    forward: Forward

    listener: Any = None
    """The program's listener, if it has made one."""

    socket: Any
    server_address: Any

    @classmethod
    def around(cls, listener: socket.socket | None) -> Any:
        """Return the class of servers that take over a listener, if there is one."""
        return cls if listener is None else type(cls.__name__, (cls,), {"listener": listener})

    def server_bind(self) -> None:
        """Take over the program's listener, or bind one."""
        if self.listener is None:
            self.bind()
            return
        self.socket.close()
        self.socket = self.listener
        self.server_address = self.listener.getsockname()

    def server_activate(self) -> None:
        """Listen, unless the program has done so."""
        if self.listener is None:
            self.socket.listen(self.request_queue_size)

    def bind(self) -> None:
        """Bind the socket."""
        super().server_bind()  # type: ignore[misc]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take an accepted connection (socketserver's seam for threads and processes)."""
        self.forward.accept(request)

    def shutdown(self) -> None:
        """Do nothing: there is no serve_forever() to be stopped."""


class TCPServer(_ServerMixin, _ForwardServer):  # type: ignore[misc]
    """sshtunnel's listener on a TCP port."""

    def __init__(self, address: tuple[str, int], *args: Any, **kwargs: Any) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, *args, **kwargs)


class StreamServer(_ServerMixin, _StreamForwardServer):  # type: ignore[misc]
    """sshtunnel's listener on a Unix socket, closed to other users."""

    _bound = False

    def server_bind(self) -> None:
        """Note that the path is ours."""
        super().server_bind()
        self._bound = True

    def bind(self) -> None:
        """Bind with mode 0600, in place of a socket that nobody listens on."""
        bind_private(self.socket, self.server_address)

    def server_close(self) -> None:
        """Close and remove the socket, if it is ours: this is called when bind() fails too."""
        super().server_close()
        if self._bound:
            with suppress(OSError):
                os.unlink(self.server_address)


class Forward:
    """The way from a local endpoint to an address that the SSH server reaches.

    Args:
        forwarder: the SSH session.
        id: the tunnel's number in the control protocol.
        remote: host and port, as the server sees them.
        on_change: called when a connection has ended, or accepting has.
        on_taken: called when libzmq has connected to a Unix socket.
        on_trouble: called with the reason when the server refuses to connect to `remote`.
        for_gateway: the session of another gateway goes through it, not libzmq's connections.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        id: int,
        remote: tuple[str, int],
        on_change: Callable[[Forward], None],
        on_taken: Callable[[Forward], None],
        on_trouble: Callable[[Forward, str], None],
        *,
        for_gateway: bool = False,
    ) -> None:
        self.id = id
        self.remote = remote
        self._forwarder = forwarder
        self._pump = forwarder.pump
        self._on_change = on_change
        self._on_taken = on_taken
        self._on_trouble = on_trouble
        self._for_gateway = for_gateway
        self._server: TCPServer | StreamServer | None = None

        # Guarded by the pump's lock.
        self.connections: set[Connection] = set()
        self.connections_total = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        # When there was a connection last (time.monotonic).
        self._last_used = time.monotonic()
        self._accept_again = 0.0
        # Why the server does not reach the peer; none if it does.
        self._refusal: str | None = None

        # Since when libzmq is giving the tunnel up, and how long that may take.
        self._closing_since: float | None = None
        self._linger = -1
        self._grace = 0.0

    def listen(self, local: str, listener: socket.socket | None = None) -> str:
        """Listen on the local endpoint and return it with its port.

        Args:
            local: the endpoint.
            listener: what listens there already, if the program has made it.

        Raises:
            OSError: the endpoint is taken, or cannot be had.
        """
        self._server = server = self._forwarder.make_server(self.remote, local, listener)
        server.forward = self
        server.socket.setblocking(False)
        return local if isinstance(server, StreamServer) else endpoint_of(server.socket)

    # The listener as a source of the pump, while there is an SSH session

    def fileno(self) -> int:
        """Return the listener's descriptor."""
        return self._server.fileno() if self._server is not None else -1

    def ready(self, events: int) -> None:
        """Accept a connection of libzmq."""
        if self._server is None:
            return
        try:
            request, address = self._server.get_request()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as exc:
            # Out of descriptors: it would be ready again and again.
            self._pump.watch(self, 0)
            self._accept_again = time.monotonic() + ACCEPT_PAUSE
            self._on_trouble(self, f"cannot accept a connection: {exc}")
            self._on_change(self)
            return
        self._server.process_request(request, address)

    def accept(self, request: socket.socket) -> None:
        """Carry an accepted connection to the peer."""
        transport = self._forwarder.transport
        if transport is None or is_abandoned(request):
            request.close()
            return
        self.connections.add(Connection(request, self, transport))
        self.connections_total += 1
        if request.family == socket.AF_UNIX and not self._for_gateway:
            self._on_taken(self)

    def resume(self) -> None:
        """Accept connections from now on: there is an SSH session."""
        with self._pump.lock:
            self._accept_again = 0.0
            if self._server is not None:
                self._pump.watch(self, READ)

    def pause(self) -> None:
        """Let connections wait in the listener's queue: the SSH session is gone."""
        with self._pump.lock:
            self._accept_again = 0.0
            self._pump.watch(self, 0)

    def stop_listening(self) -> None:
        """Close the listener; connections go on."""
        with self._pump.lock:
            if self._server is not None:
                self._pump.forget(self)
                self._forwarder.drop_server(self._server)
                self._server = None

    def after_fork(self) -> None:
        """Close a forked child's copies of the listener and the local sockets."""
        if self._server is not None:
            self._server.socket.close()
        for connection in list(self.connections):
            connection.after_fork()

    # What its connections report, with the pump's lock held

    def on_connection_closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self._last_used = time.monotonic()
        self._on_change(self)

    def on_opened(self) -> None:
        """Note that the server reaches the peer."""
        if self._refusal != "":
            self._refusal = ""
            self._forwarder.questions.tell("forward", "{}:{}".format(*self.remote))

    def on_refused(self, reason: str) -> None:
        """Tell why the server did not connect to the peer, once: libzmq tries again and again."""
        if reason != self._refusal:
            self._refusal = reason
            self._on_trouble(self, reason)

    def stats(self) -> dict[str, int]:
        """Return the counters, by their names in :class:`tunneledzmq.TunnelStats`."""
        with self._pump.lock:
            return {
                "bytes_sent": self.bytes_sent,
                "bytes_received": self.bytes_received,
                "connections_open": len(self.connections),
                "connections_total": self.connections_total,
            }

    # The end

    @property
    def closing(self) -> bool:
        """Whether libzmq is giving the tunnel up."""
        return self._closing_since is not None

    @property
    def needs_checks(self) -> bool:
        """Whether :meth:`next_check` has something to do."""
        return self.closing or bool(self._accept_again)

    def close(self, linger: int, grace: float) -> None:
        """Begin to end: libzmq gives the tunnel up.

        Args:
            linger: milliseconds for which it may go on sending; -1 for ever.
            grace: seconds without a connection after which it will not connect again.
        """
        self._closing_since = time.monotonic()
        self._linger, self._grace = linger, grace

    def next_check(self, now: float, *, orphaned: bool) -> float | None:
        """Give up what must be given up, and tell when to look again.

        Returns:
            A time (time.monotonic); `None` when the end is reached.
        """
        with self._pump.lock:
            if self._accept_again and now >= self._accept_again:
                self.resume()
            for connection in list(self.connections):
                if now >= self._deadline(connection, orphaned):
                    self.stop_listening()  # libzmq would only set it up again
                    self._grace = 0.0
                    connection.abort()
            again = self._accept_again or float("inf")
            if self.connections:
                # One that is busy now may be idle when it is looked at again.
                return min(
                    again,
                    now + IDLE_TIMEOUT,
                    *(self._deadline(c, orphaned) for c in self.connections),
                )
            if orphaned:
                return None
            if self._closing_since is None:
                return again
            if self._forwarder.transport is None and self._empty_queue():
                self._last_used = now
            end = max(self._last_used, self._closing_since)
            if self._linger >= 0:
                end = min(end, self._closing_since + self._linger / 1000)
            end += self._grace
            return end if now < end else None

    def _deadline(self, connection: Connection, orphaned: bool) -> float:
        if not self.closing and not orphaned:
            return float("inf")
        owes = connection.owes()
        if self._for_gateway and owes is not Owes.REST:
            return float("inf")  # that gateway ends it, when it has delivered what it holds
        if owes is Owes.REST and self._linger >= 0:
            return connection.last_progress + max(self._linger / 1000, LINGER_STALL_TIMEOUT)
        if owes is Owes.REST or (owes is Owes.DATA and orphaned):
            return connection.last_progress + STALL_TIMEOUT
        if self._closing_since is not None and self._linger == 0:
            # libzmq closes it without delay, or else is to be cut off.
            return self._closing_since + (LINGER_STALL_TIMEOUT if owes is Owes.DATA else 0)
        if orphaned:
            return connection.last_progress + ORPHAN_TIMEOUT
        if owes is Owes.DATA or self._closing_since is None:
            return float("inf")
        return max(connection.last_progress, self._closing_since) + IDLE_TIMEOUT

    def _empty_queue(self) -> bool:
        """Close the connections that wait for a session; tell whether there were any.

        A libzmq that still has something to send comes back; of one that has gone they are what
        is left.
        """
        found = False
        while self._server is not None:
            try:
                request, _ = self._server.get_request()
            except OSError:
                break
            request.close()
            found = True
        return found
