"""What is measured: connecting, round trips and throughput, over two routes in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles

import zmq

from ..context import TunneledContext
from ..options import SSHOptions
from ..socket import TunneledSocket
from .peer import Peer
from .traffic import Rate, count, limit_queue, send_for

__all__ = ["SIZES", "Bench", "RoundTrips", "Throughput", "first_reply", "size_name"]

SIZES = (1 << 10, 16 << 10, 256 << 10, 4 << 20)
"""Bytes of the messages whose throughput is measured."""

ROUND_TRIP_SIZE = 1 << 10

TURNS = 2
"""How often the routes take turns within a measurement, so that both see the same machine."""

Announce = Callable[[str], None]
"""Called before each turn, with what is measured."""


@dataclass(frozen=True)
class RoundTrips:
    """Times in seconds over one route."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Throughput:
    """What one size of messages got through in one direction."""

    size: int
    upwards: bool
    direct: Rate
    tunnel: Rate


class Bench:
    """Measures over the direct route, and over the tunnel.

    Args:
        context: for the sockets.
        peer: the remote peer.
        ssh: the way to it.
        seconds: of measuring, for each measurement and route.
    """

    def __init__(
        self, context: TunneledContext, peer: Peer, ssh: SSHOptions, seconds: float
    ) -> None:
        self._context = context
        self._peer = peer
        self._turn = seconds / TURNS
        self._routes = (None, ssh)

    @property
    def turns(self) -> int:
        """How many turns the measurements have, all together."""
        return (1 + 2 * len(SIZES)) * TURNS * len(self._routes)

    def first_replies(self) -> tuple[float, float]:
        """Return the seconds from a new socket's connect to its first reply, over either route."""
        times = []
        for ssh in self._routes:
            with self._socket(zmq.REQ, 1) as socket:
                times.append(first_reply(socket, self._peer.echo, ssh))
        direct, tunnel = times
        return direct, tunnel

    def round_trips(self, announce: Announce) -> tuple[RoundTrips, RoundTrips]:
        """Measure round trips over either route."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for ssh, seconds in zip(self._routes, times, strict=True):
                announce(f"round trips, {_route(ssh)}")
                seconds += self._echo_for(ssh, self._turn)
        direct, tunnel = map(_percentiles, times)
        return direct, tunnel

    def throughputs(self, announce: Announce) -> Iterator[Throughput]:
        """Measure the throughput of each of `SIZES`, up to the peer and down from it."""
        for size in SIZES:
            for upwards in (True, False):
                rates = [Rate(), Rate()]
                for _ in range(TURNS):
                    for i, ssh in enumerate(self._routes):
                        way = "up" if upwards else "down"
                        announce(f"{size_name(size)} {way}, {_route(ssh)}")
                        rates[i] += self._up(ssh, size) if upwards else self._down(ssh, size)
                yield Throughput(size, upwards, *rates)

    def _echo_for(self, ssh: SSHOptions | None, seconds: float) -> list[float]:
        message = bytes(ROUND_TRIP_SIZE)
        times = []
        with self._socket(zmq.REQ, ROUND_TRIP_SIZE) as socket:
            socket.connect(self._peer.echo, ssh=ssh)
            socket.send(message)
            socket.recv()
            end = now = time.perf_counter()
            end += seconds
            while now < end:
                socket.send(message)
                socket.recv()
                before, now = now, time.perf_counter()
                times.append(now - before)
        return times

    def _up(self, ssh: SSHOptions | None, size: int) -> Rate:
        address = self._peer.start_sink(size)
        with self._socket(zmq.PUSH, size) as socket:
            socket.connect(address, ssh=ssh)
            send_for(socket, size, self._turn)
        return self._peer.counted()

    def _down(self, ssh: SSHOptions | None, size: int) -> Rate:
        address = self._peer.start_source(size, self._turn)
        with self._socket(zmq.PULL, size) as socket:
            socket.connect(address, ssh=ssh)
            return count(socket, size)

    @contextmanager
    def _socket(self, kind: int, size: int) -> Iterator[TunneledSocket]:
        with self._context.socket(kind) as socket:
            limit_queue(socket, size)
            try:
                yield socket
            except BaseException:
                socket.close(linger=0)  # Ctrl-C, or nothing goes through any more.
                raise


def first_reply(socket: TunneledSocket, address: str, ssh: SSHOptions | None) -> float:
    """Connect a REQ socket and return the seconds from there to its first reply."""
    start = time.perf_counter()
    socket.connect(address, ssh=ssh)
    socket.send(b"")
    socket.recv()
    return time.perf_counter() - start


def size_name(size: int) -> str:
    """Write a size as people do."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _route(ssh: SSHOptions | None) -> str:
    return "direct TCP" if ssh is None else "tunnel"


def _percentiles(times: Iterable[float]) -> RoundTrips:
    cuts = quantiles(times, n=100)
    return RoundTrips(cuts[49], cuts[98])
