"""The tunnels of a gateway, and what is due for them."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable

from ..shared.control import How, Message
from ..shared.directory import is_ours
from ..shared.listener import cannot_listen
from ..shared.pace import Pace
from .clocks import OwnClock, ProgramClock
from .login import LoginError
from .traffic.doorkeeper import Doorkeeper
from .traffic.forward import Forward
from .traffic.looks import Looks
from .traffic.peers import Peer, Peers
from .traffic.pump import Pump
from .traffic.servers import Listeners
from .traffic.transport import Transport

__all__ = ["Tunnels"]

logger = logging.getLogger("tunneledzmq")

# With more tunnels the program is not told what libzmq has connected to: to look for libzmq's
# descriptors then takes longer than it is worth.
_MAX_TOLD = 64

# A program that opens a tunnel waits for the server's word on the peer for so many round trips,
# and so many seconds: then libzmq's first connect finds what it would find over TCP.
_ROUND_TRIPS = 3
_SHORTEST_WAIT = 0.05
_LONGEST_WAIT = 1.0

# Seconds between looks at local endpoints that nobody is connected to, and how many at a time.
_ENDPOINTS_STEP = 5.0
_ENDPOINTS = 256

# Seconds between looks where our own clock counts, at least.
_CLOCK_STEP = 1.0

_NEVER = float("inf")


class Tunnels:
    """All of it belongs to the gateway's thread.

    Args:
        pump: the gateway's.
        call: has something done on the gateway's thread.
        send: sends a message to the program.
        on_found: told of peers that the server reaches for the first time, or again.
    """

    listeners: Listeners
    """Where local endpoints are had."""

    server = ""
    """``user@host:port``, for messages."""

    def __init__(
        self,
        pump: Pump,
        call: Callable[[Callable[[], None]], None],
        send: Callable[[Message], None],
        on_found: Callable[[Peer], None],
    ) -> None:
        self.pump = pump
        self.doorkeeper = Doorkeeper(call)
        self.directories: set[str] = set()
        """Those of ours that have had local legs."""

        self._send = send
        self._tell_found = on_found
        self._peers = Peers(call, self._on_found)
        self._forwards: dict[int, Forward] = {}
        # Those of them that are ending, or have something to be looked at.
        self._watched = Looks[Forward]()
        # Those of them that wait for the program to run.
        self._need_clock: set[Forward] = set()
        # Those whose programs wait for the server's word on the peer, with the time when they wait
        # no more, and the local endpoint.
        self._opening: dict[Forward, tuple[float, str]] = {}
        self._orphaned = False
        self._clock = OwnClock(time.monotonic())
        self._program_clock = ProgramClock()
        self._check_endpoints_at = 0.0
        # Those that are still to be looked at in this round.
        self._unchecked: list[Forward] = []

    def __len__(self) -> int:
        return len(self._forwards)

    def __contains__(self, number: int) -> bool:
        return number in self._forwards

    # What the program asks for

    def listen(self, message: Message) -> str | None:
        """Have a tunnel's local endpoint, or tell the program why there is none.

        Args:
            message: an "open" request.

        Returns:
            The endpoint; `None` if it cannot be had.
        """
        number = message["id"]
        forward = Forward(
            self,
            number,
            self._peers.find((message["host"], message["port"])),
            Pace(*message["pace"] or (0.0, 0.0, False)),
            for_gateway=message["pace"] is None,
            owner=message["owner"],
            again=message["again"],
        )
        try:
            local = forward.listen(message["local"], message["listener"])
        except OSError as exc:
            text = cannot_listen(self.server, message["local"], exc)
            self.fail(number, LoginError("TunnelError", exc.errno or errno.EIO, text))
            forward.peer.look()  # it may be of no use to anybody
            return None
        self._forwards[number] = forward
        self._watched.name(forward)  # it may not have its endpoint yet
        directory = os.path.dirname(local.removeprefix("ipc://"))
        if is_ours(directory):
            self.directories.add(directory)
        return local

    def open(self, message: Message) -> None:
        """Open a tunnel now that there is a session, and tell the program when there is word."""
        number, local = message["id"], message["local"]
        if number not in self._forwards:
            local = self.listen(message)
        if local is not None:
            forward = self._forwards[number]
            self._opening[forward] = (time.monotonic() + self._patience, local)
            self._watched.name(forward)

    def fail(self, number: int, error: LoginError) -> None:
        """Tell the program that a tunnel is not opened."""
        forward = self._forwards.pop(number, None)
        if forward is not None:
            self._forget(forward)
            forward.close_all()
        self._send({"type": "failed", "id": number, "error": error.describe()})

    @property
    def _patience(self) -> float:
        """Seconds that a program waits for the server's word on a peer."""
        transport = self._peers.transport
        round_trip = 0.0 if transport is None else transport.path.round_trip
        return min(max(_ROUND_TRIPS * round_trip, _SHORTEST_WAIT), _LONGEST_WAIT)

    def close(self, number: int, how: How, linger: int) -> None:
        """Begin to end a tunnel."""
        forward = self._forwards.get(number)
        if forward is None:
            self._send({"type": "closed", "id": number})
            return
        self._opening.pop(forward, None)
        forward.close(how, linger)
        self._watched.name(forward)

    def terminate(self, numbers: list[int]) -> None:
        """Deliver what libzmq has written for these tunnels, take nothing new."""
        for forward in [self._forwards[number] for number in numbers if number in self._forwards]:
            self._opening.pop(forward, None)
            forward.terminated = True
            forward.orphan()
            self._watched.name(forward)

    def orphan(self) -> None:
        """Deliver what libzmq has written, take nothing new: the program has ended."""
        self._orphaned = True
        self._opening.clear()
        for forward in self._forwards.values():
            forward.orphan()
            self._watched.name(forward)

    def stats(self, number: int) -> dict[str, int]:
        """Return a tunnel's counters, by their names in :class:`tunneledzmq.TunnelStats`."""
        forward = self._forwards.get(number)
        return {} if forward is None else forward.stats()

    def program_answered(self) -> None:
        """Note that the program runs."""
        self._program_clock.answered(time.monotonic())

    def on_session(self, transport: Transport | None) -> None:
        """Carry connections over a new session; or let none come, as there is none."""
        self._peers.on_session(transport)
        for forward in self._forwards.values():
            forward.update()

    def close_all(self) -> None:
        """Give everything up."""
        for forward in self._forwards.values():
            forward.close_all()

    def after_fork(self) -> None:
        """Close the copies of all sockets that a forked child has."""
        for forward in list(self._forwards.values()):
            forward.after_fork()

    # What tunnels and peers tell

    @property
    def has_session(self) -> bool:
        """Whether there is an SSH session."""
        return self._peers.transport is not None

    @property
    def program_clock(self) -> float:
        """Seconds for which the program has run."""
        return self._program_clock.seconds

    def on_change(self, forward: Forward) -> None:
        """Look at a tunnel."""
        if forward.id in self._forwards:
            self._watched.name(forward)

    def on_taken(self, forward: Forward) -> None:
        """Let the program enlarge libzmq's buffer, while there are few tunnels."""
        if len(self._forwards) <= _MAX_TOLD:
            self._send({"type": "taken", "id": forward.id})

    def on_trouble(self, forward: Forward, reason: str, *, log: bool = True) -> None:
        """Tell the program what keeps a tunnel from working."""
        host, port = forward.remote
        text = f"{self.server}: {host}:{port}: {reason}"
        if log:
            logger.warning("%s", text)
        self._send({"type": "trouble", "id": forward.id, "message": text})

    def on_endpoint(self, forward: Forward, reason: str | None) -> None:
        """Tell the program that a local endpoint is lost, or is there again."""
        if reason is not None:
            self.on_trouble(forward, reason)
        self._send({"type": "endpoint", "id": forward.id, "there": reason is None})

    def _on_found(self, peer: Peer) -> None:
        self._tell_found(peer)
        for forward in peer.forwards:
            self._send({"type": "reached", "id": forward.id})

    # Time

    def check(self, now: float) -> float:
        """Do what is due.

        Returns:
            When to look again (time.monotonic).
        """
        return min(
            self._peers.check(now),
            self._check_opening(now),
            self._check_endpoints(now),
            self._check_watched(now),
        )

    def _check_opening(self, now: float) -> float:
        """Answer programs about whose peers there is word, or that have waited long enough."""
        for forward, (until, local) in list(self._opening.items()):
            if forward.for_gateway or forward.peer.answered or now >= until:
                del self._opening[forward]
                forward.answered()
                self._send({"type": "opened", "id": forward.id, "local": local})
                if forward.peer.there:
                    self._send({"type": "reached", "id": forward.id})  # by way of another tunnel
        return min((until for until, _ in self._opening.values()), default=_NEVER)

    def _check_endpoints(self, now: float) -> float:
        """See whether the local endpoints are still there to which libzmq may come."""
        if now >= self._check_endpoints_at:
            self._check_endpoints_at = now + _ENDPOINTS_STEP
            if not self._unchecked:
                self._unchecked = list(self._forwards.values())
            some, self._unchecked = self._unchecked[:_ENDPOINTS], self._unchecked[_ENDPOINTS:]
            for forward in some:
                if not forward.connections:
                    forward.check_endpoint()
        return self._check_endpoints_at if self._forwards else _NEVER

    def _check_watched(self, now: float) -> float:
        """Look at those to which something has happened, or whose time has come."""
        clock = self._clock.read(now)
        for forward in self._watched.round(now, self._program_clock.seconds):
            orphaned = self._orphaned or forward.terminated
            look = forward.check(now, clock=clock, orphaned=orphaned)
            if look is None:
                self._end(forward)
                continue
            self._watched.arrange(forward, look)
            if forward.needs_program_clock and not forward.terminated:
                self._need_clock.add(forward)
            else:
                self._need_clock.discard(forward)
        next_check = self._watched.next_round
        if self._need_clock and not self._orphaned:
            if self._program_clock.look(now):
                self._send({"type": "tick"})
            next_check = min(next_check, self._program_clock.next_look)
        if self._watched:
            next_check = min(next_check, now + _CLOCK_STEP)
        return next_check

    def _end(self, forward: Forward) -> None:
        forward.close_all()
        self._forget(forward)
        del self._forwards[forward.id]
        self._send({"type": "closed", "id": forward.id, **forward.stats()})

    def _forget(self, forward: Forward) -> None:
        self._watched.forget(forward)
        self._need_clock.discard(forward)
