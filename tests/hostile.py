"""An SSH server that says what a test has it say, at any point of a session."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
)

from tests.faults.injection import hostile_port
from tests.logins import defaults
from tests.sshd import generate_key
from tunneledzmq import SSHOptions

GARBAGE = b"\x1b]0;title\x07\x1b[2J\xff\xfe caf\xe9\r\n\t \xe2\x80\xae "
"""What nobody wants on a terminal."""

PATIENCE = 3.0
"""The connect_timeout of its options, in seconds."""


def message(kind: int, *fields: Any) -> paramiko.Message:
    """Make a message; bytes and text are strings, and a bytearray stands for itself."""
    made = paramiko.Message()
    made.add_byte(bytes([kind]))
    for value in fields:
        if isinstance(value, bool):
            made.add_boolean(value)
        elif isinstance(value, int):
            made.add_int(value)
        elif isinstance(value, bytearray):
            made.add_bytes(bytes(value))
        else:
            made.add_string(value)
    return made


class Obliging(paramiko.ServerInterface):
    """Lets in whoever has a key."""

    def __init__(self, transport: HostileTransport) -> None:
        self.transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_none(self, username: str) -> int:
        return int(AUTH_FAILED)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(AUTH_SUCCESSFUL)


Act = Callable[["HostileTransport"], None]


def _nothing(transport: HostileTransport) -> None:
    pass


def open_channel(transport: HostileTransport, channel: int) -> None:
    transport.say(MSG_CHANNEL_OPEN_SUCCESS, channel, channel, 1 << 21, 1 << 15)


@dataclass(frozen=True)
class Script:
    """What the server says; by default, what a good one does."""

    before: bytes = b""
    """Before its identification."""

    identification: bytes = b"SSH-2.0-Scripted"
    on_keys: Act = _nothing
    """After each key exchange."""

    on_service: Act | None = None
    """In place of granting a service."""

    interface: Callable[[HostileTransport], paramiko.ServerInterface] = Obliging
    on_open: Callable[[HostileTransport, int], None] = open_channel
    """When the client opens a channel, by its number of it."""

    prepare: Act = _nothing
    """Before it starts."""

    options: dict[str, Any] = field(default_factory=dict)
    """How the client logs in."""


class _Identification(bytes):
    """Is taken by paramiko's server in place of its `str`."""

    def __add__(self, other: Any) -> bytes:
        return bytes(self) + other.encode()


class HostileTransport(paramiko.Transport):
    def __init__(self, sock: socket.socket, script: Script) -> None:
        super().__init__(sock)
        self.script = script
        self.local_version = _Identification(script.identification)
        # Its timer's thread would outlive the test.
        self.packetizer.start_handshake = lambda timeout: None
        # What the client says to a channel is nothing to it.
        self.channels_seen = dict.fromkeys(range(100), True)
        script.prepare(self)

    def say(self, kind: int, *fields: Any) -> None:
        self._send_message(message(kind, *fields))

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)
        if self.script.on_service is not None and self.auth_handler is not None:
            self._handler_table[MSG_SERVICE_REQUEST] = self._on_service
        self.script.on_keys(self)

    def _on_service(self, m: paramiko.Message) -> None:
        assert self.script.on_service is not None
        self.script.on_service(self)

    def _parse_channel_open(self, m: paramiko.Message) -> None:
        m.get_text()
        self.script.on_open(self, m.get_int())


def grant_service(transport: HostileTransport) -> None:
    transport.say(MSG_SERVICE_ACCEPT, "ssh-userauth")


@contextmanager
def hostile_server(script: Script, directory: Path) -> Iterator[SSHOptions]:
    """Run a server that keeps to `script`; return options that log in there."""
    host_key = paramiko.ECDSAKey.generate()

    def serve(sock: socket.socket) -> None:
        sock.sendall(script.before)
        transport = HostileTransport(sock, script)
        transport.add_server_key(host_key)
        try:
            transport.start_server(threading.Event(), script.interface(transport))
            transport.join()
        finally:
            transport.close()
            with suppress(RuntimeError):
                transport.join(5)

    with hostile_port(serve) as port:
        known_hosts = directory / "known_hosts"
        key = f"{host_key.get_name()} {host_key.get_base64()}"
        known_hosts.write_text(f"[127.0.0.1]:{port} {key}\n")
        fields: dict[str, Any] = {
            "keyfile": str(generate_key(directory / "id")),
            "known_hosts": str(known_hosts),
            "config_file": None,
            "agent": False,
            "connect_timeout": PATIENCE,
            **defaults,
            **script.options,
        }
        yield SSHOptions(f"me@127.0.0.1:{port}", **fields)
