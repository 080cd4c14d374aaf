"""An SSH server that needs no setup: the program's side. The server itself is in ``sshd``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from .child import ChildProcess

__all__ = ["EmbeddedServer", "ServerStatus"]


@dataclass(frozen=True)
class ServerStatus:
    """What an :class:`EmbeddedServer` sees."""

    connections: int
    """SSH connections that are open now, logged in or not."""
    logins: int
    """Logins that succeeded since the start."""
    channels: int
    """Forwarded connections that are open now."""


class EmbeddedServer:
    """An SSH server in a process of its own, for demonstrations and tests.

    It forwards (``direct-tcpip``) to loopback destinations and offers nothing else. Its keys live
    in a private temporary directory that goes with it. It ends with :meth:`stop`, and with this
    program.

    Args:
        user: who may log in.
        password: lets in too, also as keyboard-interactive. Default: keys only.
        allow_forwarding: if ``False``, every forwarding is "administratively prohibited".
        host: where it listens.
        port: where it listens; 0 takes a free one.
        host_key_types: the types of its host keys, such as ``"ssh-ed25519"``, ``"ssh-rsa"``.
    """

    host: str
    """Where it listens."""
    port: int
    """Where it listens, as soon as it does."""
    user: str
    """Who may log in."""
    keyfile: str
    """Path of a private key that is let in (Ed25519, OpenSSH's format)."""
    authorized_keys: str
    """Path of the public keys that are let in. Read at each login, so keys may be added."""
    known_hosts: str
    """Path of a file that has a line for each host key."""

    def __init__(
        self,
        *,
        user: str = "demo",
        password: str | None = None,
        allow_forwarding: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
        host_key_types: Sequence[str] = ("ssh-ed25519",),
    ) -> None:
        self.user = user
        self.host = host
        self.port = port
        self._password = password
        self._allow_forwarding = allow_forwarding
        self._host_key_types = list(host_key_types)
        self._child: ChildProcess | None = None

    @property
    def server(self) -> str:
        """``user@host:port``, what ``ssh=`` takes."""
        return f"{self.user}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start, and wait until it listens.

        Raises:
            RuntimeError: if it does not; the text says why.
        """
        if self._child is not None:
            raise RuntimeError("the SSH server is already started")
        config = {
            "user": self.user,
            "password": self._password,
            "allow_forwarding": self._allow_forwarding,
            "host": self.host,
            "port": self.port,
            "host_key_types": self._host_key_types,
        }
        self._child = child = ChildProcess(f"{__package__}.sshd", config)
        self.port = child.ready["port"]
        self._directory = child.ready["directory"]
        self.keyfile = os.path.join(self._directory, "id_ed25519")
        self.authorized_keys = os.path.join(self._directory, "authorized_keys")
        self.known_hosts = os.path.join(self._directory, "known_hosts")

    def status(self) -> ServerStatus:
        """Ask the server what it sees."""
        return ServerStatus(**self._running().request({}))

    def stop(self) -> None:
        """End the server and remove its keys. May be called again."""
        if self._child is None:
            return
        try:
            self._child.stop()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)  # Left only if it was killed.
            self._child = None

    def _running(self) -> ChildProcess:
        if self._child is None:
            raise RuntimeError("the SSH server is not started")
        return self._child

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
