"""Servers behind servers: each hop is proved and asked by itself, and sessions are shared."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import psutil
import pytest
import zmq

import tunneledzmq.asyncio
from tests.logins import options_for
from tests.peers import Peer, free_port, numbered, round_trip
from tests.polling import wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer, generate_key
from tests.strangers import SilentPort
from tunneledzmq import (
    SSHAuthenticationError,
    SSHConnectionError,
    SSHOptions,
    TunneledContext,
    TunnelError,
    UnknownHostKeyError,
)

Gateways = Callable[[], set[psutil.Process]]
Remote = Callable[..., Peer]


@pytest.fixture(scope="module")
def chain(need_sshd: None) -> Iterator[list[OpenSSHServer]]:
    """Three servers with keys of their own; the tests leave them running."""
    with ExitStack() as servers:
        yield [servers.enter_context(OpenSSHServer()) for _ in range(3)]


@pytest.fixture
def hops(chain: list[OpenSSHServer]) -> list[SSHOptions]:
    """Options for each of the servers, by themselves."""
    return [options_for(server) for server in chain]


def test_messages_go_over_three_servers_in_a_row(
    any_ctx: TunneledContext, hops: list[SSHOptions], chain: list[OpenSSHServer], echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=hops)
    round_trip(sock)
    [tunnel] = sock.tunnels
    assert tunnel.server == chain[-1].server
    assert any_ctx.tunnels == [tunnel]  # the hops' own tunnels are not the program's


def test_jump_is_the_same_as_a_sequence(
    ctx: TunneledContext, hops: list[SSHOptions], echo: Peer, gateways: Gateways
) -> None:
    for ssh in (hops, replace(hops[2], jump=hops[:2]), [hops[0], replace(hops[2], jump=hops[1])]):
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=ssh)
        round_trip(sock)
        assert len(gateways()) == 3


def test_the_session_with_a_bastion_is_shared(
    ctx: TunneledContext, hops: list[SSHOptions], chain: list[OpenSSHServer], echo: Peer
) -> None:
    before = chain[0].logins()
    for ssh in (hops[0], hops[:2], [hops[0], hops[2]]):
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=ssh)
        round_trip(sock)
    assert chain[0].logins() == before + 1


def test_nothing_is_left_after_close(
    ctx: TunneledContext, hops: list[SSHOptions], echo: Peer, gateways: Gateways
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=hops)
    assert len(gateways()) == 3
    sock.close()
    wait_until(lambda: not gateways(), timeout=3)


def test_no_gateway_waits_for_one_that_has_ended(
    ctx: TunneledContext, hops: list[SSHOptions], echo: Peer, gateways: Gateways
) -> None:
    def seconds_to_end() -> float:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=hops)
        round_trip(sock)
        start = time.monotonic()
        sock.close()
        wait_until(lambda: not gateways(), timeout=3)
        return time.monotonic() - start

    # Each of the two would wait for half a second, as for a libzmq that may come back.
    assert min(seconds_to_end() for _ in range(3)) < 0.8


def test_pending_messages_survive_close_and_term(hops: list[SSHOptions], remote: Remote) -> None:
    sink = remote("collector")
    with TunneledContext() as ctx, ctx.socket(zmq.PUSH) as sock:
        sock.connect(sink.address, ssh=hops)
        for number in range(2000):
            sock.send(numbered(number, size=10_000))
    sink.wait_for(messages=2000)


def test_pending_messages_survive_the_end_of_the_program(
    hops: list[SSHOptions], remote: Remote, gateways: Gateways
) -> None:
    sink = remote("collector")
    run_program(
        f"""
        ctx = TunneledContext()
        sock = ctx.socket(zmq.PUSH)
        sock.connect({sink.address!r}, ssh={hops!r})
        for number in range(500):
            sock.send(number.to_bytes(8, "big") + bytes(9_992))
        sock.close()
        ctx.term()
        """
    )
    sink.wait_for(messages=500)
    wait_until(lambda: not gateways(), timeout=3)


def test_nothing_is_left_after_the_program_is_killed(
    hops: list[SSHOptions], echo: Peer, gateways: Gateways
) -> None:
    with start_program(
        f"""
        ctx = TunneledContext()
        sock = ctx.socket(zmq.DEALER)
        sock.connect({echo.address!r}, ssh={hops!r})
        print("up", flush=True)
        sock.recv()
        """
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == "up\n"
        assert len(gateways()) == 3
        program.kill()
    wait_until(lambda: not gateways(), timeout=5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_all_that_hangs_on_a_lost_session_heals(
    ctx: TunneledContext,
    hops: list[SSHOptions],
    chain: list[OpenSSHServer],
    remote: Remote,
    which: int,
) -> None:
    router = remote("router")
    sock = ctx.socket(zmq.DEALER)
    sock.connect(router.address, ssh=hops)
    round_trip(sock)
    chain[which].kill_sessions()
    [tunnel] = sock.tunnels
    wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up", timeout=10)
    round_trip(sock)


def test_a_killed_gateway_of_a_hop_is_restarted(
    ctx: TunneledContext, hops: list[SSHOptions], echo: Peer, gateways: Gateways
) -> None:
    first = ctx.socket(zmq.REQ)
    first.connect(echo.address, ssh=hops[:1])
    [bastion] = gateways()
    sock = ctx.socket(zmq.DEALER)
    sock.connect(echo.address, ssh=hops)
    bastion.kill()
    [tunnel] = sock.tunnels
    wait_until(lambda: tunnel.reconnects >= 1 and tunnel.state == "up", timeout=10)
    sock.send_multipart([b"", b"hello"])
    assert sock.recv_multipart() == [b"", b"hello"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_unknown_host_key_names_its_hop(
    ctx: TunneledContext,
    hops: list[SSHOptions],
    chain: list[OpenSSHServer],
    which: int,
    gateways: Gateways,
) -> None:
    hops[which] = replace(hops[which], known_hosts=os.devnull)
    with pytest.raises(UnknownHostKeyError) as caught:
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=hops)
    text = str(caught.value)
    assert f"{chain[which].server}: the host key" in text
    assert text.count("hop ") == 2 - which
    wait_until(lambda: not gateways(), timeout=3)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_refused_login_names_its_hop(
    ctx: TunneledContext,
    hops: list[SSHOptions],
    chain: list[OpenSSHServer],
    which: int,
    tmp_path: Any,
) -> None:
    hops[which] = replace(hops[which], keyfile=generate_key(tmp_path / "id"))
    with pytest.raises(SSHAuthenticationError, match=f"{chain[which].port}: the server did not"):
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=hops)


def test_a_server_that_the_hop_does_not_reach(
    ctx: TunneledContext, hops: list[SSHOptions], chain: list[OpenSSHServer]
) -> None:
    nowhere = replace(hops[1], server=f"me@127.0.0.1:{free_port()}")
    with pytest.raises(SSHConnectionError) as caught:
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=[hops[0], nowhere])
    assert caught.value.errno == errno.EHOSTUNREACH
    assert f"{nowhere.server}: hop {chain[0].server}: " in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_a_hop_that_forbids_forwarding(ctx: TunneledContext, hops: list[SSHOptions]) -> None:
    with (
        OpenSSHServer(AllowTcpForwarding="no") as strict,
        pytest.raises(SSHConnectionError, match="forbids forwarding"),
    ):
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=[options_for(strict), hops[0]])


def test_a_hop_that_says_nothing_is_given_up_in_time(
    ctx: TunneledContext, hops: list[SSHOptions]
) -> None:
    with SilentPort() as silent:
        start = time.monotonic()
        with pytest.raises(SSHConnectionError, match="hop me@") as caught:
            ctx.socket(zmq.REQ).connect(
                "tcp://127.0.0.1:1",
                ssh=[SSHOptions(f"me@127.0.0.1:{silent.port}", connect_timeout=1), hops[0]],
            )
        assert caught.value.errno == errno.ETIMEDOUT
        assert time.monotonic() - start < 5


def test_a_hop_that_comes_to_refuse_us_is_not_asked_until_the_program_connects_anew(
    ctx: TunneledContext, echo: Peer, chain: list[OpenSSHServer], hops: list[SSHOptions]
) -> None:
    with OpenSSHServer() as bastion:
        ssh = [options_for(bastion), hops[0]]
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=ssh)
        with open(bastion.authorized_keys, "w"):
            pass
        bastion.kill_sessions()
        [tunnel] = sock.tunnels
        wait_until(lambda: "Connection closed by authenticating" in bastion.log(), timeout=5)
        refusals = bastion.log().count("Connection closed by authenticating")
        with pytest.raises(SSHAuthenticationError, match="hop "):
            ctx.socket(zmq.REQ).connect(echo.address, ssh=ssh)
        assert tunnel.state == "down"
        assert bastion.log().count("Connection closed by authenticating") <= refusals + 1
        bastion.authorize(bastion.keyfile)
        other = ctx.socket(zmq.REQ)
        other.connect(echo.address, ssh=ssh)
        round_trip(other)
        wait_until(lambda: tunnel.state == "up")


def test_a_hop_given_as_a_string_takes_all_but_the_secrets() -> None:
    options = SSHOptions(
        "me@inner",
        jump="bastion,you@second:2222",
        keyfile="key",
        password="secret",
        passphrase="secret",
        known_hosts="hosts",
        connect_timeout=3,
    )
    hop = options.hop
    assert hop is not None
    assert hop == SSHOptions(
        "you@second:2222",
        jump=SSHOptions("bastion", keyfile="key", known_hosts="hosts", connect_timeout=3),
        keyfile="key",
        known_hosts="hosts",
        connect_timeout=3,
    )
    assert hop.hop is not None
    assert hop.hop.hop is None


def test_options_as_hops_keep_what_they_say() -> None:
    first, second = SSHOptions("a", password="x"), SSHOptions("b", jump="c")
    hop = SSHOptions("inner", jump=(first, second)).hop
    assert hop == SSHOptions("b", jump=(first, "c"))


@pytest.mark.parametrize("jump", ["", ",", "a,", "-oProxyCommand=x", [""], "none,a", "a b"])
def test_a_malformed_jump(jump: Any) -> None:
    with pytest.raises(ValueError, match=r"ssh=|jump="):
        SSHOptions("me@inner", jump=jump)


@pytest.mark.parametrize("jump", [22, b"a", [22], [b"a"], {"a"}])
def test_a_jump_of_another_type(jump: Any) -> None:
    with pytest.raises(TypeError):
        SSHOptions("me@inner", jump=jump)


def test_threads_that_connect_at_once_dial_each_hop_once(
    ctx: TunneledContext, hops: list[SSHOptions], chain: list[OpenSSHServer], echo: Peer
) -> None:
    before = [server.logins() for server in chain]
    failures: list[TunnelError] = []

    def connect() -> None:
        sock = ctx.socket(zmq.REQ)
        try:
            sock.connect(echo.address, ssh=hops)
            round_trip(sock)
        except TunnelError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=connect) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [server.logins() for server in chain] == [count + 1 for count in before]


def test_a_connect_that_is_given_up_gives_up_its_hop(
    hops: list[SSHOptions], gateways: Gateways
) -> None:
    with SilentPort() as silent:
        ssh = [SSHOptions(f"me@127.0.0.1:{silent.port}", connect_timeout=30), hops[0]]

        async def give_up() -> None:
            with tunneledzmq.asyncio.TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
                connecting = sock.connect("tcp://127.0.0.1:1", ssh=ssh)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(connecting, 1)

        asyncio.run(give_up())
        wait_until(lambda: not gateways(), timeout=3)
