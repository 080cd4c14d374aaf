"""The program's sockets."""

from __future__ import annotations

from collections import Counter

import zmq

from tests.differential.ends import End, set_options
from tests.differential.monitors import Monitor
from tests.differential.program import Declaration
from tests.differential.ways import Way

SINGLE = ("DEALER", "SUB", "PUB", "REQ")
"""For these libzmq takes a second connect to the same endpoint for the first one."""


class Near(End):
    """One of the program's sockets."""

    def __init__(self, declared: Declaration, way: Way) -> None:
        super().__init__(declared.name, declared.kind)
        self._way = way
        self.sock = way.socket(getattr(zmq, declared.kind))
        self.sock.sndtimeo = 200
        self.monitor = Monitor(self.sock, raw=declared.kind == "STREAM")
        self.connects: Counter[str] = Counter()
        """How often it is connected, by the peer's name."""
        self.repeated: set[str] = set()
        """Peers to which it had several connections at once, whose events mingle."""
        self.resumed: set[str] = set()
        """Peers that it was disconnected from while they were down, and is connected to again.

        libzmq still delivers what was sent before, over a connection of its own, and tells nothing
        of its end. On plain TCP it has the same endpoint as the new one: what the monitor tells is
        of both.
        """
        self._left_down: set[str] = set()
        self.idle_after_disconnect = False
        """libzmq gives a connection up only at the next calls into the socket."""
        self.conflates = bool(declared.options.get("CONFLATE"))
        set_options(self.sock, declared.options)

    def connect(self, peer: str, addr: str) -> None:
        self._way.connect(self.open, addr)
        endpoint: bytes = self.open.get(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
        self.monitor.name(endpoint.decode().rstrip("\0"), peer)
        self.connects[peer] += 1
        if peer in self._left_down:
            self.resumed.add(peer)
        if self.expects(peer) > 1:
            self.repeated.add(peer)

    def disconnect(self, peer: str, addr: str) -> None:
        self.open.disconnect(addr)
        self.connects.pop(peer, None)
        self.monitor.read()
        if not self.monitor.live()[peer]:
            self._left_down.add(peer)
        self.monitor.forget(peer)
        self.idle_after_disconnect = True

    def close(self, linger: int | None) -> None:
        self.open.close(linger)
        self.connects.clear()
        self.monitor.read()
        for peer in list(self.monitor.logs):
            self.monitor.forget(peer)

    def expects(self, peer: str) -> int:
        """Return how many connections libzmq makes to a peer that is up."""
        if self.kind in SINGLE:
            return min(1, self.connects[peer])
        return self.connects[peer]

    def look(self) -> None:
        """Read the monitor, without a call into the socket unless something waits for one."""
        self.monitor.read()
        if self.idle_after_disconnect and not self.open.closed:
            self.open.getsockopt(zmq.EVENTS)
