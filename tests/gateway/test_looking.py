"""Who looks at a tunnel only when it is due misses nothing that one sees who always looks at all.

The tunnels of two gateways live through the same days; the one looks at each of them whenever
anything happens anywhere.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunneledzmq.gateway import tunnels as tunnels_module
from tunneledzmq.gateway.traffic import delivery as delivery_module
from tunneledzmq.gateway.traffic import forward as forward_module
from tunneledzmq.gateway.traffic.connection import End
from tunneledzmq.gateway.traffic.ending import Owes
from tunneledzmq.gateway.traffic.forward import Forward
from tunneledzmq.gateway.traffic.pump import READ
from tunneledzmq.gateway.traffic.servers import StreamServer
from tunneledzmq.gateway.traffic.visitor import Visitor
from tunneledzmq.gateway.tunnels import Tunnels
from tunneledzmq.shared.control import How
from tunneledzmq.shared.system.leg import AF_UNIX

NEVER = float("inf")

# Seconds between looks at connections.
STEP = 0.5

NUMBERS = st.integers(0, 2)
LINGERS = st.sampled_from([-1, -1, -1, 0, 50, 2000, 60_000])

TUNNELS = 3
GREETING = b"\xff" + bytes(8) + b"\x7f"


class Clock:
    """The time of both gateways."""

    now = 1000.0


class ProgramClock:
    """The program's clock runs when the test says so."""

    next_look = NEVER

    def __init__(self) -> None:
        self.seconds = 0.0

    def look(self, now: float) -> bool:
        return False


class Socket:
    """Our end of a connection of libzmq."""

    family = AF_UNIX

    def __init__(self, name: int, owed: Owes) -> None:
        self.name, self.owed = name, owed
        self.inbox = b""
        self.eof = self.closed = False

    def recv(self, size: int) -> bytes:
        data, self.inbox = self.inbox[:size], self.inbox[size:]
        if not data and not self.eof:
            raise BlockingIOError
        return data

    def close(self) -> None:
        self.closed = True

    def setblocking(self, flag: bool) -> None: ...
    def shutdown(self, how: int) -> None: ...
    def fileno(self) -> int:
        return 0


class Server(StreamServer):
    """A listener to which connections come when the test says so."""

    def __init__(self, gone: bool) -> None:
        self.queue: list[Socket] = []
        self.gone, self.short = gone, False
        self.lost = False

    def listen(self) -> None:
        if self.gone:
            raise OSError(errno.EACCES, "no")
        self.listening, self.lost = True, False

    def refuse(self) -> None:
        self.listening = False
        self.queue.clear()

    def intact(self) -> bool:
        return not self.lost

    def get_request(self) -> Any:
        if self.queue and self.short:
            raise OSError(errno.EMFILE, "too many")
        if not self.queue:
            raise BlockingIOError
        return self.queue.pop(0), None

    def fileno(self) -> int:
        return 0


class Connection:
    """A channel, which does what the test says."""

    def __init__(self, world: World, peer: Peer) -> None:
        self.world, self.peer = world, peer
        self.sock: Socket
        self.user: Forward
        self.owed = Owes.DATA
        self.last_progress = Clock.now
        self.bytes_sent = self.bytes_received = 0
        self.greeted = self.ended = False

    def __hash__(self) -> int:
        return self.sock.name

    def attach(self, sock: Any, early: bytes) -> bool:
        self.sock, self.owed = sock, sock.owed
        self.world.connections[sock.name] = self
        return True

    def owes(self) -> Owes:
        return self.owed

    def abort(self) -> None:
        self.world.calls.append(lambda: self.end(End.GIVEN_UP))

    def end(self, end: End) -> None:
        if not self.ended:
            self.ended = True
            del self.world.connections[self.sock.name]
            self.world.done.add(("ended", self.sock.name))
            self.user.connections.discard(self)  # type: ignore[arg-type]
            self.user.on_ended(self, end)  # type: ignore[arg-type]

    def release(self) -> None:
        """Have nothing left."""


