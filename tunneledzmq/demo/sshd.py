"""The embedded SSH server: forwarding to loopback, and nothing else.

A process of its own, that :class:`~tunneledzmq.demo.server.EmbeddedServer` starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import asyncssh

from ..shared.directory import RuntimeDirectory
from .child import reply, requests
from .server import ServerStatus


class Service:
    """What the sessions share: who is let in, and what is open.

    Args:
        config: the arguments of :class:`~tunneledzmq.demo.server.EmbeddedServer`.
        directory: where its keys are.
    """

    def __init__(self, config: dict[str, Any], directory: Path) -> None:
        self.user: str = config["user"]
        self.password: str | None = config["password"]
        self.allow_forwarding: bool = config["allow_forwarding"]
        self.authorized_keys = directory / "authorized_keys"
        # Mutable state, all of it; only the event loop's thread touches it.
        self.connections = 0
        self.logins = 0
        self.channels = 0

    def status(self) -> ServerStatus:
        """Count what is open."""
        return ServerStatus(self.connections, self.logins, self.channels)


class Forwarder(asyncssh.SSHForwarder):
    """asyncssh's, which leaves a channel open for ever if the destination's EOF comes first."""

    def eof_received(self) -> bool:
        """Pass the EOF on, and close the channel when there was one in both directions."""
        half_open = super().eof_received()
        if not half_open:
            self.close()
        return half_open


class Destination(Forwarder):
    """The connection to where a channel leads."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._service.channels += 1

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._service.channels -= 1


class Session(asyncssh.SSHServer):
    """One SSH connection. asyncssh refuses all that is not asked here: shells, commands, ..."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._service.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection = None
        self._service.connections -= 1

    def begin_auth(self, username: str) -> bool:
        if username == self._service.user and self._connection is not None:
            # The file is missing, or has no key in it: then nobody's key is let in.
            with contextlib.suppress(OSError, ValueError):
                keys = asyncssh.read_authorized_keys(self._service.authorized_keys)
                self._connection.set_authorized_keys(keys)
        return True

    def auth_completed(self) -> None:
        self._service.logins += 1

    def public_key_auth_supported(self) -> bool:
        return True  # Offered to strangers too, as sshd does: it does not tell who exists.

    def password_auth_supported(self) -> bool:
        return self._service.password is not None

    def validate_password(self, username: str, password: str) -> bool:
        return username == self._service.user and password == self._service.password

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        if not self._service.allow_forwarding:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "forwarding is not allowed"
            )
        return self._forward(dest_host, dest_port)

    async def _forward(self, host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        destination = await _connect(host, port, self._service)
        forwarder = Forwarder(destination)
        if self._connection is None:  # Lost meanwhile: asyncssh would keep the destination open.
            forwarder.close()
        # A forwarder has a session's methods without being one.
        return cast("asyncssh.SSHTCPSession[bytes]", forwarder)


async def _connect(host: str, port: int, service: Service) -> Destination:
    """Connect to the first address of ``host`` that answers, loopback only."""
    loop = asyncio.get_running_loop()
    failure: Exception | None = None
    try:
        for *_, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            numeric = str(address[0])
            if not ipaddress.ip_address(numeric).is_loopback:
                continue
            try:
                _, destination = await loop.create_connection(
                    lambda: Destination(service), numeric, port
                )
                return destination
            except OSError as exc:
                failure = exc
    except (OSError, ValueError, OverflowError) as exc:  # No such name, no such port.
        failure = exc
    if failure is None:
        raise asyncssh.ChannelOpenError(
            asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"{host} is not a loopback destination"
        )
    errno = getattr(failure, "errno", None) or 0
    reason = os.strerror(errno) if errno > 0 else str(failure)  # "Connection refused", as sshd.
    raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason)


def _write_keys(directory: Path, known_as: str, host_keys: list[asyncssh.SSHKey]) -> None:
    """Write the client's key pair and what it may believe, all of it private to the user."""
    client_key = asyncssh.generate_private_key("ssh-ed25519", "tunneledzmq demo")
    client_key.write_private_key(directory / "id_ed25519")
    client_key.write_public_key(directory / "id_ed25519.pub")
    client_key.write_public_key(directory / "authorized_keys")
    lines = [known_as.encode() + b" " + key.export_public_key() for key in host_keys]
    (directory / "known_hosts").write_bytes(b"".join(lines))


async def _serve(config: dict[str, Any], directory: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    service = Service(config, directory)
    host_keys = [asyncssh.generate_private_key(kind) for kind in config["host_key_types"]]
    acceptor = await asyncssh.listen(
        config["host"],
        config["port"],
        server_factory=lambda: Session(service),
        server_host_keys=host_keys,
        gss_host=None,
        agent_forwarding=False,
        allow_pty=False,
    )
    port = acceptor.get_port()
    _write_keys(directory, f"[{config['host']}]:{port}", host_keys)
    reply({"port": port, "directory": str(directory)})

    def answer_requests(pending: Iterator[dict[str, Any]]) -> None:
        for _ in pending:
            loop.call_soon_threadsafe(lambda: reply(asdict(service.status())))
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=answer_requests, args=(requests(),), daemon=True).start()
    await ended.wait()
    acceptor.close()


def _raise_descriptor_limit() -> None:
    """Make room for thousands of channels: each one takes a descriptor here."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # So that the directory is removed.
    config = next(requests())
    _raise_descriptor_limit()
    directory = RuntimeDirectory("server")
    try:
        asyncio.run(_serve(config, Path(directory.path)))
    except (OSError, ValueError, asyncssh.KeyGenerationError) as exc:
        reply({"error": str(exc)})
    finally:
        directory.remove()
