"""What a way through SSH is."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import zmq

LOGIN_TIMEOUT = 10.0


@dataclass(frozen=True)
class Login:
    """An SSH server, and the key for it."""

    user: str
    host: str
    port: int
    keyfile: str

    @property
    def server(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


class Way(ABC):
    """One tunnel.

    Args:
        login: the SSH server.
        variant: what differs from the way's usual use, such as `password="..."`.

    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """The packages without which it cannot be used."""
    takes_tries: ClassVar[bool] = False
    """Whether it fails to open now and then, with an error or without."""

    def __init__(self, login: Login, **variant: Any) -> None:
        self.login = login
        self.variant = variant
        self.addr = ""
        self.local = ""

    @classmethod
    def missing(cls, **variant: Any) -> str | None:
        """Return why it cannot be used here, or `None`."""
        lacking = [name for name in cls.needs if not importlib.util.find_spec(name)]
        return f"{', '.join(lacking)} not installed" if lacking else None

    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        return zmq.Context()

    @abstractmethod
    def open(self, addr: str) -> None:
        """Open the tunnel to `addr`, and set `local` to its local endpoint."""

    def connect(self, sock: zmq.Socket[bytes]) -> None:
        """Connect `sock` through the tunnel."""
        sock.connect(self.local)

    def is_up(self) -> bool:
        """Whether the tunnel is there, though `open` has returned."""
        return True

    def close(self) -> None:  # noqa: B027 - not every way has something that does
        """Close the tunnel."""


def host_port(addr: str) -> tuple[str, int]:
    host, _, port = addr.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def accepts(endpoint: str, within: float) -> bool:
    """Whether somebody listens on the endpoint, now or within the given seconds."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError):
            _dial(endpoint).close()
            time.sleep(0.05)  # so that a second look is a later one
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _dial(endpoint: str) -> socket.socket:
    if endpoint.startswith("tcp://"):
        return socket.create_connection(host_port(endpoint), timeout=1)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(endpoint.removeprefix("ipc://"))
    except OSError:
        sock.close()
        raise
    return sock
