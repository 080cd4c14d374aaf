"""What a socket shows of its tunnels, where their local legs are, and how they are undone."""

from __future__ import annotations

import errno
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.faults.injection import kill_gateway
from tests.logins import Server
from tests.peers import Peer, free_port, round_trip
from tests.polling import PATIENCE, wait_until
from tunneledzmq import SSHOptions, Tunnel, TunneledContext, TunneledSocket
from tunneledzmq.gateway.traffic import servers
from tunneledzmq.handles import handle
from tunneledzmq.shared.system import ports

pytestmark = pytest.mark.usefixtures("backend")

Remote = Callable[..., Peer]


def wait_until_closed(tunnel: Tunnel, sock: TunneledSocket) -> None:
    """Wait for the end of a tunnel whose address the socket has disconnected.

    libzmq gives the connection up at the program's next call into the socket.
    """
    wait_until(lambda: sock.get(zmq.EVENTS) >= 0 and tunnel.state == "closed")


def test_a_tunnel_shows_where_it_leads(
    ctx: TunneledContext, server: Server, options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    assert sock.tunnels == []
    sock.connect(echo.address, ssh=options)
    [tunnel] = sock.tunnels
    assert ctx.tunnels == [tunnel]
    assert tunnel.remote == echo.address
    assert tunnel.server == server.server
    assert tunnel.local == sock.last_endpoint.decode().rstrip("\0")
    assert tunnel.state == "up"
    assert tunnel.last_error is None
    assert tunnel.reconnects == 0
    sock.close()
    assert ctx.tunnels == []
    wait_until(lambda: tunnel.state == "closed")


def test_a_tunnel_counts_what_it_carries(
    any_ctx: TunneledContext, options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=options)
    for _ in range(10):
        round_trip(sock, b"x" * 10_000)
    stats = sock.tunnels[0].stats()
    assert 100_000 < stats.bytes_sent < 110_000
    assert 100_000 < stats.bytes_received < 110_000
    assert stats.connections_open == 1
    assert stats.connections_total == 1


def test_the_attributes_of_a_tunnel_are_read_only(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    [tunnel] = sock.tunnels
    for name in ("remote", "server", "local", "state", "last_error", "reconnects"):
        with pytest.raises(AttributeError):
            setattr(tunnel, name, "else")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Unix sockets in libzmq")
def test_by_default_only_the_user_reaches_the_local_leg(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    local = sock.tunnels[0].local
    assert local.startswith("ipc:///")
    leg = Path(local.removeprefix("ipc://"))
    assert leg.is_socket()
    assert stat.S_IMODE(leg.parent.stat().st_mode) == 0o700
    sock.close()
    wait_until(lambda: not leg.exists())


def test_the_local_leg_on_a_free_port(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options, local="tcp://127.0.0.1:*")
    round_trip(sock)
    host, _, port = sock.tunnels[0].local.rpartition(":")
    assert host == "tcp://127.0.0.1"
    assert int(port) > 0
    assert sock.last_endpoint.decode() == sock.tunnels[0].local


def test_the_local_leg_on_a_given_port(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    local = f"tcp://127.0.0.1:{free_port()}"
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options, local=local)
    round_trip(sock)
    assert sock.tunnels[0].local == local


def test_the_local_leg_at_a_given_path(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, tmp_path: Path
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options, local=f"ipc://{tmp_path}/leg")
    round_trip(sock)
    assert sock.tunnels[0].local == f"ipc://{tmp_path}/leg"
    sock.close()
    wait_until(lambda: not (tmp_path / "leg").exists())


def test_a_local_port_that_is_taken_is_an_error(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(zmq.ZMQError) as caught:
        sock.connect(echo.address, ssh=openssh_options, local=echo.address)
    assert caught.value.errno == zmq.EADDRINUSE
    assert echo.address.removeprefix("tcp://") in str(caught.value)
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)


def test_what_connect_returns_disconnects(
    any_ctx: TunneledContext, options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    with sock.connect(echo.address, ssh=options):
        [tunnel] = sock.tunnels
        round_trip(sock)
    assert sock.tunnels == []
    wait_until_closed(tunnel, sock)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["str", "bytes"])
@pytest.mark.parametrize("by", ["address", "last_endpoint"])
def test_disconnect_closes_the_tunnel(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, by: str, as_bytes: bool
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    [tunnel] = sock.tunnels
    addr = echo.address if by == "address" else sock.last_endpoint.decode()
    sock.disconnect(addr.encode() if as_bytes else addr)
    assert sock.tunnels == []
    wait_until_closed(tunnel, sock)


def test_bytes_and_str_name_the_same_address(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address.encode(), ssh=openssh_options)
    round_trip(sock)
    sock.disconnect(echo.address)
    assert sock.tunnels == []


def test_disconnect_leaves_the_other_tunnels(
    ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    kept, left = remote("collector"), remote("collector")
    sock = ctx.socket(zmq.PUSH)
    for collector in (kept, left):
        sock.connect(collector.address, ssh=openssh_options)
    sock.disconnect(left.address)
    assert [tunnel.remote for tunnel in sock.tunnels] == [kept.address]
    for _ in range(10):
        sock.send(b"x")
    kept.wait_for(messages=10)


@pytest.mark.parametrize("by", ["address", "last_endpoint"])
def test_a_tunnel_that_has_ended_by_itself_can_be_disconnected(
    by: str,
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    echo: Peer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To libzmq it is an endpoint as any other, which would get its share of the messages."""
    monkeypatch.setattr(handle, "_MAX_DEATHS", 0)
    sock = ctx.socket(zmq.DEALER)
    sock.connect(echo.address, ssh=openssh_options)
    [tunnel] = sock.tunnels
    kill_gateway()
    wait_until(lambda: tunnel.state == "closed")
    assert sock.tunnels == []
    sock.disconnect(echo.address if by == "address" else sock.last_endpoint)
    with pytest.raises(zmq.ZMQError):
        sock.disconnect(tunnel.local)
    sock.connect(echo.address, ssh=openssh_options)
    for _ in range(2):
        sock.send_multipart([b"", b"hello"])
        assert sock.recv_multipart() == [b"", b"hello"]


def test_a_socket_may_connect_again(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    sock = ctx.socket(zmq.REQ)
    for _ in range(3):
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        sock.disconnect(echo.address)


def test_disconnecting_what_is_not_connected_is_an_error_as_in_pyzmq(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    with pytest.raises(zmq.ZMQError) as caught:
        sock.disconnect("tcp://127.0.0.1:1")
    assert caught.value.errno == errno.ENOENT
    round_trip(sock)


def test_binding_and_direct_connections_work_as_ever(ctx: TunneledContext) -> None:
    one, other = ctx.socket(zmq.PAIR), ctx.socket(zmq.PAIR)
    port = one.bind_to_random_port("tcp://127.0.0.1")
    with other.connect(f"tcp://127.0.0.1:{port}"):
        other.send(b"hello")
        assert one.recv() == b"hello"
    one.unbind(f"tcp://127.0.0.1:{port}")
    assert ctx.tunnels == []


def test_a_context_may_have_a_local_leg_for_all(
    openssh_options: SSHOptions, echo: Peer, tmp_path: Path
) -> None:
    with TunneledContext(local="tcp://127.0.0.1:*") as context:
        copied = context.__copy__()
        for maker in (context, copied, TunneledContext.shadow(context)):
            with maker.socket(zmq.REQ) as sock:
                sock.connect(echo.address, ssh=openssh_options)
                assert sock.tunnels[0].local.startswith("tcp://127.0.0.1:")
                round_trip(sock)
        with context.socket(zmq.REQ) as sock:
            sock.connect(echo.address, ssh=openssh_options, local=f"ipc://{tmp_path}/leg")
            assert sock.tunnels[0].local == f"ipc://{tmp_path}/leg"
        with context.socket(zmq.REQ) as sock:
            sock.connect(echo.address)  # directly: there is no local leg
            assert sock.last_endpoint.decode().rstrip("\0") == echo.address
            round_trip(sock)


@pytest.mark.parametrize("local", ["tcp://0.0.0.0:*", "nonsense", "ipc://relative", 7])
def test_a_malformed_local_leg_of_a_context(local: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="local"):
        TunneledContext(local=local)


def test_a_tcp_port_of_a_local_leg_is_kept_while_the_peer_is_down(
    ctx: TunneledContext, openssh_options: SSHOptions, remote: Callable[..., Peer]
) -> None:
    port = free_port()
    sock = ctx.socket(zmq.DEALER)
    sock.connect(f"tcp://127.0.0.1:{port}", ssh=openssh_options, local="tcp://127.0.0.1:*")
    [tunnel] = sock.tunnels
    wait_until(lambda: tunnel.last_error)
    taken = int(tunnel.local.rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", taken))
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.1", taken))
    for _ in range(3):
        with remote("router", port=port):
            round_trip(sock)
        wait_until(lambda: tunnel.stats().connections_open == 0)


def test_a_tcp_port_that_cannot_be_kept_at_once_is_kept_soon(
    openssh_options: SSHOptions, remote: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where the program may have the listener for a moment longer."""
    tries = []

    def claim_port(address: tuple[str, int]) -> socket.socket:
        tries.append(address)
        if len(tries) == 1:
            raise OSError
        return ports.claim_port(address)

    def fail(listener: socket.socket) -> socket.socket:
        raise OSError

    with TunneledContext(isolate=False) as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.rcvtimeo = 10_000 * PATIENCE
        with remote("router") as peer:
            sock.connect(peer.address, ssh=openssh_options, local="tcp://127.0.0.1:*")
            round_trip(sock)
            monkeypatch.setattr(servers, "stop_listening", fail)
            monkeypatch.setattr(servers, "claim_port", claim_port)
        wait_until(lambda: len(tries) == 2, timeout=3)
        monkeypatch.undo()
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(tries[0])
        with remote("router", port=peer.port):
            round_trip(sock)
        assert sock.tunnels[0].local == "tcp://{}:{}".format(*tries[0])
