"""Both ends of a measurement, each a process of its own: they send, receive and answer.

`python -m benchmarks.traffic WAY` is the program, which connects through the way, or the peer,
which binds and for which the way does not matter.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import zmq

from benchmarks.station import Station
from benchmarks.ways import ALL_WAYS, Way

QUEUE = 8 << 20
"""Bytes that a socket may queue in each direction, in whole messages; at least four."""

SHARED = 64 << 10
"""Messages from this size on are not copied between Python and libzmq, as pyzmq itself has it."""

PATIENCE = 15_000
"""Milliseconds after which a socket on which nothing moves fails."""

END = b""
"""The message after the last."""

LEAST_MESSAGES = 4
WARM_UP_ROUND_TRIPS = 20


class Traffic(Station):
    """A program or a peer."""

    def do_bind(self, kind: str, size: int, sockets: int = 1) -> list[str]:
        """Bind sockets; return their addresses."""
        for _ in range(sockets):
            self._socket(kind, size).bind("tcp://127.0.0.1:*")
        return [sock.get_string(zmq.LAST_ENDPOINT).rstrip("\0") for sock in self._sockets]

    def do_connect(self, kind: str, size: int, addrs: list[str], within: float) -> dict[str, int]:
        """Connect a socket to each address; tell how many tries it took to open the tunnels."""
        self._ways: list[Way] = []
        tries = 0
        for addr in addrs:
            way, tried = self._open(addr, within)
            way.connect(self._socket(kind, size))
            self._ways.append(way)
            tries += tried
        return {"tries": tries, "tunnels": len(addrs)}

    def do_send(self, size: int, seconds: float) -> None:
        """Send through all sockets for so long, and the end after it."""
        message: Any = zmq.Frame(bytes(size)) if size >= SHARED else bytes(size)
        batch = max(1, SHARED // size)  # sent between two looks at the clock
        turns = _turns(self._sockets, zmq.POLLOUT)
        next(turns).send(message)  # waits for the connection
        deadline = time.perf_counter() + seconds
        for number, sock in enumerate(turns):
            for _ in range(batch):
                sock.send(message)
            if time.perf_counter() >= deadline and number >= LEAST_MESSAGES:
                break
        for sock in self._sockets:
            sock.send(END)

    def do_receive(self, size: int, warm_up: float = 0) -> dict[str, float]:
        """Count until the end has come on all sockets.

        The clock runs from the first message to the last, without those of the warm-up.
        """
        lengths = _lengths(self._sockets, copy=size < SHARED)
        next(lengths)
        begun = start = time.perf_counter()
        warm = 1
        while time.perf_counter() < begun + warm_up:
            next(lengths)
            warm += 1
            start = time.perf_counter()
        count = sum(1 for _ in lengths)
        now = time.perf_counter()
        if not count:
            raise RuntimeError("nothing came after the warm-up")
        return {
            "rate": count * size / (now - start) / 1e6,
            "rate_from_the_first": (warm + count - 1) * size / (now - begun) / 1e6,
            "bytes": (warm + count) * size,
        }

    def do_echo(self) -> None:
        """Send back whatever comes, for ever."""
        [sock] = self._sockets
        sock.rcvtimeo = -1
        while True:
            sock.send_multipart(sock.recv_multipart())

    def do_round_trips(self, size: int, count: int, within: float) -> list[int]:
        """Make round trips; return their microseconds. Stop after `within` seconds."""
        [sock] = self._sockets
        message = bytes(size)
        times = []
        deadline = float("inf")
        for number in range(count + WARM_UP_ROUND_TRIPS):
            start = time.perf_counter_ns()
            sock.send(message)
            sock.recv()
            end = time.perf_counter_ns()
            if number == WARM_UP_ROUND_TRIPS:
                deadline = end / 1e9 + within
            if number >= WARM_UP_ROUND_TRIPS:
                times.append((end - start) // 1000)
            if end / 1e9 > deadline:
                break
        return times

    def do_be_busy(self) -> None:
        """Have a thread of this program keep its interpreter busy from now on."""
        threading.Thread(target=_count_for_ever, daemon=True).start()

    def do_many(self, addr: str, count: int) -> float:
        """Connect that many sockets, make a round trip on each; return connects per second."""
        self._context.set(zmq.MAX_SOCKETS, count + 100)
        way, _ = self._open(addr)
        way.connect(self._socket("DEALER", 8))  # the login is not counted
        start = time.perf_counter()
        for _ in range(count):
            way.connect(self._socket("DEALER", 8))
        rate = count / (time.perf_counter() - start)
        for sock in self._sockets:
            sock.send(b"hello")
        for sock in self._sockets:
            sock.recv()
        return rate

    def _socket(self, kind: str, size: int) -> zmq.Socket[bytes]:
        sock = self._context.socket(getattr(zmq, kind))
        sock.sndhwm = sock.rcvhwm = max(LEAST_MESSAGES, QUEUE // size)
        sock.sndtimeo = sock.rcvtimeo = PATIENCE
        sock.linger = 0
        sock.immediate = kind == "PUSH"  # nothing is sent before there is a connection
        self._sockets.append(sock)
        return sock


def _turns(sockets: list[zmq.Socket[bytes]], event: int) -> Iterator[zmq.Socket[bytes]]:
    """Whichever of the sockets is ready, again and again; a single one blocks by itself."""
    [first, *others] = sockets
    if not others:
        while True:
            yield first
    poller = zmq.Poller()
    for sock in sockets:
        poller.register(sock, event)
    while True:
        ready = poller.poll(PATIENCE)
        if not ready:
            raise zmq.Again
        for sock, _ in ready:
            yield sock


def _lengths(sockets: list[zmq.Socket[bytes]], copy: bool) -> Iterator[int]:
    """The lengths of all messages up to the end."""
    if len(sockets) == 1:
        receive = sockets[0].recv
        while length := len(receive(copy=copy)):
            yield length
        return
    ended = 0
    for sock in _turns(sockets, zmq.POLLIN):
        if length := len(sock.recv(copy=copy)):
            yield length
            continue
        ended += 1
        if ended == len(sockets):
            return


def _end_with_parent() -> None:
    """Wait for the end of the standard input; end this program and the programs that it runs."""
    watch = select.poll()
    watch.register(sys.stdin.fileno(), 0)
    watch.poll()
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _count_for_ever() -> None:
    number = 0
    while True:
        number += 1


def main() -> None:
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # While it is at work, it does not read.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        Traffic(ALL_WAYS[sys.argv[1]]).run()
    except Exception:
        traceback.print_exc()
    # Without waiting for a way's threads. What it has started ends by itself, or is ended by who
    # has started this program.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
