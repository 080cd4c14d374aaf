"""A program that is written out, run on plain TCP and through a tunnel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import zmq

from tests.differential.ends import set_options
from tests.differential.ways import PORT, Direct, OwnSession, Way, own_host
from tests.polling import wait_until
from tunneledzmq import SSHOptions

T = TypeVar("T")


class Side:
    """One of the two ways, its program's context, and what is behind the server."""

    def __init__(self, way: Way) -> None:
        self.ctx = way.ctx
        self.tunnelled = way.name == "tunnelled"
        self.host = own_host()
        self.far_ctx = zmq.Context()
        self._ports = iter(range(PORT, PORT + 1000))
        self._hangs = False
        # Held until the end, so that a program need not close them.
        self._sockets: list[zmq.Socket[bytes]] = []

    def address(self) -> str:
        """Return an address behind the server at which nobody listens."""
        return f"tcp://{self.host}:{next(self._ports)}"

    def socket(self, kind: int, **options: Any) -> zmq.Socket[bytes]:
        """Return a socket of the program."""
        sock: zmq.Socket[bytes] = self.ctx.socket(kind)
        self._sockets.append(sock)
        set_options(sock, {"LINGER": 0, "RCVTIMEO": 3000, "SNDTIMEO": 3000, **options})
        return sock

    def peer(self, kind: int, address: str, **options: Any) -> zmq.Socket[bytes]:
        """Return a peer that listens behind the server."""
        sock = self.far_ctx.socket(kind)
        self._sockets.append(sock)
        set_options(sock, {"LINGER": 0, "RCVTIMEO": 3000, "SNDTIMEO": 3000, **options})
        wait_until(lambda: _bound(sock, address), what=f"{address} is free")
        return sock

    def terminates(self, seconds: float) -> bool:
        """Tell whether the program's context ends in time."""
        thread = threading.Thread(target=self.ctx.term, daemon=True)
        thread.start()
        thread.join(seconds)
        self._hangs = thread.is_alive()
        return not self._hangs

    def close(self) -> None:
        if not (self.ctx.closed or self._hangs):
            self.ctx.destroy(linger=0)
        self.far_ctx.destroy(linger=0)


class Both:
    """Runs a program on both ways."""

    def __init__(self, options: SSHOptions) -> None:
        self._options = options

    def __call__(self, program: Callable[[Side], T]) -> tuple[T, T]:
        """Return what a program returns with plain TCP, and through a tunnel."""
        return self.run(program, Direct()), self.run(program, OwnSession(self._options))

    def same(self, program: Callable[[Side], T], expected: T) -> None:
        """Check what a program returns on both."""
        direct = self.run(program, Direct())
        assert direct == expected, "not even with plain TCP"
        assert self.run(program, OwnSession(self._options)) == direct

    def alike(self, program: Callable[[Side], object]) -> None:
        """Check that a program returns the same on both."""
        direct, tunnelled = self(program)
        assert tunnelled == direct

    @staticmethod
    def run(program: Callable[[Side], T], way: Way) -> T:
        """Run it on one way."""
        side = Side(way)
        try:
            return program(side)
        finally:
            side.close()


@pytest.fixture
def both(openssh_options: SSHOptions) -> Both:
    """Both ways."""
    return Both(openssh_options)


def _bound(sock: zmq.Socket[bytes], address: str) -> bool:
    try:
        sock.bind(address)
    except zmq.ZMQError as exc:
        if exc.errno == zmq.EADDRINUSE:
            return False
        raise
    return True
