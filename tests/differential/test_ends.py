"""The end of a socket: what is owed is delivered, nothing more is seen, and nothing stays."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from tests.differential.conftest import Both, Side
from tests.differential.monitors import listen
from tests.differential.observing import events, received


def terminated(side: Side, seconds: float) -> bool:
    """Tell whether the program's context ends in time."""
    thread = threading.Thread(target=side.ctx.term, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def test_the_interval_of_the_connect_counts_when_a_socket_is_closed(both: Both) -> None:
    def program(side: Side) -> tuple[int, bool]:
        address = side.address()
        sock = side.socket(zmq.PUSH, RECONNECT_IVL=1500, LINGER=-1)
        sock.connect(address)
        time.sleep(0.2)
        for number in range(5):
            sock.send(b"%d" % number)
        sock.setsockopt(zmq.RECONNECT_IVL, 10)
        sock.close()
        time.sleep(0.5)
        peer = side.peer(zmq.PULL, address)
        messages = received(peer, 5, quiet=6)
        return len(messages), terminated(side, 5)

    both.same(program, (5, True))


def test_what_is_owed_waits_for_a_peer_that_comes_late(both: Both) -> None:
    def program(side: Side) -> tuple[int, bool]:
        address = side.address()
        sock = side.socket(zmq.PUSH, RECONNECT_IVL=50, LINGER=-1)
        sock.connect(address)
        for number in range(5):
            sock.send(b"%d" % number)
        sock.close()
        time.sleep(1.5)
        peer = side.peer(zmq.PULL, address)
        return len(received(peer, 5, quiet=3)), terminated(side, 5)

    both.same(program, (5, True))


def test_term_waits_as_long_as_linger_says(both: Both) -> None:
    def program(side: Side) -> bool:
        sock = side.socket(zmq.PUSH, LINGER=1000)
        sock.connect(side.address())
        sock.send(b"hello")
        start = time.monotonic()
        sock.close()
        assert terminated(side, 10)
        return 0.9 < time.monotonic() - start < 2.5

    both.same(program, True)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Gateways that are started meanwhile have 1,024 descriptors, which is what is usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("few_descriptors")
def test_connect_ask_and_close_1013_times_with_a_long_reconnect_ivl_max(both: Both) -> None:
    def program(side: Side) -> int:
        address = side.address()
        rep = side.peer(zmq.REP, address)
        answered = 0
        for _ in range(1013):
            req = side.socket(zmq.REQ, RECONNECT_IVL_MAX=30_000)
            req.connect(address)
            req.send(b"hello")
            rep.send(rep.recv())
            answered += req.recv() == b"hello"
            req.close()
        return answered

    both.same(program, 1013)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("linger", [0, None], ids=["linger 0", "linger by default"])
def test_events_after_close(both: Both, linger: int | None) -> None:
    def program(side: Side) -> list[zmq.Event]:
        address = side.address()
        rep = side.peer(zmq.REP, address)
        seen: set[zmq.Event] = set()
        for _ in range(50):
            req = side.socket(zmq.REQ, LINGER=-1)
            monitor = listen(req)
            req.connect(address)
            req.send(b"hello")
            rep.send(rep.recv())
            req.recv()
            events(monitor, quiet=0)
            req.close(linger)
            seen |= set(events(monitor, quiet=2))
            monitor.close()
        return sorted(seen)

    both.same(program, [zmq.Event.MONITOR_STOPPED])


def test_events_after_disconnect(both: Both) -> None:
    def program(side: Side) -> list[zmq.Event]:
        address = side.address()
        side.peer(zmq.ROUTER, address)
        dealer = side.socket(zmq.DEALER)
        monitor = listen(dealer)
        dealer.connect(address)
        events(monitor, quiet=0.5)
        dealer.disconnect(address)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            dealer.getsockopt(zmq.EVENTS)
            time.sleep(0.01)
        return events(monitor, quiet=0)

    both.same(program, [])
