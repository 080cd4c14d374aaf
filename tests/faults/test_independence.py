"""Who does not read stops nobody but the one that writes to it, and costs little memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from tests.deadline import ending
from tests.faults.injection import memory_growth, the_gateway
from tests.peers import Peer, numbered, round_trip
from tests.polling import wait_until
from tunneledzmq import SSHOptions, TunneledContext

Figures = Callable[[str], None]

COUNT = 1000
SIZE = 10_000
MEMORY = 16_000_000
"""What a stalled reader may cost the gateway, in bytes: windows, buffers, and Python's slack."""


@pytest.fixture
def far() -> Iterator[zmq.Socket[bytes]]:
    """A remote DEALER in this process, which does just what the test tells it to."""
    with ending(zmq.Context()) as ctx:
        sock = ctx.socket(zmq.DEALER)
        sock.set_hwm(COUNT)
        sock.bind("tcp://127.0.0.1:*")
        yield sock


def write_until_it_stops(sock: zmq.Socket[bytes]) -> int:
    """Send as much as the way takes without the other end's reading; return the bytes."""
    sent = 0
    while sock.poll(300, zmq.POLLOUT):
        sock.send(bytes(SIZE))
        sent += SIZE
    return sent


def slowest_round_trip(sock: zmq.Socket[bytes]) -> float:
    times = []
    for _ in range(50):
        start = time.monotonic()
        round_trip(sock)
        times.append(time.monotonic() - start)
    return max(times)


def test_a_reader_that_stops_here_stops_only_the_far_writer(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    far: zmq.Socket[bytes],
    echo: Peer,
    figures: Figures,
) -> None:
    other = ctx.socket(zmq.REQ)
    other.connect(echo.address, ssh=openssh_options)
    round_trip(other)
    sock = ctx.socket(zmq.DEALER)
    sock.rcvhwm = 1
    sock.connect(far.last_endpoint.decode(), ssh=openssh_options)
    with memory_growth(the_gateway(), at_most=MEMORY) as growth:
        stuck = write_until_it_stops(far)
        for number in range(COUNT):
            sock.send(numbered(number, SIZE))
        for number in range(COUNT):
            assert far.poll(10_000)
            assert far.recv() == numbered(number, SIZE)
        slowest = slowest_round_trip(other)
    figures(
        f"{stuck / 1e6:.1f} MB stuck at 1 reader, gateway {growth.bytes / 1e6:.1f} MB larger, "
        f"{COUNT * SIZE / 1e6:.0f} MB the other way, slowest round trip of another socket "
        f"{slowest * 1000:.1f} ms"
    )
    assert slowest < 0.5


def test_a_reader_that_stops_there_stops_only_the_writer_here(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    far: zmq.Socket[bytes],
    echo: Peer,
    figures: Figures,
) -> None:
    other = ctx.socket(zmq.REQ)
    other.connect(echo.address, ssh=openssh_options)
    round_trip(other)
    far.unbind(far.last_endpoint.decode())
    far.rcvhwm = 1
    far.bind("tcp://127.0.0.1:*")
    sock = ctx.socket(zmq.DEALER)
    sock.connect(far.last_endpoint.decode(), ssh=openssh_options)
    with memory_growth(the_gateway(), at_most=MEMORY) as growth:
        stuck = write_until_it_stops(sock)
        for number in range(COUNT):
            far.send(numbered(number, SIZE))
        for number in range(COUNT):
            assert sock.recv() == numbered(number, SIZE)
        slowest = slowest_round_trip(other)
    figures(
        f"{stuck / 1e6:.1f} MB stuck at 1 reader, gateway {growth.bytes / 1e6:.1f} MB larger, "
        f"{COUNT * SIZE / 1e6:.0f} MB the other way, slowest round trip of another socket "
        f"{slowest * 1000:.1f} ms"
    )
    assert slowest < 0.5


def test_many_readers_that_stop_cost_a_window_each(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, figures: Figures
) -> None:
    readers = 10
    other = ctx.socket(zmq.REQ)
    other.connect(echo.address, ssh=openssh_options)
    round_trip(other)
    with zmq.Context() as far_ctx, far_ctx.socket(zmq.PUSH) as far:
        far.linger = 0
        far.bind("tcp://127.0.0.1:*")
        with memory_growth(the_gateway(), at_most=readers * 4_000_000 + MEMORY) as growth:
            for _ in range(readers):
                sock = ctx.socket(zmq.PULL)
                sock.rcvhwm = 1
                sock.connect(far.last_endpoint.decode(), ssh=openssh_options)
            wait_until(lambda: far.poll(0, zmq.POLLOUT))
            stuck = write_until_it_stops(far)
            slowest = slowest_round_trip(other)
        figures(
            f"{stuck / 1e6:.1f} MB stuck at {readers} readers, gateway {growth.bytes / 1e6:.1f} MB "
            f"larger, slowest round trip of another socket {slowest * 1000:.1f} ms"
        )
        assert slowest < 0.5
