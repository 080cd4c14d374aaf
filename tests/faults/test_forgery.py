"""A server that speaks as if it were ssh: it is quoted at most, and never believed."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest
import zmq

from tests.faults.injection import hostile_port
from tests.logins import entry_for
from tests.polling import wait_until
from tests.sshd import OpenSSHServer, generate_key
from tunneledzmq import (
    SSHAuthenticationError,
    SSHConnectionError,
    SSHOptions,
    TunneledContext,
    TunnelError,
)
from tunneledzmq.gateway.login import Login
from tunneledzmq.gateway.openssh.errors import login_error
from tunneledzmq.gateway.openssh.process import MasterProcess
from tunneledzmq.gateway.openssh.said import Said

pytestmark = pytest.mark.usefixtures("backend")

AT_SIGNS = "@" * 59
UNKNOWN = (
    "No ED25519 host key is known for evil.example;touch$IFS$()pwned and you have requested strict "
    "checking."
)
FORGERIES = {
    "unknown": [UNKNOWN, "Host key verification failed."],
    "changed": [
        AT_SIGNS,
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
        AT_SIGNS,
        "Offending ED25519 key in /etc/passwd:1",
        "  remove with:",
        '  ssh-keygen -f "/etc/passwd" -R "$(touch pwned)"',
        "Host key verification failed.",
    ],
    "revoked": [
        "@       WARNING: REVOKED HOST KEY DETECTED!               @",
        "Host key verification failed.",
    ],
    "no name": ["ssh: Could not resolve hostname evil.example: touch pwned"],
    "open key": ["Permissions 0644 for '/etc/shadow; touch pwned' are too open."],
}
"""What ssh would say itself."""


@pytest.fixture(params=FORGERIES)
def forgery(request: pytest.FixtureRequest) -> list[str]:
    return FORGERIES[request.param]


def assert_believed_nothing(error: TunnelError) -> None:
    text = str(error)
    assert isinstance(error, (SSHConnectionError, SSHAuthenticationError)), text
    assert "ssh-keyscan" not in text
    assert "the name was not found" not in text
    assert "chmod" not in text
    assert "pwned" not in text


# In plain text, before any key is exchanged


def packet(kind: int, *fields: int | bytes | bool) -> bytes:
    """Return a packet that is not encrypted (RFC 4253, section 6)."""
    payload = bytes([kind])
    for field in fields:
        if isinstance(field, bool):
            payload += bytes([field])
        elif isinstance(field, int):
            payload += struct.pack(">I", field)
        else:
            payload += struct.pack(">I", len(field)) + field
    padding = 16 - (len(payload) + 5) % 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def disconnect(text: bytes) -> bytes:
    return packet(1, 2, text, b"")


def debug(text: bytes) -> bytes:
    return packet(4, True, text, b"")


def offer(host_keys: bytes) -> bytes:
    """Return a KEXINIT (RFC 4253, section 7.1), of which the cookie is empty numbers."""
    both = [b"aes128-ctr", b"aes128-ctr", b"hmac-sha2-256", b"hmac-sha2-256", b"none", b"none"]
    names = [b"curve25519-sha256", host_keys, *both, b"", b""]
    return packet(20, *[0] * 4, *names, False, 0)


@contextmanager
def saying(backend: str, *packets: bytes) -> Iterator[SSHOptions]:
    """A server that says its name and `packets`, and hangs up."""

    def behave(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-OpenSSH_9.9\r\n" + b"".join(packets))
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)
        while sock.recv(4096):
            pass

    with hostile_port(behave) as port:
        yield SSHOptions(
            f"me@127.0.0.1:{port}",
            config_file=None,
            agent=False,
            known_hosts="/dev/null",
            connect_timeout=5,
            backend=backend,
        )


def error_of(ctx: TunneledContext, options: SSHOptions) -> TunnelError:
    with ctx.socket(zmq.REQ) as sock, pytest.raises(TunnelError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=options)
    return caught.value


@pytest.mark.parametrize("way", [disconnect, debug, offer])
def test_what_a_server_says_before_it_is_known(
    ctx: TunneledContext, forgery: list[str], way: Callable[[bytes], bytes], backend: str
) -> None:
    text = "\n".join(["x", *forgery, ""]).encode()
    with saying(backend, way(text), disconnect(b"bye")) as options:
        assert_believed_nothing(error_of(ctx, options))


# In banners, when it is known


class Refusing(paramiko.ServerInterface):
    """Shows a banner, and lets nobody in."""

    def __init__(self, banner: str) -> None:
        self._banner = banner

    def get_banner(self) -> tuple[str, str]:
        return self._banner, "en"

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


@contextmanager
def welcoming(backend: str, banner: str, directory: Path) -> Iterator[SSHOptions]:
    key = paramiko.ECDSAKey.generate()

    def behave(sock: socket.socket) -> None:
        transport = paramiko.Transport(sock)
        transport.handshake_timeout = 5
        transport.add_server_key(key)
        try:
            transport.start_server(threading.Event(), Refusing(banner))
            while transport.is_active():
                transport.join(0.1)
        finally:
            transport.close()
            transport.join(5)

    with hostile_port(behave) as port:
        known_hosts = directory / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
        yield SSHOptions(
            f"me@127.0.0.1:{port}",
            config_file=None,
            agent=False,
            keyfile=str(generate_key(directory / "id")),
            known_hosts=str(known_hosts),
            connect_timeout=5,
            backend=backend,
        )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("prefix", ["", "debug1: "])
def test_a_banner(
    ctx: TunneledContext, forgery: list[str], end: str, prefix: str, backend: str, tmp_path: Path
) -> None:
    banner = end.join([*(prefix + line for line in forgery), ""])
    with welcoming(backend, banner, tmp_path) as options:
        error = error_of(ctx, options)
    assert isinstance(error, SSHAuthenticationError)
    assert_believed_nothing(error)


@pytest.mark.skipif(sys.platform != "linux", reason="it takes pipes that keep writes apart")
def test_a_banner_without_an_end_hides_nothing_of_what_ssh_says() -> None:
    script = r"printf 'Hello\nthere' >&2; printf 'Authenticated to x\r\n' >&2"
    process = MasterProcess(["sh", "-c", script], os.environ)
    said = Said()
    try:
        wait_until(lambda: not process.read_stderr(said))
    finally:
        process.end()
    assert said.authenticated
    assert list(said.lines) == ["Hello", "there", "Authenticated to x"]


def test_the_banner_of_a_hop(
    ctx: TunneledContext,
    forgery: list[str],
    config: Callable[..., Path],
    backend: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "banner").write_text("\n".join([*forgery, ""]))
    with (
        OpenSSHServer(Banner=str(tmp_path / "banner")) as hop,
        OpenSSHServer() as server,
    ):
        stranger = generate_key(tmp_path / "stranger")
        config(
            entry_for("name", server, "ProxyJump hop").replace(server.keyfile, str(stranger)),
            entry_for("hop", hop),
        )
        error = error_of(ctx, SSHOptions("name", backend=backend))
        assert hop.logins() == 1
    assert isinstance(error, SSHAuthenticationError)
    assert_believed_nothing(error)


def test_a_hop_that_opens_no_channel(forgery: list[str]) -> None:
    login = Login(server="me@name:22", host="name", port=22, user="me")
    said = Said()
    # Of a hop there are lines, which do not tell who began them.
    for line in ["channel 0: open failed: connect failed: x", *forgery]:
        said.add(line.encode())
    error = login_error(login, Said(), [said], [], told=False)
    assert error.kind == "SSHConnectionError"
    assert error.message == "me@name:22: its hop cannot connect to it: connect failed: x"
