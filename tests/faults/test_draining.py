"""What was sent arrives, however the program ends, and whatever happens to the link meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests.deadline import ending
from tests.draining import SEND
from tests.faults.injection import (
    Relay,
    kill_session,
    stopped,
    the_gateway,
    time_until_nothing_is_left,
)
from tests.leaks import gateways
from tests.logins import arguments_for, options_for
from tests.peers import Peer, arrived, free_port, numbered
from tests.polling import wait_until
from tests.programs import start_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext

pytestmark = pytest.mark.usefixtures("backend")

Figures = Callable[[str], None]
Remote = Callable[..., Peer]

COUNT = 2000
SIZE = 10_000
TRIES = int(os.environ.get("TUNNELEDZMQ_REPEAT", "1"))
"""How often what is only lost now and then is tried."""

ENDINGS = {
    "close and term": "sock.close(); ctx.term()",
    "close and normal exit": "import atexit; atexit.register(ctx.term); sock.close()",
    "destroy": "ctx.destroy()",
    "exception": "with ctx, sock: raise RuntimeError('the end')",
    "sys.exit": "with ctx, sock: sys.exit(3)",
    "_exit after term": "import os; sock.close(); ctx.term(); os._exit(0)",
    "killed after term": "import os, signal; sock.close(); ctx.term(); os.kill(os.getpid(), 9)",
    "disconnect and term": "sock.disconnect(addr); sock.close(); ctx.term()",
}


@pytest.fixture
def pull() -> Iterator[zmq.Socket[bytes]]:
    """A peer in this process, so that it is known what arrived, one by one."""
    with ending(zmq.Context()) as ctx:
        sock = ctx.socket(zmq.PULL)
        sock.set_hwm(0)
        sock.bind("tcp://127.0.0.1:*")
        yield sock


@pytest.mark.parametrize(
    ("ending", "isolate"),
    [
        pytest.param(ending, isolate, id=f"{ending}-{'isolated' if isolate else 'threads'}")
        for ending in ENDINGS
        for isolate in (True, False)
        # What ends the process at once ends its threads too.
        if isolate or ending not in ("_exit after term", "killed after term")
    ],
)
def test_nothing_is_lost_when_the_program_ends(
    ending: str, isolate: bool, openssh: OpenSSHServer, remote: Remote, figures: Figures
) -> None:
    lost, times = 0, []
    for _ in range(TRIES):
        collector = remote("collector")
        with start_program(
            SEND + "    " + ENDINGS[ending],
            options=arguments_for(openssh),
            addr=collector.address,
            count=COUNT,
            size=SIZE,
            isolate=isolate,
        ) as program:
            _, errors = program.communicate(timeout=30)
        assert (program.returncode, bool(errors)) == {
            "exception": (1, True),
            "sys.exit": (3, False),
            "killed after term": (9 if sys.platform == "win32" else -9, False),
        }.get(ending, (0, False)), errors
        assert collector.wait_for(messages=COUNT)["gaps"] == 0
        lost += COUNT - collector.report()["messages"]
        times.append(time_until_nothing_is_left(openssh))
    figures(f"{TRIES} x {COUNT} messages, {lost} lost, nothing left after {max(times):.2f} s")


@pytest.mark.parametrize("hiccup", [0.5, 3.0])
def test_a_hiccup_of_the_link_after_the_end_of_the_program_loses_nothing(
    hiccup: float, openssh: OpenSSHServer, pull: zmq.Socket[bytes], figures: Figures
) -> None:
    # A little more than a channel's window: while the link stands still the gateway reads that, and
    # the kernel holds the rest between libzmq and the gateway; so term() returns.
    count, size = 43, 50_000
    with Relay(openssh) as relay:
        with start_program(
            """
            ctx = TunneledContext()
            sock = ctx.socket(zmq.PUSH)
            sock.connect(addr, ssh=options)
            sock.send(bytes(8))
            print("up", flush=True)
            sys.stdin.readline()
            for number in range(1, count):
                sock.send(number.to_bytes(8, "big").ljust(size))
            sock.close()
            ctx.term()
            """,
            stdin=subprocess.PIPE,
            options=arguments_for(relay),
            addr=pull.last_endpoint.decode(),
            count=count,
            size=size,
        ) as program:
            assert program.stdout
            assert program.stdout.readline() == "up\n"
            assert pull.recv() == bytes(8)
            relay.hold_packets()
            program.communicate("go on\n", timeout=20)
            ended = time.monotonic()
        wait_until(lambda: time.monotonic() > ended + hiccup)
        relay.pass_packets()
        numbers = arrived(pull, last=count - 1, timeout=10)
        figures(f"{len(numbers)} of {count - 1} messages after a hiccup of {hiccup} s")
        assert numbers == list(range(1, count))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who listens")
def test_what_a_stream_wrote_just_before_the_program_ended_waits_for_its_peer(
    ctx: TunneledContext, openssh: OpenSSHServer
) -> None:
    port = free_port()
    sock = ctx.socket(zmq.STREAM)
    sock.reconnect_ivl = 500
    sock.linger = 10_000
    sock.set(zmq.CONNECT_ROUTING_ID, b"peer")
    sock.connect(f"tcp://127.0.0.1:{port}", ssh=options_for(openssh))
    path = sock.tunnels[0].local[len("ipc://") :]
    sock.send_multipart([b"peer", b"early data"])
    sock.close()
    wait_until(lambda: listens(path))
    with stopped(the_gateway()):
        ctx.term()  # it has connected, written, and closed: a STREAM waits for nobody's greeting
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(5)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(100) == b"early data"


def test_what_a_stream_wrote_for_a_peer_that_does_not_come_is_kept_for_linger(
    ctx: TunneledContext, openssh: OpenSSHServer
) -> None:
    sock = ctx.socket(zmq.STREAM)
    sock.set(zmq.CONNECT_ROUTING_ID, b"peer")
    sock.connect(f"tcp://127.0.0.1:{free_port()}", ssh=options_for(openssh))
    [tunnel] = sock.tunnels
    sock.send_multipart([b"peer", b"early data"])
    start = time.monotonic()
    sock.close(1000)
    wait_until(lambda: tunnel.state == "closed")
    assert 1 <= time.monotonic() - start < 2.5


def listens(path: str) -> bool:
    """Tell whether anybody listens on a Unix socket (proc(5), `__SO_ACCEPTCON`)."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(line[3] == "00010000" and line[-1] == path for line in lines)


