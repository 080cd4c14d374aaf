"""Tunnels live as long as their sockets, and never shorter than what was sent through them."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
import zmq
import zmq.asyncio

import tunneledzmq.asyncio
from tests.deadline import ending
from tests.logins import Server, arguments_for
from tests.peers import Peer, free_port, numbered, round_trip
from tests.polling import PATIENCE, wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket

pytestmark = pytest.mark.usefixtures("backend")

Remote = Callable[..., Peer]
Gateways = Callable[[], set[psutil.Process]]

REPEAT = int(os.environ.get("TUNNELEDZMQ_REPEAT", "5"))
"""How often what is only lost now and then is tried."""


@contextmanager
def takes(at_least: float = 0, at_most: float = 60) -> Iterator[None]:
    """Check how many seconds the body takes."""
    start = time.monotonic()
    yield
    assert at_least <= time.monotonic() - start <= at_most * PATIENCE


def connected(ctx: TunneledContext, kind: int, peer: Peer, options: SSHOptions) -> Any:
    sock = ctx.socket(kind)
    sock.connect(peer.address, ssh=options)
    return sock


def flood(sock: zmq.Socket[bytes]) -> None:
    """Send until nothing on the way takes any more."""
    while sock.poll(200, zmq.POLLOUT):
        sock.send(bytes(10_000))


def test_the_gateway_goes_with_the_context(
    options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        assert len(gateways()) == 1
    wait_until(lambda: not gateways(), timeout=2)


def test_a_peer_that_sends_and_takes_nothing_keeps_no_tunnel(
    ctx: TunneledContext, options: SSHOptions, gateways: Gateways
) -> None:
    """After LINGER no more is owed than what is on its way, and what the peer sends is no news."""
    plain: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    far = plain.socket(zmq.DEALER)
    far.linger, far.rcvhwm, far.sndtimeo = 0, 1, 0
    port = far.bind_to_random_port("tcp://127.0.0.1")
    sock = ctx.socket(zmq.DEALER)
    sock.connect(f"tcp://127.0.0.1:{port}", ssh=options)
    flood(sock)
    sock.close(linger=0)
    ctx.term()

    def telemetry() -> bool:
        with suppress(zmq.Again):
            far.send(b"reading")
        return not gateways()

    wait_until(telemetry, timeout=15, what="the gateway is gone")
    plain.destroy(linger=0)


@pytest.mark.parametrize("undo", ["close", "disconnect", "destroy"])
def test_the_gateway_goes_with_its_last_tunnel(
    undo: str, ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    sock = connected(ctx, zmq.REQ, echo, openssh_options)
    round_trip(sock)
    assert len(gateways()) == 1
    {
        "close": sock.close,
        "disconnect": lambda: sock.disconnect(echo.address),
        "destroy": ctx.destroy,
    }[undo]()

    def gone() -> bool:
        if not sock.closed:
            # libzmq gives a disconnected address up at the program's next call into the socket.
            sock.get(zmq.EVENTS)
        return not gateways()

    wait_until(gone, timeout=5)


def test_a_session_survives_while_another_socket_uses_it(
    any_ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = openssh.logins()
    first, second = (connected(any_ctx, zmq.REQ, echo, openssh_options) for _ in range(2))
    [tunnel] = first.tunnels
    round_trip(first)
    first.close()
    wait_until(lambda: tunnel.state == "closed")
    round_trip(second)
    assert second.tunnels[0].reconnects == 0
    assert openssh.logins() - before == 1


def test_a_connect_after_the_last_close_logs_in_again(
    any_ctx: TunneledContext, options: SSHOptions, echo: Peer
) -> None:
    for _ in range(3):
        with connected(any_ctx, zmq.REQ, echo, options) as sock:
            round_trip(sock)


@pytest.mark.parametrize("what", ["socket", "context"])
@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_what_is_collected_takes_its_tunnels_along(
    what: str,
    isolate: bool,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    gateways: Gateways,
) -> None:
    before = set(openssh.sessions())
    ctx = TunneledContext(isolate=isolate)
    sock = connected(ctx, zmq.REQ, echo, openssh_options)
    round_trip(sock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del sock
        if what == "context":
            del ctx
        gc.collect()
    wait_until(lambda: not gateways() and before.issuperset(openssh.sessions()), timeout=5)
    if what == "socket":
        assert ctx.tunnels == []
        ctx.term()


def test_pending_messages_survive_close_and_term(options: SSHOptions, remote: Remote) -> None:
    for _ in range(REPEAT):
        collector = remote("collector")
        ctx = TunneledContext()
        sock = connected(ctx, zmq.PUSH, collector, options)
        for number in range(2000):
            sock.send(numbered(number, 10_000))
        sock.close()
        ctx.term()
        assert collector.wait_for(messages=2000)["gaps"] == 0
        collector.close()


def test_pending_messages_survive_the_end_of_the_program(server: Server, remote: Remote) -> None:
    for _ in range(REPEAT):
        collector = remote("collector")
        run_program(
            """
            ctx = TunneledContext()
            sock = ctx.socket(zmq.PUSH)
            sock.connect(addr, ssh=options)
            for number in range(2000):
                sock.send(number.to_bytes(8, "big").ljust(10_000))
            sock.close()
            ctx.term()
            """,
            options=arguments_for(server),
            addr=collector.address,
        )
        assert collector.wait_for(messages=2000)["gaps"] == 0
        collector.close()


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_a_program_may_say_goodbye_at_its_end(
    isolate: bool, openssh: OpenSSHServer, remote: Remote
) -> None:
    """From a function that it has registered before there was a gateway."""
    collector = remote("collector")
    run_program(
        """
        import atexit, logging
        logging.basicConfig()  # the session does not end before
        ctx = TunneledContext(isolate=isolate)
        sock = ctx.socket(zmq.PUSH)

        @atexit.register
        def say_goodbye():
            sock.send(bytes(8))
            sock.close()
            ctx.term()

        sock.connect(addr, ssh=options)
        """,
        options=arguments_for(openssh),
        addr=collector.address,
        isolate=isolate,
    )
    collector.wait_for(messages=1)


@pytest.mark.parametrize("undo", ["close", "disconnect"])
def test_pending_messages_survive_without_term(
    undo: str, any_ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    collector = remote("collector")
    sock = connected(any_ctx, zmq.PUSH, collector, openssh_options)
    for number in range(500):
        sock.send(numbered(number, 10_000))
    if undo == "close":
        sock.close()
    else:
        sock.disconnect(collector.address)
    assert collector.wait_for(messages=500)["gaps"] == 0


def test_no_linger_waits_for_nothing(
    any_ctx: TunneledContext, options: SSHOptions, remote: Remote
) -> None:
    sock = connected(any_ctx, zmq.PUSH, remote("stalled"), options)
    flood(sock)
    with takes(at_most=0.5):
        sock.close(linger=0)
        any_ctx.term()


@pytest.mark.parametrize("peer", ["absent", "stalled"])
def test_a_finite_linger_is_obeyed(
    peer: str, ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote, gateways: Gateways
) -> None:
    sock = ctx.socket(zmq.PUSH)
    addr = remote("stalled").address if peer == "stalled" else f"tcp://127.0.0.1:{free_port()}"
    sock.connect(addr, ssh=openssh_options)
    flood(sock)
    with takes(at_most=0.3):
        sock.close(linger=1000)
    with takes(at_least=0.8, at_most=2):
        ctx.term()
    # What was written before is still offered for a few seconds, as the kernel would.
    wait_until(lambda: not gateways(), timeout=8)


@pytest.mark.parametrize("term", [True, False], ids=["term", "no term"])
def test_a_finite_linger_is_obeyed_over_tcp(
    term: bool, openssh_options: SSHOptions, remote: Remote, gateways: Gateways
) -> None:
    """The kernel does not tell there that libzmq has closed, while what it wrote is unread."""
    with ending(TunneledContext()) as ctx:
        sock = ctx.socket(zmq.PUSH)
        sock.connect(remote("stalled").address, ssh=openssh_options, local="tcp://127.0.0.1:*")
        flood(sock)
        sock.close(linger=1000)
        if term:
            ctx.term()
        wait_until(lambda: not gateways(), timeout=15)


def test_closing_with_nothing_pending_takes_no_time(
    any_ctx: TunneledContext, options: SSHOptions, echo: Peer
) -> None:
    sock = connected(any_ctx, zmq.REQ, echo, options)
    round_trip(sock)
    with takes(at_most=0.3):
        sock.close()
    with takes(at_most=0.5):
        any_ctx.term()


def test_term_waits_for_a_socket_that_lingers(
    ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    port = free_port()
    sock = ctx.socket(zmq.PUSH)
    sock.connect(f"tcp://127.0.0.1:{port}", ssh=openssh_options)
    for number in range(100):
        sock.send(numbered(number))
    sock.close()
    term = threading.Thread(target=ctx.term)
    term.start()
    term.join(0.5)
    assert term.is_alive()
    assert remote("collector", port=port).wait_for(messages=100)["gaps"] == 0
    term.join(5)
    assert not term.is_alive()


def test_a_program_may_end_without_closing_anything(
    server: Server, echo: Peer, gateways: Gateways
) -> None:
    output = run_program(
        """
        ctx = TunneledContext()
        sock = ctx.socket(zmq.REQ)
        sock.connect(addr, ssh=options)
        sock.send(b"hello")
        print(sock.recv())
        """,
        timeout=10,
        options=arguments_for(server),
        addr=echo.address,
    )
    assert output == "b'hello'\n"
    wait_until(lambda: not gateways(), timeout=5)


def test_a_program_that_is_killed_leaves_nothing(
    openssh: OpenSSHServer, echo: Peer, gateways: Gateways
) -> None:
    before = set(openssh.sessions())
    source = """
        ctx = TunneledContext()
        sock = ctx.socket(zmq.DEALER)
        sock.connect(addr, ssh=options)
        print("connected", flush=True)
        sock.recv()
        """
    with start_program(source, options=arguments_for(openssh), addr=echo.address) as program:
        assert program.stdout
        assert program.stdout.readline() == "connected\n"
        program.kill()
    wait_until(lambda: not gateways() and before.issuperset(openssh.sessions()), timeout=5)


def test_what_a_shadow_has_connected_goes_with_the_socket(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    sock = ctx.socket(zmq.REQ)
    shadow = TunneledSocket.shadow(sock)
    shadow.connect(echo.address, ssh=openssh_options)
    del shadow
    gc.collect()
    round_trip(sock)
    assert len(sock.tunnels) == 1
    sock.close()
    wait_until(lambda: not gateways())


@pytest.mark.parametrize("how", ["close", "collect"])
@pytest.mark.parametrize("kind", [zmq.Context, zmq.asyncio.Context])
@pytest.mark.parametrize("twice", [False, True])
def test_what_a_shadow_of_pyzmqs_socket_has_connected_goes_with_it(
    kind: Any, how: str, twice: bool, openssh_options: SSHOptions, echo: Peer
) -> None:
    with kind() as plain:
        sock = plain.socket(zmq.DEALER)
        sock.linger = 0
        shadow = TunneledSocket(zmq.Socket(sock) if twice else sock)
        shadow.connect(echo.address, ssh=openssh_options)
        tunnel = shadow.tunnels[0]
        if how == "close":
            sock.close()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del sock, shadow
                gc.collect()
        wait_until(lambda: tunnel.state == "closed")


def test_what_a_twin_that_shadows_a_socket_has_connected_goes_with_it(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main(shadow: tunneledzmq.asyncio.TunneledSocket) -> None:
        await shadow.connect(echo.address, ssh=openssh_options)

    with TunneledContext() as ctx:
        sock = ctx.socket(zmq.REQ)
        shadow = tunneledzmq.asyncio.TunneledSocket(sock)
        asyncio.run(main(shadow))
        tunnel = shadow.tunnels[0]
        sock.close()
        wait_until(lambda: tunnel.state == "closed")
