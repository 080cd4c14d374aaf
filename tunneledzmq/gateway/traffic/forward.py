"""A tunnel, as the gateway sees it: a local endpoint, and the connections that come to it."""

from __future__ import annotations

import logging
import socket
import time
from functools import partial
from math import nextafter
from typing import Protocol

from ...shared.control import How
from ...shared.listener import endpoint_of
from ...shared.pace import Pace
from ...shared.system.advice import reason_of
from ...shared.system.leg import AF_UNIX
from .connection import Connection, End
from .delivery import Delivery
from .doorkeeper import Doorkeeper
from .ending import STALL_TIMEOUT, Ending, Owes, is_given_up, really_owes
from .looks import Look
from .peers import Peer
from .pump import READ, Pump
from .servers import Listeners, StreamServer, TCPServer
from .visitor import Visitor

__all__ = ["Forward", "Host"]

logger = logging.getLogger("tunneledzmq")

# Seconds without accepting after the process ran out of descriptors, and before an endpoint that
# cannot be had is tried again.
_PAUSE = 0.5

# Seconds between looks at connections of a tunnel that ends.
_STEP = 0.5

_NEVER = float("inf")


class Host(Protocol):
    """The gateway, as its tunnels see it."""

    pump: Pump
    doorkeeper: Doorkeeper

    @property
    def listeners(self) -> Listeners:
        """Where the local endpoint is had."""
        ...

    @property
    def has_session(self) -> bool:
        """Whether there is an SSH session."""
        ...

    @property
    def program_clock(self) -> float:
        """Seconds for which the program has run."""
        ...

    def on_change(self, forward: Forward) -> None:
        """Look at a tunnel (:meth:`Forward.check`)."""
        ...

    def on_taken(self, forward: Forward) -> None:
        """libzmq has connected to a Unix socket."""
        ...

    def on_trouble(self, forward: Forward, reason: str, *, log: bool = True) -> None:
        """Something keeps a tunnel from working."""
        ...

    def on_endpoint(self, forward: Forward, reason: str | None) -> None:
        """The local endpoint is lost, and why; or it is there again."""
        ...


