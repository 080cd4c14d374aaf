"""Sockets that are closed with much still to be sent, and what may be lost of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import zmq
from zmq.utils.monitor import recv_monitor_message

from tests.logins import Server, arguments_for
from tests.programs import ObedientProgram

SIZE = 10_000
"""Of a message, in bytes."""

IN_FLIGHT = 8_000_000
"""What a session may have taken when it is killed, in bytes: windows, and the kernels' buffers."""

SEND = """
    ctx = TunneledContext(isolate=isolate)
    sock = ctx.socket(zmq.PUSH)
    sock.sndhwm = 0
    sock.connect(addr, ssh=options)
    for number in range(count):
        sock.send(number.to_bytes(8, "big").ljust(size))
"""


def draining_program(
    server: Server, pull: zmq.Socket[bytes], count: int, *, isolate: bool = True
) -> ObedientProgram:
    """Start a program that has sent `count` messages, and has begun to close and terminate."""
    program = ObedientProgram(
        SEND,
        options=arguments_for(server),
        addr=pull.last_endpoint.decode(),
        count=count,
        size=SIZE,
        isolate=isolate,
    )
    program.begin("sock.close(); ctx.term()")
    return program


@contextmanager
def slow_pull() -> Iterator[zmq.Socket[bytes]]:
    """A peer in this process that takes next to nothing in advance."""
    ctx = zmq.Context()
    sock = ctx.socket(zmq.PULL)
    sock.rcvhwm = 10
    sock.rcvbuf = 4096
    sock.bind("tcp://127.0.0.1:*")
    try:
        yield sock
    finally:
        ctx.destroy(linger=0)


def drained(pull: zmq.Socket[bytes], last: int, patience: float = 20) -> list[int]:
    """Receive until message `last`, and return the numbers of all that came.

    Args:
        pull: what receives.
        last: the number of the last message.
        patience: seconds without a message after which what has not come counts as lost.

    """
    numbers: list[int] = []
    while numbers[-1:] != [last] and pull.poll(int(patience * 1000)):
        numbers.append(int.from_bytes(pull.recv()[:8], "big"))
    return numbers


def left_of_connection(pull: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> list[int]:
    """Receive what is left of a connection that has been broken: later it would mix with the next.

    Args:
        pull: what receives.
        monitor: its monitor, which says when all of the connection is read.

    """
    numbers: list[int] = []
    broken = False
    while not broken or pull.poll(200):
        if pull.poll(50):
            numbers.append(int.from_bytes(pull.recv()[:8], "big"))
        while monitor.poll(0):
            broken |= recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
    return numbers


def lost_with_a_session(numbers: list[int], count: int) -> int:
    """Check that all have arrived but what one killed session had taken, which is in one piece.

    Returns:
        How many were lost with it.

    """
    assert numbers == sorted(set(numbers)), "once each, in order"
    assert numbers[-1:] == [count - 1], f"only {len(numbers)} of {count} arrived"
    holes = sum(after != before + 1 for before, after in pairwise([-1, *numbers]))
    assert holes <= 1
    lost = count - len(numbers)
    assert lost * SIZE <= IN_FLIGHT
    return lost
