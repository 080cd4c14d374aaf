"""Every public name of `tunneledzmq`, as users write it. Type checkers read it; nobody runs it."""

from __future__ import annotations

from typing import Any

import zmq
from typing_extensions import assert_type

import tunneledzmq
from tunneledzmq import (
    GatewayError,
    HostKeyChangedError,
    HostKeyError,
    SSHAuthenticationError,
    SSHConnectionError,
    SSHOptions,
    Tunnel,
    TunneledContext,
    TunneledSocket,
    TunnelError,
    TunnelStats,
    UnknownHostKeyError,
    install,
    uninstall,
)

ADDR = "tcp://10.0.1.2:5555"


def ask(text: str, echo: bool) -> str:
    return text if echo else ""


OPTIONS = SSHOptions(
    "me@bastion",
    keyfile=["~/.ssh/id_ed25519"],
    passphrase="secret",
    password=None,
    agent=False,
    jump=["first", SSHOptions("second")],
    config_file=None,
    known_hosts="~/.ssh/known_hosts",
    strict_host_key_checking="accept-new",
    compression=True,
    ciphers="aes128-gcm@openssh.com",
    connect_timeout=5,
    server_alive_interval=1.5,
    server_alive_count_max=2,
    prompt=ask,
    backend="sshtunnel",
    connections=2,
    persist=30,
)


def contexts(plain: zmq.Context[zmq.Socket[bytes]]) -> None:
    assert_type(TunneledContext(), TunneledContext)
    assert_type(TunneledContext(2, ssh="me@bastion", isolate=False), TunneledContext)
    assert_type(TunneledContext(plain), TunneledContext)
    assert_type(TunneledContext(shadow=plain, ssh=OPTIONS), TunneledContext)
    assert_type(TunneledContext.instance(), TunneledContext)
    assert_type(TunneledContext.shadow(plain), TunneledContext)
    with TunneledContext(ssh=["first", OPTIONS]) as ctx:
        assert_type(ctx, TunneledContext)
        assert_type(ctx.tunnels, list[Tunnel])
        assert_type(ctx.socket(zmq.REQ), TunneledSocket)
        assert_type(ctx.socket(zmq.REQ, socket_class=zmq.Socket), TunneledSocket)
    indexed: TunneledContext[Any] = ctx
    indexed.socket(zmq.REQ)
    ctx.destroy(linger=0)
    ctx.term()


def in_place_of_pyzmqs() -> None:
    install()
    install("me@bastion")
    install(ssh=["first", OPTIONS])
    uninstall()


def sockets(sock: TunneledSocket) -> None:
    with sock.connect(ADDR, ssh="me@bastion", local="tcp://127.0.0.1:*") as same:
        assert_type(same, TunneledSocket)
    sock.connect(ADDR)
    sock.connect(ADDR.encode(), None)
    sock.connect(ADDR, OPTIONS)
    sock.connect(ADDR, ssh=("first", "second"))
    assert_type(sock.recv(), bytes)
    assert_type(sock.recv_multipart(), list[bytes])
    assert_type(sock.tunnels, list[Tunnel])
    sock.disconnect(ADDR)
    sock.disconnect(ADDR.encode())
    sock.close(linger=0)


def tunnels(tunnel: Tunnel) -> None:
    assert_type(tunnel.remote, str)
    assert_type(tunnel.server, str)
    assert_type(tunnel.local, str)
    assert_type(tunnel.state, str)
    assert_type(tunnel.last_error, str | None)
    assert_type(tunnel.reconnects, int)
    stats = tunnel.stats()
    assert_type(stats, TunnelStats)
    assert_type(stats.bytes_sent + stats.bytes_received, int)
    assert_type(stats.connections_open + stats.connections_total, int)


def errors(sock: TunneledSocket) -> None:
    try:
        sock.connect(ADDR, ssh="me@bastion")
    except (UnknownHostKeyError, HostKeyChangedError) as exc:
        known: HostKeyError = exc
        print(known.strerror)
    except (SSHConnectionError, SSHAuthenticationError, GatewayError) as exc:
        general: TunnelError = exc
        print(general.errno)
    except TunnelError as exc:
        error: zmq.ZMQError = exc
        print(error)


def takes_a_context(ctx: zmq.Context[TunneledSocket], sock: zmq.Socket[bytes]) -> None:
    """As other libraries annotate their parameters."""


takes_a_context(TunneledContext(), TunneledContext().socket(zmq.REQ))
assert_type(tunneledzmq.__version__, str)