@pytest.mark.parametrize("end", ["close", "disconnect"])
@pytest.mark.parametrize("fault", ["link cut", "session killed"])
def test_a_drain_goes_on_after_the_session_dropped(
    fault: str,
    end: str,
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    pull: zmq.Socket[bytes],
    figures: Figures,
) -> None:
    with Relay(openssh) as relay:
        addr = pull.last_endpoint.decode()
        sock = any_ctx.socket(zmq.PUSH)
        sock.sndhwm = 0
        sock.connect(addr, ssh=options_for(relay))
        [tunnel] = sock.tunnels
        sock.send(numbered(0))
        assert pull.recv() == numbered(0)
        relay.hold_packets()
        for number in range(1, COUNT):
            sock.send(numbered(number, SIZE))
        # The gateway has taken what it can hold when the drain begins.
        wait_until(lambda: tunnel.stats().bytes_sent > 1_000_000)
        if end == "close":
            sock.close()
        else:
            sock.disconnect(addr)
            sock.close()
        if fault == "link cut":
            relay.cut_connections()
        else:
            kill_session(openssh)
        relay.pass_packets()
        term = threading.Thread(target=any_ctx.term)
        term.start()
        numbers = arrived(pull, last=COUNT - 1)
        term.join(10)
        assert not term.is_alive()
        lost = COUNT - 1 - len(numbers)
        figures(f"{lost} of {COUNT - 1} lost in flight, none after the heal")
        assert numbers == sorted(set(numbers)), "once each, in order"
        assert numbers[-1] == COUNT - 1
        # What was in flight: a channel's window, and buffers of the kernel's.
        assert lost * SIZE <= 8_000_000
        wait_until(lambda: tunnel.state == "closed" and not gateways())


def test_disconnect_delivers_what_was_sent(
    any_ctx: TunneledContext, openssh_options: SSHOptions, pull: zmq.Socket[bytes]
) -> None:
    addr = pull.last_endpoint.decode()
    sock = any_ctx.socket(zmq.PUSH)
    sock.sndhwm = 0
    sock.connect(addr, ssh=openssh_options)
    [tunnel] = sock.tunnels
    for number in range(COUNT):
        sock.send(numbered(number, SIZE))
    sock.disconnect(addr)
    assert arrived(pull, last=COUNT - 1) == list(range(COUNT))
    wait_until(lambda: sock.get(zmq.EVENTS) >= 0 and tunnel.state == "closed")


def test_what_the_peer_sends_slowly_is_waited_for(
    ctx: TunneledContext, openssh: OpenSSHServer, pull: zmq.Socket[bytes]
) -> None:
    with Relay(openssh) as relay:
        relay.pass_packets(delay=0.1)
        sock = ctx.socket(zmq.PUSH)
        sock.connect(pull.last_endpoint.decode(), ssh=options_for(relay))
        for number in range(200):
            sock.send(numbered(number, SIZE))
        sock.close()
        ctx.term()
        assert arrived(pull, last=199) == list(range(200))
        wait_until(lambda: not gateways())


def test_a_dead_server_does_not_keep_a_finite_linger_waiting(
    ctx: TunneledContext, openssh: OpenSSHServer, pull: zmq.Socket[bytes], figures: Figures
) -> None:
    with Relay(openssh) as relay:
        sock = ctx.socket(zmq.PUSH)
        sock.sndhwm = 0
        sock.connect(pull.last_endpoint.decode(), ssh=options_for(relay))
        relay.hold_packets()
        for number in range(COUNT):
            sock.send(numbered(number, SIZE))
        start = time.monotonic()
        sock.close(linger=500)
        ctx.term()
        termed = time.monotonic() - start
        figures(f"term() returned after {termed:.2f} s with a linger of 0.5 s")
        assert 0.4 <= termed <= 1.5
        relay.cut_connections()
        relay.pass_packets()