class Peer:
    """What is known of a peer."""

    def __init__(self, world: World, remote: tuple[str, int]) -> None:
        self.world, self.remote = world, remote
        self.there = self.answered = False

    def connect(self) -> Connection:
        return Connection(self.world, self)

    def use(self, connection: Connection, forward: Forward) -> None:
        connection.user = forward

    def join(self, forward: Forward) -> None: ...
    def leave(self, forward: Forward) -> None: ...
    def look(self) -> None: ...


class Peers:
    """All of them."""

    transport: Any = None

    def __init__(self, world: World) -> None:
        self.world = world

    def find(self, remote: tuple[str, int]) -> Peer:
        return Peer(self.world, remote)

    def on_session(self, transport: Any) -> None:
        self.transport = transport

    def check(self, now: float) -> float:
        return NEVER


class World:
    """A gateway's tunnels, and what is around them."""

    def __init__(self, *, looks_at_all: bool) -> None:
        self.looks_at_all = looks_at_all
        self.calls: list[Callable[[], None]] = []
        self.connections: dict[int, Connection] = {}
        self.done: set[tuple[str, int]] = set()
        self.servers: list[Server] = []
        self.asked: list[tuple[Socket, Callable[[bool], None]]] = []
        pump = SimpleNamespace(
            lock=threading.RLock(), watch=lambda *_: None, forget=lambda source: None
        )
        self.tunnels = Tunnels(pump, self.calls.append, self._send, lambda peer: None)  # type: ignore[arg-type]
        self.tunnels.doorkeeper = SimpleNamespace(  # type: ignore[assignment]
            ask=lambda sock, owner, answer: self.asked.append((sock, answer))
        )
        self.tunnels.listeners = self  # type: ignore[assignment]
        self.tunnels._peers = Peers(self)  # type: ignore[assignment]
        self.clock = ProgramClock()
        self.tunnels._program_clock = self.clock  # type: ignore[assignment]
        self.forwards: list[Forward] = []
        self.next_is_gone = False

    def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "closed":
            self.done.add(("closed", message["id"]))

    def make_server(self, remote: Any, local: str, listener: Any = None) -> Server:
        self.servers.append(Server(self.next_is_gone))
        return self.servers[-1]

    def drop_server(self, server: Server) -> None:
        server.refuse()

    def settle(self) -> float:
        """Do all that is due now; return when to look again."""
        for _ in range(50):
            if self.looks_at_all:
                for forward in self.tunnels._forwards.values():
                    self.tunnels._watched.name(forward)
            next_look = self.tunnels.check(Clock.now)
            if not self.calls and next_look > Clock.now:
                return next_look
            while self.calls:
                self.calls.pop(0)()
        raise AssertionError("it never comes to rest")

    def state(self, number: int) -> object:
        """Return all that matters of a tunnel that has no connections."""
        forward = self.forwards[number]
        return (
            forward._server is not None and forward._server.listening,
            sorted(visitor._sock.name for visitor in forward._visitors),  # type: ignore[attr-defined]
            len(forward._strangers),
            forward.ending and vars(forward.ending),
            forward._accept_again,
            forward.needs_program_clock,
        )


PACES = st.tuples(
    st.sampled_from([-0.001, 0.01, 0.1, 3.0]),
    st.sampled_from([0.0, 0.5, 30.0]),
    st.booleans(),
)

OFTEN = {"libzmq_comes": 5, "a_tunnel": 3, "the_program_runs": 2, "the_program_is_suspended": 2}

