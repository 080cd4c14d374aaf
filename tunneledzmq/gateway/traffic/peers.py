"""Whether the server reaches the peers: it is asked once for all tunnels to the same address."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from ...shared.pace import Pace
from .connection import Connection, End
from .search import Search, Sight
from .transport import Transport

__all__ = ["Guest", "Peer", "Peers"]

# Seconds for which a channel is kept that nobody uses yet. libzmq's peers hang up after 30 s
# (HANDSHAKE_IVL).
_KEEP = 25.0

# Seconds between questions about peers that were refused, whichever: each is a line in the
# server's log, and keeps others waiting.
_STEP = 0.01

# Seconds within which a server that connects only when it has said so finds that it cannot.
_YOUNG = 1.0

_NEVER = float("inf")


class Guest(Protocol):
    """A tunnel, as the peer sees it that it leads to. All for the gateway's thread."""

    id: int
    pace: Pace
    """How libzmq connects."""

    connections: set[Connection]
    """Those of libzmq that are carried."""

    @property
    def wants_peer(self) -> bool:
        """Whether it must be known whether the server reaches the peer."""
        ...

    def on_sight(self) -> None:
        """The server reaches the peer, or does so no more."""
        ...

    def on_refused(self, reason: str, *, log: bool) -> None:
        """The server does not reach the peer.

        Args:
            reason: why.
            log: whether that is to be logged; else another tunnel has done it.
        """
        ...

    def on_ended(self, connection: Connection, end: End) -> None:
        """One of its connections has ended."""
        ...


class Peer:
    """An address that the server reaches, or does not, and the connections to it.

    All of it belongs to the gateway's thread, but for :meth:`opened`, :meth:`peer_ended` and
    :meth:`ended`, which connections call.
    """

    def __init__(self, remote: tuple[str, int], peers: Peers) -> None:
        self.remote = remote
        self.forwards: set[Guest] = set()
        self._peers = peers
        self._search = Search(time.monotonic())
        # What the tunnels have been told of it.
        self._told = self._search.sight
        self.scheduled = _NEVER
        """When the peers look at it next."""

        # The channel by which the server is asked, and the one that nobody uses yet.
        self._asking: Connection | None = None
        self._spare: Connection | None = None
        self._spare_since = 0.0
        # What uses each connection, and those of which the peer has not ended its side.
        self._users: dict[Connection, Guest] = {}
        self._open: set[Connection] = set()
        # Why the server does not reach it; none if it does. And which tunnels have been told.
        self.refusal: str | None = None
        self._informed: set[Guest] = set()

    @property
    def answered(self) -> bool:
        """Whether the server has said whether it reaches it."""
        return self._search.sight in (Sight.THERE, Sight.AWAY)

    @property
    def there(self) -> bool:
        """Whether the server reaches it."""
        return self._search.sight is Sight.THERE

    @property
    def idle(self) -> bool:
        """Whether nobody has any use for it."""
        return not (self.forwards or self._users or self._asking or self._spare)

    def join(self, forward: Guest) -> None:
        """Lead a tunnel here."""
        self.forwards.add(forward)
        self._search.hurry(time.monotonic(), self._pace)
        self.look()

    def leave(self, forward: Guest) -> None:
        """Lead a tunnel here no more."""
        self.forwards.discard(forward)
        self._informed.discard(forward)
        if not self.forwards and self._spare is not None:
            self._spare.abort()
        self.look()

    def look(self) -> None:
        """See whether there is something to do now, or later."""
        self._peers.schedule(self)

    def connect(self) -> Connection | None:
        """Return a channel for a connection of libzmq, unless the session is ending."""
        spare, self._spare = self._spare, None
        return spare or self._open_channel()

    def use(self, connection: Connection, forward: Guest) -> None:
        """Note whose connection a channel carries."""
        self._users[connection] = forward

    # When to ask

    @property
    def due(self) -> float:
        """When there is something to do (time.monotonic)."""
        if self._spare is not None:
            return self._spare_since + _KEEP
        next_question = self._search.next_question
        return next_question if next_question < _NEVER and self._wanted else _NEVER

    @property
    def was_refused(self) -> bool:
        """Whether the question that is due has been asked before."""
        return self._search.sight is Sight.AWAY

    def act(self, now: float) -> None:
        """Do what is due."""
        if self._spare is not None:
            self._spare.abort()
        else:
            self._asking = self._open_channel()
            if self._asking is not None:
                self._search.asked(now)

    @property
    def _wanted(self) -> bool:
        return self._wanted_by_others(None)

    def _wanted_by_others(self, user: Guest | None) -> bool:
        return any(forward.wants_peer for forward in self.forwards if forward is not user)

    @property
    def _pace(self) -> Pace:
        """That of the most eager tunnel."""
        paces = [forward.pace for forward in self.forwards if forward.pace.retries]
        return min(paces, default=Pace())

    def _open_channel(self) -> Connection | None:
        transport = self._peers.transport
        if transport is None:
            return None
        with transport.pump.lock:
            return None if transport.ended else Connection(transport, self.remote, self)

    # The session

    def on_session(self) -> None:
        """Begin to search anew: there is another session, or none."""
        self._asking = self._spare = None
        self._open.clear()
        self._search.restart(time.monotonic())
        self._told = self._search.sight
        self.look()

    # What connections tell, on any thread

    def opened(self, connection: Connection) -> None:
        """The server has connected to the peer."""
        self._peers.call(partial(self._on_opened, connection))

    def peer_ended(self, connection: Connection, *, answers: bool) -> None:
        """The peer sends nothing more."""
        self._peers.call(partial(self._on_peer_ended, connection, answers))

    def ended(self, connection: Connection, end: End, reason: str) -> None:
        """A connection is closed."""
        self._peers.call(partial(self._on_ended, connection, end, reason))

    def _on_opened(self, connection: Connection) -> None:
        if connection.transport is not self._peers.transport:
            return  # of an earlier session
        if connection is self._asking:
            self._asking, self._spare = None, connection
            self._spare_since = time.monotonic()
        elif connection not in self._users:
            connection.abort()  # of a question that does not matter any more
            return
        self._open.add(connection)
        self._search.found()
        if self.refusal != "" or self._told is not Sight.THERE:
            self.refusal = ""
            self._peers.on_found(self)
        self._tell()
        if self._spare is not None and not self.forwards:
            self._spare.abort()

    def _on_peer_ended(self, connection: Connection, answers: bool) -> None:
        if connection in self._open:
            self._open.discard(connection)
            if not self._open:
                if not answers:
                    self._search.lost(*self._circumstances)
                elif not self._wanted:
                    self._search.left(*self._circumstances)
                self._tell()

    def _on_ended(self, connection: Connection, end: End, reason: str) -> None:
        forward = self._users.pop(connection, None)
        if forward is not None:
            forward.connections.discard(connection)
        if connection.transport is self._peers.transport:
            self._learn(connection, end, reason, forward)
        # Nobody is to connect again before it is known what for.
        self._tell()
        if forward is not None:
            forward.on_ended(connection, end)
        self.look()

    def _learn(self, connection: Connection, end: End, reason: str, user: Guest | None) -> None:
        """Learn about the peer from the end of a connection."""
        unused = connection in (self._asking, self._spare)
        if connection is self._asking:
            self._asking = None
        if connection is self._spare:
            self._spare = None
        self._open.discard(connection)
        hung_up = end is End.PEER and not connection.bytes_received
        if end is End.REFUSED or (hung_up and (unused or connection.age < _YOUNG)):
            # A server may say that it has connected before it has.
            self._search.refused(time.monotonic(), self._pace, random.random())
            self._on_refused(reason)
        elif not self._open and (unused or end is not End.LIBZMQ or connection.silent):
            self._search.lost(*self._circumstances)
        elif not self._open and not self._wanted_by_others(user):
            self._search.left(*self._circumstances)

    @property
    def _circumstances(self) -> tuple[float, Pace, float]:
        """The time, and how long libzmq and the server take."""
        transport = self._peers.transport
        round_trip = 0.0 if transport is None else transport.path.round_trip
        return time.monotonic(), self._pace, round_trip

    def _on_refused(self, reason: str) -> None:
        if not reason:
            return
        # Once: it is asked again and again.
        is_new = reason != self.refusal
        if is_new:
            self.refusal = reason
            self._informed.clear()
        for forward in self.forwards - self._informed:
            forward.on_refused(reason, log=is_new)
            is_new = False
        self._informed = set(self.forwards)

    def _tell(self) -> None:
        if self._told is not self._search.sight:
            self._told = self._search.sight
            for forward in list(self.forwards):
                forward.on_sight()
        self.look()


