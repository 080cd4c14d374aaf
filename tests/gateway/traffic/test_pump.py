"""What a pump waits for."""

from __future__ import annotations

import socket

from tunneledzmq.gateway.traffic.pump import READ, Pump


class Source:
    """A socket that tells that it can be read."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno
        self.events = 0

    def ready(self, events: int) -> None:
        self.events |= events


def test_what_is_to_be_done_at_last_may_be_far_off() -> None:
    pump = Pump()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = Source(ours)
        pump.watch(source, READ)
        theirs.send(b"x")
        assert pump.run_once(365 * 86_400)
        assert source.events == READ
    pump.close()
