"""The ways to a peer: what differs between the two runs of a program, and nothing else does."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import zmq

from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket

PORT = 7000
"""Below the ports from which connections are made, or one might connect to itself."""

_hosts = itertools.count()


def own_host() -> str:
    """Return an address of the loopback network that no other run has."""
    number = os.getpid() * 7919 + next(_hosts)
    return f"127.{16 + number % 200}.{number // 200 % 250}.{2 + number // 50_000 % 250}"


class Way:
    """A context, and how its sockets connect; each run has its own."""

    name: str
    ctx: zmq.Context[Any]

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self.ctx.socket(kind)
        return sock

    def connect(self, sock: zmq.Socket[bytes], addr: str) -> None:
        sock.connect(addr)


class Direct(Way):
    """Plain TCP.

    Args:
        pause: seconds that each connect takes, as a login does.
    """

    name = "direct"

    def __init__(self, pause: float = 0) -> None:
        self.ctx = zmq.Context()
        self._pause = pause

    def connect(self, sock: zmq.Socket[bytes], addr: str) -> None:
        super().connect(sock, addr)
        time.sleep(self._pause)


class OwnSession(Way):
    """A tunnel by the context's default, over a login of its own."""

    name = "tunnelled"

    def __init__(self, options: SSHOptions, **arguments: Any) -> None:
        self.ctx = TunneledContext(ssh=options, **arguments)


class SharedSession(Way):
    """A tunnel for sockets of a plain context, over a login that others keep."""

    name = "tunnelled"

    def __init__(self, options: SSHOptions) -> None:
        self.ctx = zmq.Context()
        self._options = options

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self.ctx.socket(kind, socket_class=TunneledSocket)
        return sock

    def connect(self, sock: zmq.Socket[bytes], addr: str) -> None:
        assert isinstance(sock, TunneledSocket)
        sock.connect(addr, ssh=self._options)
