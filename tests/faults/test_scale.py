"""A thousand sockets over one connection, for little."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from tests.conftest import OwningContext
from tests.deadline import ending
from tests.faults.injection import (
    Relay,
    discard_answers,
    login_attempts,
    the_gateway,
    time_to_heal,
    time_until_nothing_is_left,
)
from tests.logins import arguments_for, options_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.gateway.traffic.servers import StreamServer

Figures = Callable[[str], None]
Remote = Callable[..., Peer]

TRIES = int(os.environ.get("TUNNELEDZMQ_REPEAT", "1"))
"""How often what adds up slowly is tried."""

SOCKETS = 1000

# A socket takes two in the program, with a tunnel as without (its mailbox and its connection), and
# two in the gateway (a listener and a connection); the server and the peer need one each.
DESCRIPTORS = 2

SPARE_DESCRIPTORS = 200


@pytest.fixture
def sockets() -> Iterator[int]:
    """Raises the limit of descriptors; tells how many sockets it allows, a thousand at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS * SOCKETS + SPARE_DESCRIPTORS
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield min(SOCKETS, (most - SPARE_DESCRIPTORS) // DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def own_server(sockets: int, need_sshd: None) -> Iterator[OpenSSHServer]:
    """An SSH server that has been started with the raised limit."""
    with OpenSSHServer() as server:
        yield server


def test_a_thousand_sockets(
    sockets: int,
    ctx: TunneledContext,
    own_server: OpenSSHServer,
    remote: Remote,
    figures: Figures,
) -> None:
    ctx.set(zmq.MAX_SOCKETS, sockets + 100)
    options = options_for(own_server)
    peer = remote("router")
    first = ctx.socket(zmq.DEALER)
    first.connect(peer.address, ssh=options)
    gateway = the_gateway()
    before = login_attempts(own_server)

    start = time.monotonic()
    socks = []
    for _ in range(sockets):
        sock = ctx.socket(zmq.DEALER)
        sock.connect(peer.address, ssh=options)
        socks.append(sock)
    rate = sockets / (time.monotonic() - start)

    for sock in socks:
        sock.send(b"hello")
    assert [sock.recv() for sock in socks] == [b"hello"] * sockets
    assert len(ctx.tunnels) == sockets + 1
    assert login_attempts(own_server) == before

    memory = gateway.memory_info().rss
    threads = gateway.num_threads()
    descriptors = gateway.num_fds()
    spent = sum(gateway.cpu_times()[:2])
    switches = gateway.num_ctx_switches().voluntary
    time.sleep(3)  # what it costs to have them lie there
    idle = (sum(gateway.cpu_times()[:2]) - spent) / 3
    switches = gateway.num_ctx_switches().voluntary - switches
    figures(
        f"{sockets} sockets, {rate:.0f} connects/s, gateway: {memory / 1e6:.0f} MB, "
        f"{threads} threads, {descriptors} descriptors; "
        f"idle: {idle:.2%} of a core, {switches} wake-ups in 3 s"
    )
    assert rate >= 50, "several hundred on a quiet machine"
    assert memory <= 40_000_000 + 60_000 * sockets
    assert threads <= 4
    assert descriptors > DESCRIPTORS * sockets  # of a thousand: more than select() can take
    assert idle <= 0.005
    round_trip(first)

    start = time.monotonic()
    ctx.destroy(linger=0)
    time_until_nothing_is_left(own_server, timeout=10)
    figures(f"nothing left {time.monotonic() - start:.2f} s after destroy()")


def test_a_program_out_of_descriptors_is_told_and_the_others_go_on(
    openssh: OpenSSHServer, echo: Peer, figures: Figures
) -> None:
    output = run_program(
        """
        import errno, os, resource
        with TunneledContext() as ctx:
            socks = []
            def connect():
                sock = ctx.socket(zmq.REQ)
                sock.linger = 0
                sock.rcvtimeo = 5000
                try:
                    sock.connect(addr, ssh=options)
                    sock.send(b"hello")
                    assert sock.recv() == b"hello"
                except BaseException:
                    sock.close()
                    raise
                socks.append(sock)
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            connect()
            try:
                while True:
                    connect()
            except zmq.ZMQError as exc:
                assert exc.errno == errno.EMFILE, exc
                assert os.strerror(errno.EMFILE) in str(exc), exc
            count = len(socks)
            for sock in socks:
                sock.send(b"hello")
                assert sock.recv() == b"hello"
            for sock in socks[10:]:
                sock.close()
            del socks[10:]
            import time
            deadline = time.monotonic() + 5
            while len(socks) < 15:
                try:
                    connect()
                except zmq.ZMQError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            print(count)
            for sock in socks:
                sock.close()
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    figures(f"{output.strip()} sockets with 100 descriptors")
    assert int(output) > 20
    time_until_nothing_is_left(openssh)


def test_descriptors_that_are_missing_for_a_connection_are_told(
    openssh_options: SSHOptions, echo: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_descriptors(server: StreamServer) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with ending(OwningContext(isolate=False)) as ctx, ctx.socket(zmq.REQ) as sock:
        monkeypatch.setattr(StreamServer, "get_request", out_of_descriptors)
        sock.connect(echo.address, ssh=openssh_options)
        [tunnel] = sock.tunnels
        wait_until(lambda: tunnel.last_error is not None)
        assert str(tunnel.last_error).endswith(
            "cannot accept a connection: Too many open files; raise the limit of open files "
            "(ulimit -n)"
        )
        monkeypatch.undo()
        round_trip(sock)


def test_no_descriptor_for_a_gateway_is_a_clear_error(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
        import errno, os, resource, signal
        signal.alarm(10)  # connect must not hang
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.rcvtimeo = 5000
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for spare in range(12):
                try:
                    sock.connect(addr, ssh=options)
                except TunnelError as exc:
                    if exc.errno != errno.EMFILE:
                        print(spare, type(exc), exc)
                except BaseException as exc:
                    print(spare, type(exc), exc)
                else:
                    break
                assert not sock.tunnels
                os.close(taken.pop())
            while taken:
                os.close(taken.pop())
            if not sock.tunnels:
                sock.connect(addr, ssh=options)
            sock.send(b"hello")
            print(sock.recv())
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "b'hello'\n"
    time_until_nothing_is_left(openssh)


@pytest.mark.timeout(60 + 30 * TRIES)
def test_a_gateway_that_dies_while_there_are_no_descriptors_is_replaced_later(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    output = run_program(
        """
        import errno, os, resource, signal, time
        def wait_until(holds):
            deadline = time.monotonic() + 10
            while not holds():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock, ctx.socket(zmq.REQ) as other:
            sock.rcvtimeo = 10_000
            sock.connect(addr, ssh=options)
            [tunnel] = sock.tunnels
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            os.kill(tunnel._handle.pid, signal.SIGKILL)
            wait_until(lambda: os.strerror(errno.EMFILE) in (tunnel.last_error or ""))
            print(tunnel.state)
            try:
                other.connect(addr, ssh=options)
            except GatewayError as exc:
                print(errno.errorcode[exc.errno], other.tunnels)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            sock.send(b"hello")
            print(sock.recv().decode(), tunnel.state, ctx.tunnels == [tunnel])
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.splitlines() == ["down", "EMFILE []", "hello up True"]
    time_until_nothing_is_left(openssh)


def test_sessions_that_have_ended_leave_no_memory(
    ctx: TunneledContext, openssh: OpenSSHServer, remote: Callable[..., Peer], figures: Figures
) -> None:
    count = 15 * TRIES
    with Relay(openssh) as relay:
        sock = ctx.socket(zmq.DEALER)
        sock.connect(remote("router").address, ssh=options_for(relay))
        [tunnel] = sock.tunnels
        gateway = the_gateway()

        def lose_sessions(count: int) -> None:
            for _ in range(count):
                before = tunnel.reconnects
                relay.cut_connections()
                wait_until(lambda before=before: tunnel.reconnects > before)  # type: ignore
                time_to_heal(sock)
                discard_answers(sock)

        time_to_heal(sock)
        lose_sessions(10)
        descriptors = gateway.num_fds()
        before = gateway.memory_info().rss
        lose_sessions(count)
        grown = gateway.memory_info().rss - before
        figures(f"{count} sessions lost, gateway {grown / 1e6:.1f} MB larger")
        assert grown < 5_000_000
        assert gateway.num_fds() <= descriptors + 2
        assert gateway.num_threads() <= 3