EVENTS: dict[str, dict[str, Any]] = {
    "a_tunnel": {
        "pace": st.one_of(PACES, PACES, PACES, st.none()),
        "owner": st.sampled_from([None, None, 7]),
        "gone": st.sampled_from([False] * 5 + [True]),
        "again": st.booleans(),
        "given_up": st.none() | st.tuples(st.sampled_from([*How, How.CLOSED]), LINGERS),
    },
    "libzmq_comes": {
        "which": NUMBERS,
        "data": st.sampled_from([b"", GREETING, b"x" * 99]),
        "owed": st.sampled_from(Owes),
    },
    "one_who_waits_sends_or_goes": {
        "sent": st.sampled_from([b"", GREETING, b"x" * 99]),
        "which": st.integers(0, 9),
    },
    "the_system_tells_whose_a_connection_is": {"ours": st.booleans()},
    "the_peer_comes_or_goes": {"which": NUMBERS, "there": st.booleans()},
    "the_session_comes_or_goes": {},
    "a_connection_ends": {
        "which": st.integers(0, 9),
        "end": st.sampled_from(End),
        "greeted": st.booleans(),
    },
    "something_moves_on_a_connection": {"which": st.integers(0, 9), "owed": st.sampled_from(Owes)},
    "the_endpoint_is_lost": {"which": NUMBERS, "short": st.booleans()},
    "the_endpoint_can_be_had_again": {"which": NUMBERS},
    "libzmq_gives_a_tunnel_up": {
        "which": NUMBERS,
        "how": st.sampled_from(How),
        "linger": LINGERS,
    },
    "a_context_ends": {"which": st.integers(0, 7)},
    "the_program_runs": {
        "ticks": st.sampled_from([1, 2, 3, 4, 12]),
        "tick": st.sampled_from([0.1, 0.1, 0.1, 0.3, 3.0]),
    },
    "the_program_is_suspended": {"seconds": st.sampled_from([0.1, 0.7, 6.0, 61.0])},
}


