"""The peers, which are behind the server: plain ZeroMQ on TCP."""

from __future__ import annotations

import socket
import time
from collections import Counter
from typing import Any

import zmq

from tests.differential.ends import PROBE, End, set_options
from tests.differential.monitors import Monitor
from tests.differential.program import Declaration
from tests.differential.ways import PORT
from tests.polling import wait_until

LINGER = 1000
"""Milliseconds in which a peer that goes still sends what it has."""


class Far(End):
    """A peer, which may come, go, and come again at the same address."""

    def __init__(self, declared: Declaration, ctx: zmq.Context[Any], host: str) -> None:
        super().__init__(declared.name, declared.kind)
        self._declared = declared
        self._ctx = ctx
        self._host = host
        self._port = PORT + int(declared.name[1:])
        self._mute: socket.socket | None = None
        self.monitor: Monitor | None = None
        self.topics: Counter[str] = Counter()
        """What an XPUB was asked for."""
        self.subscribed: set[bytes] = set()
        """What a SUB has asked for."""

    @property
    def address(self) -> str:
        return f"tcp://{self._host}:{self._port}"

    @property
    def up(self) -> bool:
        return self.sock is not None or self._mute is not None

    @property
    def live(self) -> int:
        """Connections that are up now."""
        return sum(self.monitor.live().values()) if self.monitor else 0

    def bind(self) -> None:
        if self.kind == "MUTE":
            self._mute = socket.create_server((self._host, self._port), backlog=1000)
            return
        sock = self._ctx.socket(getattr(zmq, self.kind))
        sock.sndtimeo = 50
        if self.kind == "XPUB":
            sock.setsockopt(zmq.XPUB_VERBOSER, 1)
        set_options(sock, self._declared.options)
        self.monitor = Monitor(sock, raw=self.kind == "STREAM")
        wait_until(lambda: _bound(sock, self.address), what=f"{self.address} is free")
        self.sock = sock
        for topic in self.subscribed:
            self.subscribe(topic)

    def close(self) -> None:
        """Go; return when nobody listens any more."""
        if self._mute is not None:
            self._mute.close()
            self._mute = None
        if self.sock is None or self.monitor is None:
            return
        self.look()
        self.sock.close(LINGER)
        deadline = time.monotonic() + 2 * LINGER / 1000
        while not self.monitor.stopped and time.monotonic() < deadline:
            self.monitor.read()
            time.sleep(0.001)
        self.monitor.close()
        self.sock, self.monitor = None, None
        self.topics.clear()

    def look(self) -> None:
        """Read the monitor, and what an XPUB is asked for."""
        if self.monitor is not None:
            self.monitor.read()
        while self.kind == "XPUB" and self.sock is not None and self.take():
            pass

    def _note(self, frames: list[bytes]) -> bool:
        if self.kind == "XPUB" and frames[0][:1] in (b"\0", b"\1"):
            if PROBE not in frames[0]:
                self.topics[frames[0][1:].decode()] += 1 if frames[0][0] else -1
            return False
        return super()._note(frames)


def _bound(sock: zmq.Socket[bytes], address: str) -> bool:
    try:
        sock.bind(address)
    except zmq.ZMQError as exc:
        # The one that had it before is on its way out.
        if exc.errno == zmq.EADDRINUSE:
            return False
        raise
    return True