class Forward:
    """The way from a local endpoint to a peer. All of it belongs to the gateway's thread.

    ===================================================  =====================================
    while                                                a connection of libzmq
    ===================================================  =====================================
    the server reaches the peer                          is carried
    it does not, and libzmq has given the tunnel up      waits: that it comes, again and again,
    with something left to send                          tells that it is not through yet
    it has not answered yet, and libzmq will not retry   waits
    or has come before the gateway was there
    otherwise                                            is refused, as over TCP
    ===================================================  =====================================

    Args:
        host: the gateway.
        id: the tunnel's number in the control protocol.
        peer: where it leads.
        pace: how libzmq connects.
        for_gateway: the session of another gateway goes through it, not libzmq's connections:
            they are carried while there is a session, and wait while there is none.
        again: libzmq has been refused for nobody knows how long: the gateway was restarted.
        owner: the process that alone may connect; `None` where the system sees to that, or where
            anybody may.
    """

    def __init__(
        self,
        host: Host,
        id: int,
        peer: Peer,
        pace: Pace,
        *,
        for_gateway: bool = False,
        again: bool = False,
        owner: int | None = None,
    ) -> None:
        self.id = id
        self.peer = peer
        self.pace = pace
        self.for_gateway = for_gateway
        self.ending: Ending | None = None
        self.terminated = False
        """Whether the context has ended: libzmq comes no more."""
        self._host = host
        self._owner = owner
        self._server: TCPServer | StreamServer | None = None
        # Connections came before there was an answer about the peer, and the program waits for one.
        self._waits_for_answer = not pace.retries

        self.connections: set[Connection] = set()
        # Connections of which it is not known yet whose they are.
        self._strangers: set[socket.socket] = set()
        self._visitors: set[Visitor] = set()
        self._deliveries: set[Delivery] = set()
        # What moved last on each connection, and when, by both clocks.
        self._moves: dict[Connection, tuple[float, float, float]] = {}

        # Of connections that have ended.
        self._connections_total = 0
        self._bytes_sent = 0
        self._bytes_received = 0
        # When libzmq had a connection last (time.monotonic).
        self._last_used = -_NEVER if again else time.monotonic()
        self._accept_again = _NEVER
        # When to try again to have the endpoint, while nobody listens there.
        self._keep_again = _NEVER
        self._impaired = False
        # There were no descriptors left.
        self._short = False
        # A connection was given up; and one has something left to do.
        self._over = False
        self._busy = False
        # Of our clock, when the program has ended.
        self._orphaned_at: float | None = None

    @property
    def remote(self) -> tuple[str, int]:
        """Host and port of the peer, as the server sees them."""
        return self.peer.remote

    def listen(self, local: str, listener: socket.socket | None = None) -> str:
        """Take the local endpoint and return it with its port.

        Args:
            local: the endpoint.
            listener: what listens there already, if the program has made it. Who has come to it
                waits for the first answer about the peer.

        Raises:
            OSError: the endpoint is taken, or cannot be had.
        """
        self._server = self._host.listeners.make_server(self.remote, local, listener)
        self._waits_for_answer = self._waits_for_answer or listener is not None
        if listener is not None:
            self._host.pump.watch(self, READ)
        self.peer.join(self)
        self.update()
        return local if isinstance(self._server, StreamServer) else endpoint_of(self._server.socket)

    def answered(self) -> None:
        """Stop waiting for the first answer about the peer: there is one, or none in time."""
        if self.peer.answered or self.pace.retries:
            self._waits_for_answer = False
            self.update()

    # The endpoint

    @property
    def _carries(self) -> bool:
        return self._host.has_session and (self.for_gateway or self.peer.there)

    @property
    def _holds(self) -> bool:
        if self.ending is not None:
            # Who waits already goes on waiting.
            waits = self.ending.holds or self.for_gateway or bool(self._visitors)
            return waits and self.ending.owing
        return self.for_gateway or self._waits_for_answer

    def update(self) -> None:
        """Listen, or not, as the table says; and carry who waits, or send them away."""
        carries = self._carries
        if carries:
            self._drop_gone()
            for visitor in list(self._visitors):
                self._visitors.discard(visitor)
                self._carry(*visitor.release())
        if self._server is None:
            return
        listens = carries or self._holds
        if not listens:
            # What has been written already waits for the peer here.
            self._drop_without_data()
        self._listen(listens)

    def _listen(self, listens: bool) -> None:
        assert self._server is not None
        if listens is self._server.listening:
            return
        self._host.pump.forget(self)
        if not listens:
            self._server.refuse()
            self._keep_endpoint()
            return
        try:
            self._server.listen()
        except OSError as exc:
            if not self._impaired:
                self._impaired = True
                self._host.on_endpoint(self, f"the local endpoint is gone: {exc}")
            self._accept_again = time.monotonic() + _PAUSE
            self._host.on_change(self)
            return
        self._host.pump.watch(self, READ)
        if self._impaired:
            self._impaired = False
            self._host.on_endpoint(self, None)

    def _keep_endpoint(self) -> None:
        """Have the endpoint kept as soon as can be: the program may listen there for a moment."""
        if self._server is not None and not self._server.keeps():
            self._keep_again = time.monotonic() + _PAUSE
            self._host.on_change(self)

    def check_endpoint(self) -> None:
        """Take the endpoint anew if it was removed, as cleaners of temporary files do."""
        if self._server is not None and self._server.listening and not self._server.intact():
            self._listen(False)
            self.update()

    def fileno(self) -> int:
        """Return the listener's descriptor."""
        return self._server.fileno() if self._server is not None else -1

    def ready(self, events: int) -> None:
        """Accept a connection of libzmq."""
        self._accept()

    def _accept(self) -> bool:
        """Accept a connection of libzmq, and tell whether there was one."""
        if self._server is None:
            return False
        try:
            request, _ = self._server.get_request()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as exc:
            # Out of descriptors: it would be ready again and again.
            self._host.pump.watch(self, 0)
            self._accept_again = time.monotonic() + _PAUSE
            if not self._short:
                self._short = True
                self._host.on_trouble(self, f"cannot accept a connection: {reason_of(exc)}")
            self._host.on_change(self)
            return False
        self._short = False
        if self._owner is None:
            self._admit(request)
        else:
            self._strangers.add(request)
            self._host.on_change(self)
            self._host.doorkeeper.ask(request, self._owner, partial(self._on_asked, request))
        return True

    def _on_asked(self, request: socket.socket, ours: bool) -> None:
        """Let a connection in, or send it away, now that it is known whose it is."""
        if request not in self._strangers:
            return
        self._strangers.discard(request)
        if not ours:
            request.close()
            text = "a connection to its local endpoint was refused: it is another process's"
            logger.warning("%s:%d: %s", *self.remote, text)
        else:
            self._admit(request)
            self.update()
        self._host.on_change(self)

    def _admit(self, request: socket.socket) -> None:
        if request.family == AF_UNIX and not self.for_gateway:
            self._host.on_taken(self)
        if self._carries:
            self._carry(request, b"")
        else:
            on_read = partial(self._host.on_change, self)
            visitor = Visitor(request, self._host.pump, on_read, for_gateway=self.for_gateway)
            visitor.since = self._host.program_clock
            self._visitors.add(visitor)
            self.peer.look()
            self._host.on_change(self)

    def _drop_gone(self) -> None:
        """Forget those who waited, and have gone again."""
        for visitor in [visitor for visitor in self._visitors if visitor.gone]:
            self._drop(visitor)

    def _drop_without_data(self) -> None:
        """Send those away who have written nothing for the peer: they come back."""
        for visitor in list(self._visitors):
            if visitor.read():  # it may have come with its connection
                self._host.on_change(self)
            if not visitor.has_data:
                self._drop(visitor)

    def _drop(self, visitor: Visitor) -> None:
        self._visitors.discard(visitor)
        visitor.close()
        self._host.on_change(self)
        if self.ending is not None:
            self.ending.broke(self._host.program_clock)

    def _hold(self) -> None:
        """Hold libzmq's connections as soon as they tell that it has something to send."""
        clock = self._host.program_clock
        if self.ending is not None and not self.ending.holds and self.ending.may_hold(clock):
            self.ending.hold(clock, self._away)
            self.update()

    @property
    def _away(self) -> float:
        """Seconds for which libzmq has been refused by now."""
        return 0.0 if self.connections else time.monotonic() - self._last_used

    def _send_away(self) -> None:
        """Find out which of those who wait have something to send: they come back."""
        if self.ending is not None and not self.for_gateway:
            clock = self._host.program_clock
            for visitor in [visitor for visitor in self._visitors if not visitor.has_data]:
                if self.ending.sends_away(clock, visitor.since, greeted=visitor.has_greeted):
                    self._drop(visitor)

    def _carry(self, sock: socket.socket, early: bytes) -> None:
        self._host.on_change(self)
        connection = self.peer.connect()
        if connection is not None and not connection.attach(sock, early):
            connection = self.peer.connect()  # that one has just ended
            if connection is not None and not connection.attach(sock, early):
                connection = None
        if connection is None:
            sock.close()  # as does the session
            if self.ending is not None:
                self.ending.broke(self._host.program_clock)
            return
        self.connections.add(connection)
        self.peer.use(connection, self)
        self._connections_total += 1

    def _accept_all(self) -> None:
        """Accept who has come by now."""
        while self._server is not None and self._server.listening and self._accept():
            pass

    def orphan(self) -> None:
        """Take what libzmq has written before the program ended, and nothing new."""
        self._accept_all()
        self.stop_listening()

    def _send_strangers_away(self) -> None:
        while self._strangers:
            self._strangers.pop().close()

    def stop_listening(self) -> None:
        """Give the endpoint up; connections go on."""
        if self._server is not None:
            self._host.pump.forget(self)
            self._host.listeners.drop_server(self._server)
            self._server = None
            self._drop_without_data()

    def close_all(self) -> None:
        """Give everything up: the tunnel has ended."""
        self.stop_listening()
        self._send_strangers_away()
        for visitor in list(self._visitors):
            self._drop(visitor)
        for delivery in list(self._deliveries):
            delivery.close()
        self.peer.leave(self)

    def after_fork(self) -> None:
        """Close a forked child's copies of the listener and the local sockets."""
        if self._server is not None:
            self._server.socket.close()
        self._send_strangers_away()
        parts: list[Connection | Visitor | Delivery] = [*self.connections]
        for part in [*parts, *self._visitors, *self._deliveries]:
            part.after_fork()

    # What the peer tells

    @property
    def wants_peer(self) -> bool:
        """Whether libzmq may connect, so that it must be known whether the server reaches it."""
        if self.for_gateway or self.connections:
            return False
        if self.ending is not None or self._server is None:
            return bool(self._visitors)  # it may be through
        return self.pace.retries or self._waits_for_answer or bool(self._visitors)

    def on_sight(self) -> None:
        """Do as the table says: the server reaches the peer, or does so no more."""
        if self.peer.answered:
            self._waits_for_answer = False
        self.update()
        self._host.on_change(self)

    def on_refused(self, reason: str, *, log: bool) -> None:
        """Tell why the server does not reach the peer."""
        self._host.on_trouble(self, reason, log=log)

    def on_ended(self, connection: Connection, end: End) -> None:
        """See to what a connection has left for libzmq."""
        self._moves.pop(connection, None)
        self._bytes_sent += connection.bytes_sent
        self._bytes_received += connection.bytes_received
        self._last_used = time.monotonic()
        if self.ending is not None:
            if end is End.LIBZMQ:
                self.ending.closed(self._host.program_clock, greeted=connection.greeted)
            else:
                self.ending.broke(self._host.program_clock)
        left = connection.release()
        if left is not None:
            delivery = Delivery(*left, self._host.pump, partial(self._host.on_change, self))
            self._deliveries.add(delivery)
            if self.ending is not None:
                delivery.close()  # it is not read any more, and must know that it is to come back
        self.update()
        self._host.on_change(self)

    def stats(self) -> dict[str, int]:
        """Return the counters, by their names in :class:`tunneledzmq.TunnelStats`."""
        return {
            "bytes_sent": self._bytes_sent + sum(c.bytes_sent for c in self.connections),
            "bytes_received": self._bytes_received
            + sum(c.bytes_received for c in self.connections),
            "connections_open": len(self.connections),
            "connections_total": self._connections_total,
        }

    # The end

    def close(self, how: How, linger: int) -> None:
        """Begin to end: libzmq gives the tunnel up.

        Args:
            how: how it does.
            linger: milliseconds for which it may go on sending; -1 for ever.
        """
        self._accept_all()
        clock = self._host.program_clock
        before, self.ending = self.ending, Ending(how, linger, self.pace, clock)
        if before is not None and before.holds:
            self.ending.hold(clock, self._away)  # disconnected before it was closed
        for delivery in list(self._deliveries):
            delivery.close()
        self.update()
        self.peer.look()

    @property
    def needs_program_clock(self) -> bool:
        """Whether what happens next depends on how long the program has run."""
        return self.ending is not None and (
            not self._busy or self.ending.lingers(self._host.program_clock)
        )

    def check(self, now: float, *, clock: float, orphaned: bool) -> Look | None:
        """Do what is due.

        Whatever happens before the next look, and may have this do something, calls
        :meth:`Host.on_change`, but for what happens on connections: that is looked for.

        Args:
            now: the time (time.monotonic).
            clock: seconds for which we have run.
            orphaned: whether the program has ended, or its context.

        Returns:
            When to look again; `None` when the end is reached.
        """
        next_look = self._try_again(now)
        for delivery in list(self._deliveries):
            next_look = min(next_look, delivery.check(now))
            if delivery.closed:
                self._deliveries.discard(delivery)
        self._drop_gone()
        if self.ending is None and not orphaned:
            return Look(next_look)
        self._hold()
        self._send_away()
        if orphaned:
            self.stop_listening()
            for delivery in list(self._deliveries):
                delivery.close()
        self._give_visitors_up(clock, orphaned)
        self._give_up(clock, orphaned)
        present = len(self.connections) + len(self._visitors) + len(self._strangers)
        if self._over and not present:
            return None
        if self.ending is None or self.for_gateway:
            over = not present  # the program has ended, or the gateway that goes through it
        elif self._accept_again < _NEVER and not orphaned:
            # libzmq cannot come, whether it would or not.
            self.ending.broke(self._host.program_clock, away=_NEVER)
            over = not self.ending.owing and not present
        else:
            over = self.ending.over(self._host.program_clock, present, orphaned=orphaned)
        if over:
            return None
        if self.connections or orphaned:
            next_look = min(next_look, now + _STEP)
        return Look(next_look, self._next_moment())

    def _next_moment(self) -> float:
        """Return when there may be something to do by the program's clock."""
        clock = self._host.program_clock
        if self.ending is None:
            return _NEVER
        if self._accept_again < _NEVER:
            return nextafter(clock, _NEVER)  # whenever it moves
        return self.ending.next_moment(
            clock, [(v.since, v.has_greeted) for v in self._visitors if not v.has_data]
        )

    def _give_visitors_up(self, clock: float, orphaned: bool) -> None:
        """Keep what libzmq has written for a peer that may come, for as long as it would have."""
        if orphaned:
            if self._orphaned_at is None:
                self._orphaned_at = clock
            linger = 0.0 if self.ending is None else min(self.ending.linger, STALL_TIMEOUT)
            if clock - self._orphaned_at < linger:
                return
        elif self.ending is None or self.for_gateway or self.ending.keeps(self._host.program_clock):
            return
        for visitor in list(self._visitors):
            if orphaned or visitor.has_data:
                self._drop(visitor)

    def _try_again(self, now: float) -> float:
        if now >= self._accept_again:
            self._accept_again = _NEVER
            if self._impaired:
                self.update()
            elif self._server is not None and self._server.listening:
                self._host.pump.watch(self, READ)
        if now >= self._keep_again:
            self._keep_again = _NEVER
            self._keep_endpoint()
        return min(self._accept_again, self._keep_again)

    def _give_up(self, clock: float, orphaned: bool) -> None:
        """Give up the connections on which nothing moves any more."""
        self._busy = False
        for connection in list(self.connections):
            owes = really_owes(
                connection.owes(),
                self.ending,
                self._host.program_clock,
                orphaned=orphaned,
                for_gateway=self.for_gateway,
            )
            self._busy = self._busy or owes is not Owes.NOTHING
            moved = self._moves.get(connection)
            if moved is None or moved[0] != connection.last_progress:
                moved = (connection.last_progress, clock, self._host.program_clock)
                self._moves[connection] = moved
            if is_given_up(
                owes,
                self.ending,
                ran=clock - moved[1],
                program_ran=self._host.program_clock - moved[2],
                orphaned=orphaned,
                for_gateway=self.for_gateway,
            ):
                self.stop_listening()  # libzmq would only set it up again
                self._over = True
                connection.abort()