class Peers:
    """All peers of a gateway.

    Args:
        call: has something done on the gateway's thread.
        on_found: called when a peer is reached for the first time, or again.
    """

    def __init__(
        self, call: Callable[[Callable[[], None]], None], on_found: Callable[[Peer], None]
    ) -> None:
        self.call = call
        self.on_found = on_found
        self.transport: Transport | None = None
        """The session, if there is one."""

        self._peers: dict[tuple[str, int], Peer] = {}
        # By the time at which they want something; entries of another time are out of date. Those
        # that were refused have a heap of their own, and take turns.
        self._due: list[tuple[float, int, Peer]] = []
        self._refused: list[tuple[float, int, Peer]] = []
        self._numbers = count()
        self._next_turn = 0.0

    def find(self, remote: tuple[str, int]) -> Peer:
        """Return the peer at an address."""
        if remote not in self._peers:
            self._peers[remote] = Peer(remote, self)
        return self._peers[remote]

    def on_session(self, transport: Transport | None) -> None:
        """Use a new session, or none."""
        self.transport = transport
        for peer in list(self._peers.values()):
            peer.on_session()

    def schedule(self, peer: Peer) -> None:
        """Look at a peer when it wants something."""
        if peer.idle:
            if self._peers.get(peer.remote) is peer:
                del self._peers[peer.remote]
        elif self.transport is not None and (due := peer.due) not in (peer.scheduled, _NEVER):
            peer.scheduled = due
            heap = self._refused if peer.was_refused else self._due
            heappush(heap, (due, next(self._numbers), peer))

    def check(self, now: float) -> float:
        """Do what is due.

        Returns:
            When to look again (time.monotonic).
        """
        next_look = self._check(self._due, now)
        if now >= self._next_turn:
            next_look = min(next_look, self._check(self._refused, now, at_most=1))
        if now < self._next_turn and self._refused:
            next_look = min(next_look, self._next_turn)
        return next_look

    def _check(
        self, heap: list[tuple[float, int, Peer]], now: float, at_most: float = _NEVER
    ) -> float:
        while heap:
            due, _, peer = heap[0]
            wanted = self.transport is not None and peer.due == due
            if wanted and now < due:
                return due
            heappop(heap)
            if peer.scheduled == due:
                peer.scheduled = _NEVER
            if wanted:
                peer.act(now)
                at_most -= 1
                if at_most <= 0:
                    self._next_turn = now + _STEP
                    break
        return _NEVER
