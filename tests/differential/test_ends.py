"""The end of a socket: what is owed is delivered, nothing more is seen, and nothing stays."""

from __future__ import annotations

import time
from collections import Counter

import psutil
import pytest
import zmq

from tests.differential.conftest import Both, Side
from tests.differential.monitors import listen
from tests.differential.observing import events, received, soon
from tests.leaks import gateways


def descriptors(process: psutil.Process) -> int:
    """Return how many descriptors a process has open."""
    try:
        count: int = process.num_fds()
    except psutil.NoSuchProcess:
        return 0
    return count


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
        return len(messages), side.terminates(5)

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
        return len(received(peer, 5, quiet=3)), side.terminates(5)

    both.same(program, (5, True))


def test_term_waits_as_long_as_linger_says(both: Both) -> None:
    def program(side: Side) -> bool:
        sock = side.socket(zmq.PUSH, LINGER=1000)
        sock.connect(side.address())
        sock.send(b"hello")
        start = time.monotonic()
        sock.close()
        assert side.terminates(10)
        return 0.9 < time.monotonic() - start < 2.5

    both.same(program, True)


@pytest.mark.timeout(240)
def test_connect_ask_and_close_1013_times_with_a_long_reconnect_ivl_max(both: Both) -> None:
    """With a descriptor or two for each, a gateway would run out of them."""

    def program(side: Side) -> tuple[int, bool]:
        address = side.address()
        rep = side.peer(zmq.REP, address)
        side.socket(zmq.DEALER).connect(side.address())  # keeps the session
        answered = 0
        for _ in range(1013):
            req = side.socket(zmq.REQ, RECONNECT_IVL_MAX=30_000, LINGER=-1)
            req.connect(address)
            req.send(b"hello")
            rep.send(rep.recv())
            answered += req.recv() == b"hello"
            req.close()
        return answered, soon(lambda: all(descriptors(gateway) < 100 for gateway in gateways()), 1)

    both.same(program, (1013, True))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("linger", [0, None], ids=["linger 0", "linger by default"])
def test_events_after_close(both: Both, linger: int | None) -> None:
    """With a hundred sockets at once libzmq's reaper takes its time."""

    def program(side: Side) -> dict[str, int]:
        address = side.address()
        side.peer(zmq.ROUTER, address)
        seen: Counter[str] = Counter()
        for _ in range(5):
            pairs = []
            for _ in range(100):
                dealer = side.socket(zmq.DEALER, LINGER=-1)
                pairs.append((dealer, listen(dealer)))
                dealer.connect(address)
            for _, monitor in pairs:
                while zmq.Event.HANDSHAKE_SUCCEEDED not in events(monitor, quiet=5, at_most=1):
                    pass
            for dealer, _ in pairs:
                dealer.close(linger)
            for _, monitor in pairs:
                seen.update(str(event.name) for event in events(monitor, quiet=5))
                monitor.close()
        return dict(seen)

    both.same(program, {"MONITOR_STOPPED": 500})


def test_events_after_disconnect(both: Both) -> None:
    def program(side: Side) -> int:
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
        return len(events(monitor, quiet=0))

    both.same(program, 0)