class TwoGateways:
    """Whatever happens, both do the same, at the same time."""

    worlds: tuple[World, World]

    def __init__(self) -> None:
        Clock.now = 1000.0
        self.names = 0
        self.ended = False
        self.worlds = World(looks_at_all=False), World(looks_at_all=True)

    def the_program_ends(self) -> None:
        for world in self.worlds:
            world.tunnels.orphan()
        self.ended = True
        self.compare()

    # Tunnels

    def begin(self, session: bool) -> None:
        for world in self.worlds:
            world.tunnels.on_session(object() if session else None)  # type: ignore[arg-type]

    def a_tunnel(
        self, pace: Any, owner: int | None, gone: bool, again: bool, given_up: Any
    ) -> None:
        if len(self.worlds[0].tunnels) == TUNNELS:
            return
        number = len(self.worlds[0].forwards)
        message = {"id": number, "host": "h", "port": number, "local": "ipc://x"}
        message |= {"listener": None, "pace": pace, "owner": owner, "again": again}
        for world in self.worlds:
            world.next_is_gone = gone
            world.tunnels.listen(dict(message))
            world.forwards.append(world.tunnels._forwards[number])
        self.compare()
        if given_up is not None:
            for world in self.worlds:
                world.tunnels.close(number, *given_up)
            self.the_program_runs(3, 0.1)

    # What happens

    def each(self, which: int) -> Iterator[tuple[World, int]]:
        for world in self.worlds:
            numbers = list(world.tunnels._forwards)
            if numbers:
                yield world, numbers[which % len(numbers)]

    def libzmq_comes(self, which: int, data: bytes, owed: Owes) -> None:
        self.names += 1
        for world, number in self.each(which):
            server = world.servers[number]
            if server.listening:
                sock = Socket(self.names, owed)
                sock.inbox = data
                server.queue.append(sock)
                world.forwards[number].ready(READ)
        self.compare()

    def one_who_waits_sends_or_goes(self, sent: bytes, which: int) -> None:
        for world in self.worlds:
            waiting = sorted(
                (v for f in world.forwards for v in f._visitors),
                key=lambda v: v._sock.name,  # type: ignore[attr-defined]
            )
            if waiting:
                visitor = waiting[which % len(waiting)]
                visitor._sock.inbox += sent  # type: ignore[attr-defined]
                visitor._sock.eof = not sent  # type: ignore[attr-defined]
                visitor.ready(READ)
                visitor.ready(READ)
        self.compare()

    def the_system_tells_whose_a_connection_is(self, ours: bool) -> None:
        for world in self.worlds:
            if world.asked:
                world.asked.pop(0)[1](ours)
        self.compare()

    def the_peer_comes_or_goes(self, which: int, there: bool) -> None:
        for world, number in self.each(which):
            forward = world.forwards[number]
            forward.peer.there = there  # type: ignore[misc]
            forward.peer.answered = True  # type: ignore[misc]
            forward.on_sight()
        self.compare()

    def the_session_comes_or_goes(self) -> None:
        for world in self.worlds:
            there = None if world.tunnels.has_session else object()
            world.tunnels.on_session(there)  # type: ignore[arg-type]
            for connection in list(world.connections.values()):
                connection.end(End.LOST)
        self.compare()

    def a_connection_ends(self, which: int, end: End, greeted: bool) -> None:
        for connection in self.some_connection(which):
            connection.greeted = greeted
            connection.end(end)
        self.compare()

    def something_moves_on_a_connection(self, which: int, owed: Owes) -> None:
        for connection in self.some_connection(which):
            connection.last_progress, connection.owed = Clock.now, owed
            # Both see it at once, which the one would otherwise do within a step.
            connection.user._host.on_change(connection.user)
        self.compare()

    def some_connection(self, which: int) -> Iterator[Connection]:
        for world in self.worlds:
            names = sorted(world.connections)
            if names:
                yield world.connections[names[which % len(names)]]

    def the_endpoint_is_lost(self, which: int, short: bool) -> None:
        for world, number in self.each(which):
            server = world.servers[number]
            if short:
                server.short = True
            else:
                server.gone = server.lost = True
        self.compare()

    def the_endpoint_can_be_had_again(self, which: int) -> None:
        for world, number in self.each(which):
            world.servers[number].gone = world.servers[number].short = False
        self.compare()

    def libzmq_gives_a_tunnel_up(self, which: int, how: How, linger: int) -> None:
        for world, number in self.each(which):
            world.tunnels.close(number, how, linger)
        self.compare()

    def a_context_ends(self, which: int) -> None:
        if which == 0:  # not as often as other things
            for world, number in self.each(which):
                world.tunnels.terminate([number])
            self.compare()

    # Time

    def the_program_runs(self, ticks: int, tick: float) -> None:
        for _ in range(ticks):
            self.pass_time(tick)
            for world in self.worlds:
                world.clock.seconds += tick
            self.settle()
        self.compare()

    def the_program_is_suspended(self, seconds: float) -> None:
        self.pass_time(seconds)
        self.compare()

    def settle(self) -> float:
        return min(world.settle() for world in self.worlds)

    def pass_time(self, seconds: float) -> None:
        end = Clock.now + seconds
        while (next_look := self.settle()) < end:
            Clock.now = next_look
        Clock.now = end
        self.settle()

    # What is to hold

    def compare(self) -> None:
        self.settle()
        one, other = self.worlds
        for number in set(one.tunnels._forwards) & set(other.tunnels._forwards):
            forwards = [world.forwards[number] for world in self.worlds]
            if not any(f.connections or f.terminated or f._over for f in forwards):
                # Here it is known when something is due.
                assert self.ended or one.state(number) == other.state(number)
        for world in self.worlds:
            live = world.tunnels._forwards.values()
            needing = {f for f in live if f.needs_program_clock and not f.terminated}
            assert needing == world.tunnels._need_clock
        # What must be looked for is found one step later, at the most.
        for _ in range(100):
            found = set(other.done)
            assert one.done <= found, "it was done too soon"
            if one.done == found:
                return
            self.pass_time(STEP)
            assert found <= one.done, "it was missed"
        raise AssertionError("they never agree")


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    session=st.booleans(),
    events=st.lists(
        st.one_of(
            [
                st.tuples(st.just(name), st.fixed_dictionaries(arguments))
                for name, arguments in EVENTS.items()
                for _ in range(OFTEN.get(name, 1))
            ]
        ),
        min_size=40,
        max_size=60,
    ),
)
def test_nothing_is_missed(session: bool, events: list[tuple[str, dict[str, Any]]]) -> None:
    time = SimpleNamespace(monotonic=lambda: Clock.now)
    with pytest.MonkeyPatch.context() as patch:
        for module in (tunnels_module, forward_module):
            patch.setattr(module, "time", time)
        patch.setattr(delivery_module, "look_at", lambda sock: (sock.eof, False))
        # Those who wait are sent away in the same order.
        patch.setattr(Visitor, "__hash__", lambda visitor: visitor._sock.name)
        gateways = TwoGateways()
        gateways.begin(session)
        for name, arguments in events:
            getattr(gateways, name)(**arguments)
        gateways.the_program_ends()
