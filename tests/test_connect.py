"""Sockets talk to peers that only an SSH server reaches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.deadline import ending
from tests.logins import options_for
from tests.peers import Peer, free_port, numbered, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket
from tunneledzmq.shared.system.leg import HAS_UNIX_SOCKETS

pytestmark = pytest.mark.usefixtures("backend")

Remote = Callable[..., Peer]


def test_request_and_reply(any_ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=options)
    for number in range(100):
        round_trip(sock, b"%d" % number)


def test_push_to_a_remote_pull(
    any_ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    collector = remote("collector")
    sock = any_ctx.socket(zmq.PUSH)
    sock.connect(collector.address, ssh=options)
    for number in range(1000):
        sock.send(numbered(number, 1000))
    assert collector.wait_for(messages=1000)["bytes"] == 1_000_000
    assert collector.report()["gaps"] == 0


def test_pull_from_a_remote_push(
    any_ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    source = remote("source")
    sock = any_ctx.socket(zmq.PULL)
    sock.connect(source.address, ssh=options)
    source.send(1000, size=1000)
    for number in range(1000):
        assert sock.recv() == numbered(number, 1000)


def test_dealer_and_router(any_ctx: TunneledContext, options: SSHOptions, remote: Remote) -> None:
    sock = any_ctx.socket(zmq.DEALER)
    sock.connect(remote("router").address, ssh=options)
    messages = [[b"%d" % number, b"", b"x" * number] for number in range(100)]
    for message in messages:
        sock.send_multipart(message)
    assert [sock.recv_multipart() for _ in messages] == messages


def test_publish_and_subscribe(
    any_ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    publisher = remote("publisher")
    sock = any_ctx.socket(zmq.SUB)
    sock.subscribe("wanted")
    sock.connect(publisher.address, ssh=options)
    publisher.wait_for(subscriptions=1)
    publisher.send(3, topic="unwanted")
    publisher.send(3, topic="wanted")
    assert [sock.recv() for _ in range(3)] == [b"wanted" + numbered(n) for n in range(3)]


def test_a_message_of_64_megabytes(
    ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    message = bytes(range(256)) * 4096 * 64
    sock = ctx.socket(zmq.REQ)
    sock.connect(remote("echo").address, ssh=options)
    round_trip(sock, message)


def test_multipart_messages_keep_their_frames(
    ctx: TunneledContext, options: SSHOptions, echo: Peer
) -> None:
    frames = [b"", b"a", b"b" * 100_000, b"", *[b"%d" % number for number in range(1000)]]
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=options)
    sock.send_multipart(frames)
    assert sock.recv_multipart() == frames


def test_a_peer_on_ipv6(ctx: TunneledContext, options: SSHOptions, remote: Remote) -> None:
    peer = remote("echo", host="[::1]")
    sock = ctx.socket(zmq.REQ)
    sock.connect(f"tcp://[::1]:{peer.port}", ssh=options)
    round_trip(sock)
    assert sock.tunnels[0].remote == f"tcp://[::1]:{peer.port}"


def test_a_peer_by_its_name_over_there(
    ctx: TunneledContext, options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(f"tcp://localhost:{echo.port}", ssh=options)
    round_trip(sock)


def test_the_default_of_the_context_applies_to_tcp(openssh_options: SSHOptions, echo: Peer) -> None:
    with TunneledContext(ssh=openssh_options) as ctx, ctx.socket(zmq.REQ) as sock:
        sock.rcvtimeo = 10_000
        sock.connect(echo.address)
        round_trip(sock)
        assert [tunnel.remote for tunnel in ctx.tunnels] == [echo.address]


@pytest.mark.parametrize("transport", ["inproc", *(["ipc"] if HAS_UNIX_SOCKETS else [])])
def test_the_default_of_the_context_leaves_other_transports_alone(
    transport: str, openssh_options: SSHOptions, tmp_path: Path
) -> None:
    addr = f"{transport}://{tmp_path / 'x'}"
    with (
        TunneledContext(ssh=openssh_options) as ctx,
        ctx.socket(zmq.PAIR) as one,
        ctx.socket(zmq.PAIR) as other,
    ):
        other.rcvtimeo = 10_000
        one.bind(addr)
        other.connect(addr)
        one.send(b"hello")
        assert other.recv() == b"hello"
        assert ctx.tunnels == []


def test_ssh_none_connects_directly(openssh_options: SSHOptions, echo: Peer) -> None:
    with TunneledContext(ssh=openssh_options) as ctx, ctx.socket(zmq.REQ) as sock:
        sock.rcvtimeo = 10_000
        sock.connect(echo.address, ssh=None)
        round_trip(sock)
        assert sock.tunnels == []
        assert sock.last_endpoint.decode() == echo.address


def test_a_peer_that_binds_later_gets_what_was_sent_before(
    ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    port = free_port()
    sock = ctx.socket(zmq.PUSH)
    sock.connect(f"tcp://127.0.0.1:{port}", ssh=options)
    for number in range(100):
        sock.send(numbered(number))
    report = remote("collector", port=port).wait_for(messages=100)
    assert report["gaps"] == 0


def test_a_socket_connects_to_several_peers(
    ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    collectors = [remote("collector") for _ in range(3)]
    sock = ctx.socket(zmq.PUSH)
    for collector in collectors:
        sock.connect(collector.address, ssh=options)
    assert [tunnel.remote for tunnel in sock.tunnels] == [peer.address for peer in collectors]

    def each_got_some() -> bool:
        sock.send(b"x")
        return all(collector.report()["messages"] for collector in collectors)

    wait_until(each_got_some)


def test_five_sockets_share_one_login(
    any_ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = openssh.logins()
    socks = [any_ctx.socket(zmq.REQ) for _ in range(5)]
    for sock in socks:
        sock.connect(echo.address, ssh=openssh_options)
    for sock in socks:
        round_trip(sock)
    assert openssh.logins() - before == 1
    assert len(any_ctx.tunnels) == 5


def test_connects_from_ten_threads_log_in_once(
    any_ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = openssh.logins()
    barrier = threading.Barrier(10)
    answered = []

    def connect() -> None:
        with any_ctx.socket(zmq.REQ) as sock:
            barrier.wait()
            sock.connect(echo.address, ssh=openssh_options)
            round_trip(sock)
            answered.append(sock)
            barrier.wait()

    threads = [threading.Thread(target=connect) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 10
    assert openssh.logins() - before == 1


@pytest.mark.parametrize(
    ("fields", "logins"),
    [({}, 1), ({"compression": True}, 2), ({"server_alive_interval": 7}, 2)],
    ids=["equal", "compression", "server_alive_interval"],
)
def test_equal_options_share_a_session_and_different_ones_do_not(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    fields: dict[str, Any],
    logins: int,
) -> None:
    before = openssh.logins()
    for options in (options_for(openssh), options_for(openssh, **fields)):
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
    assert openssh.logins() - before == logins


def test_a_server_may_be_given_any_time(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    year = 365 * 86_400
    options = options_for(
        openssh, connect_timeout=year, server_alive_interval=year, server_alive_count_max=1000
    )
    sock.connect(echo.address, ssh=options)
    round_trip(sock)
    assert sock.tunnels[0].reconnects == 0


def test_a_shadow_of_a_socket_has_the_default_of_its_context(
    options: SSHOptions, echo: Peer
) -> None:
    with (
        ending(TunneledContext(ssh=options)) as context,
        TunneledSocket.shadow(context.socket(zmq.REQ)) as shadow,
    ):
        shadow.linger = 0
        shadow.rcvtimeo = 10_000
        shadow.connect(echo.address)
        round_trip(shadow)
        assert [tunnel.remote for tunnel in shadow.tunnels] == [echo.address]
