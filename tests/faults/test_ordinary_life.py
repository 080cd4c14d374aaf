"""Slow readers, peers that end, programs that stand still, directories that are cleaned away."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import zmq

import tunneledzmq.asyncio
from tests.closing_server import ClosingServer
from tests.draining import (
    SIZE,
    drained,
    draining_program,
    left_of_connection,
    lost_with_a_session,
    slow_pull,
)
from tests.faults.injection import (
    Relay,
    hostile_port,
    kill_gateway,
    kill_session,
    stopped,
    wait_until_blocked,
)
from tests.logins import Server, arguments_for, options_for
from tests.peers import Peer, arrived, free_port, round_trip, sending_and_ending
from tests.polling import PATIENCE, wait_until
from tests.programs import ObedientProgram
from tests.sshd import OpenSSHServer
from tests.stepping import interrupted_at_line
from tests.test_proxy_command import NETCAT
from tunneledzmq import SSHConnectionError, SSHOptions, Tunnel, TunneledContext

both_backends = pytest.mark.usefixtures("backend")

Figures = Callable[[str], None]
Remote = Callable[..., Peer]

TRIES = int(os.environ.get("TUNNELEDZMQ_REPEAT", "1"))
"""How often what is only lost now and then is tried."""


@pytest.fixture(scope="module")
def closing_server() -> Iterator[ClosingServer]:
    """A server that closes a channel as soon as the peer has ended."""
    with ClosingServer() as server:
        yield server


@pytest.fixture(scope="module", params=["waits for our end", "closes first"])
def near_the_peer(request: pytest.FixtureRequest) -> Server:
    """Servers that differ in how they end a channel when the peer has ended."""
    name = "openssh" if request.param == "waits for our end" else "closing_server"
    server: Server = request.getfixturevalue(name)
    return server


@both_backends
def test_what_a_peer_sent_before_it_ended_arrives(
    ctx: TunneledContext, near_the_peer: Server, figures: Figures
) -> None:
    count = 3000
    with sending_and_ending(count, SIZE) as (address, _):
        sock = ctx.socket(zmq.PULL)
        sock.rcvhwm = 3
        sock.connect(address, ssh=options_for(near_the_peer))
        numbers = arrived(sock, last=count - 1, timeout=10, pause=0.001)
    figures(f"{len(numbers)} of {count} arrived")
    assert numbers == list(range(count))


@both_backends
def test_what_has_come_for_a_slow_reader_survives_its_session(
    ctx: TunneledContext, near_the_peer: Server, figures: Figures
) -> None:
    count = 150
    with Relay(near_the_peer) as relay, sending_and_ending(count, SIZE) as (address, peer):
        sock = ctx.socket(zmq.PULL)
        sock.rcvhwm = 3
        sock.connect(address, ssh=options_for(relay))
        [tunnel] = sock.tunnels
        peer.join()
        wait_until(lambda: tunnel.stats().bytes_received > count * SIZE)
        relay.cut_connections()
        wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up")
        numbers = arrived(sock, last=count - 1, timeout=5)
        sock.close()
    figures(f"{len(numbers)} of {count} arrived")
    assert numbers == list(range(count))


@both_backends
@pytest.mark.timeout(60 + 10 * TRIES)
@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_a_drain_waits_for_a_program_that_stands_still(
    isolate: bool, openssh: OpenSSHServer, figures: Figures
) -> None:
    count, lost = 4000, 0
    for _ in range(TRIES):
        with (
            slow_pull() as pull,
            pull.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor,
            draining_program(openssh, pull, count, isolate=isolate) as program,
        ):
            wait_until_blocked(program)
            with stopped(psutil.Process(program.pid)):
                kill_session(openssh)
                numbers = left_of_connection(pull, monitor)
            numbers += drained(pull, last=count - 1)
            lost += lost_with_a_session(numbers, count)
            program.finish(30)
    figures(f"{lost} of {TRIES} x {count} lost with the killed sessions, none after them")


@both_backends
@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_the_directory_of_the_local_sockets_may_be_removed(
    isolate: bool, openssh: OpenSSHServer, remote: Remote
) -> None:
    with ObedientProgram(
        """
        from tests.faults.injection import discard_answers, time_to_heal
        def connect():
            sock = ctx.socket(zmq.DEALER)
            sock.linger = 0
            sock.connect(addr, ssh=options)
            return sock
        ctx = TunneledContext(isolate=isolate)
        sock = connect()
        """,
        options=arguments_for(openssh),
        addr=remote("router").address,
        isolate=isolate,
    ) as program:
        program.do("time_to_heal(sock); discard_answers(sock)")
        directory = os.path.dirname(program.tell("sock.tunnels[0].local")[len("ipc://") :])
        shutil.rmtree(directory)
        kill_session(openssh)
        program.do("time_to_heal(sock, 5); discard_answers(sock)")
        program.do("time_to_heal(connect(), 5)")
        assert program.tell("sock.tunnels[0].state") == "up"
        if isolate:
            shutil.rmtree(directory, ignore_errors=True)
            kill_gateway()
            program.do("time_to_heal(sock, 5)")
        program.do("ctx.destroy(); ctx.term()", timeout=10)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("word", ["failed", "closed"])
def test_a_tunnel_whose_close_meets_the_gateways_last_word_is_closed(
    word: str, openssh_options: SSHOptions, echo: Peer, figures: Figures
) -> None:
    """The close stands still at each of its lines in turn, until the gateway has said its word."""
    moment, met = 0, True
    with tunneledzmq.asyncio.TunneledContext(isolate=False) as ctx, ctx.socket(zmq.PUSH) as sock:
        sock.connect(echo.address, ssh=openssh_options)  # keeps the session
        wait_until(lambda: sock.tunnels[0].state == "up", timeout=30)
        while met:
            if word == "failed":
                met = close_when_the_login_fails(ctx, moment)
            else:
                met = close_when_the_tunnel_ends(ctx, moment, echo.address, openssh_options)
            moment += 1
    figures(f"{moment - 1} moments")
    assert moment > 10


def close_when_the_login_fails(ctx: tunneledzmq.asyncio.TunneledContext, moment: int) -> bool:
    dialled, refuse = threading.Event(), threading.Event()

    def refuse_when_told(_: socket.socket) -> None:
        dialled.set()
        refuse.wait(10)

    with hostile_port(refuse_when_told) as port, ctx.socket(zmq.PUSH) as sock:
        sock.linger = 0
        options = SSHOptions(f"me@127.0.0.1:{port}", config_file=None, agent=False)
        sock.connect("tcp://127.0.0.1:1", ssh=options)
        [tunnel] = sock.tunnels
        try:
            assert dialled.wait(10)
            return closed_at(moment, sock.close, tunnel, refuse.set)
        finally:
            refuse.set()


def close_when_the_tunnel_ends(
    ctx: tunneledzmq.asyncio.TunneledContext, moment: int, addr: str, options: SSHOptions
) -> bool:
    sock = ctx.socket(zmq.PUSH)
    sock.reconnect_ivl = 1
    sock.connect(addr, ssh=options)
    [tunnel] = sock.tunnels
    wait_until(lambda: tunnel.state == "up")
    sock.disconnect(addr)

    def let_libzmq_disconnect() -> None:
        if not sock.closed:
            sock.get(zmq.EVENTS)

    return closed_at(moment, sock.close, tunnel, let_libzmq_disconnect)


def closed_at(
    moment: int, close: Callable[[], None], tunnel: Tunnel, provoke: Callable[[], None]
) -> bool:
    def until_the_gateway_has_said_it() -> None:
        provoke()
        deadline = time.monotonic() + 0.5
        while tunnel.state != "closed" and time.monotonic() < deadline:
            time.sleep(0.001)

    met = interrupted_at_line(moment, close, until_the_gateway_has_said_it)
    wait_until(lambda: tunnel.state == "closed", what=f"closed, after line {moment}")
    return met


@both_backends
@pytest.mark.skipif(os.getuid() != 0, reason="an sshd of an ordinary user runs no commands")
def test_a_login_that_is_slow_is_told_from_a_server_that_is_down(
    ctx: TunneledContext, need_sshd: None, figures: Figures
) -> None:
    with (
        OpenSSHServer(
            AuthorizedKeysFile="none",
            AuthorizedKeysCommand="/bin/sleep 5",
            AuthorizedKeysCommandUser="root",
        ) as server,
        ctx.socket(zmq.REQ) as sock,
        pytest.raises(SSHConnectionError) as failure,
    ):
        sock.connect("tcp://127.0.0.1:1", ssh=options_for(server, connect_timeout=2))
    text = str(failure.value)
    figures(text)
    assert failure.value.errno == errno.ETIMEDOUT
    assert "connect_timeout" in text
    assert "authenticat" in text, "the stage that was reached"
    assert "firewall" not in text


def test_a_program_that_stands_still_while_it_connects_is_connected(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    """Ctrl-Z takes nothing from the time that it has to hear of its session."""
    (tmp_path / "netcat.py").write_text(NETCAT)
    command = shlex.join([sys.executable, "-S", str(tmp_path / "netcat.py")])
    (tmp_path / "config").write_text(
        f"Host *\n  ProxyCommand sh -c 'sleep 1; exec {command} %h %p'\n"
    )
    with ObedientProgram(
        """
        from tunneledzmq.handles import handle
        handle._START_TIMEOUT = 1
        ctx = TunneledContext()
        sock = ctx.socket(zmq.REQ)
        sock.rcvtimeo = 10_000
        """,
        options=arguments_for(
            openssh, config_file=str(tmp_path / "config"), connect_timeout=2 * PATIENCE
        ),
        addr=echo.address,
    ) as program:
        program.begin("sock.connect(addr, ssh=options)")
        wait_until(lambda: psutil.Process(program.pid).children(), what="a gateway")
        wait_until_blocked(program)
        with stopped(psutil.Process(program.pid)):
            time.sleep(2 * PATIENCE + 2)
        program.finish()
        program.do("sock.send(b'hello'); assert sock.recv() == b'hello'; sock.close(); ctx.term()")


@both_backends
def test_a_tunnel_that_waits_for_its_peer_says_so(
    ctx: TunneledContext, openssh: OpenSSHServer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(f"tcp://127.0.0.1:{free_port()}", ssh=options_for(openssh))
    [tunnel] = sock.tunnels
    wait_until(lambda: tunnel.last_error)
    assert "it may not be up yet: Connection refused" in str(tunnel.last_error)
    assert "[up: the server cannot connect to it; it may not be up yet: Connection" in repr(tunnel)


@both_backends
def test_all_tunnels_to_a_peer_that_is_away_say_so_and_the_log_says_it_once(
    ctx: TunneledContext, openssh: OpenSSHServer, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> int:
        return sum("it may not be up yet" in record.getMessage() for record in caplog.records)

    port = free_port()
    socks = [ctx.socket(zmq.DEALER) for _ in range(3)]
    for sock in socks:
        sock.connect(f"tcp://127.0.0.1:{port}", ssh=options_for(openssh))
        wait_until(logged)
    wait_until(lambda: all("it may not be up yet" in repr(tunnel) for tunnel in ctx.tunnels))
    assert logged() == 1
    with Peer("router", port=port):
        for sock in socks:
            round_trip(sock)
    wait_until(lambda: all("it may not be up yet" in repr(tunnel) for tunnel in ctx.tunnels))
    wait_until(lambda: logged() > 1)
    assert logged() == 2
