"""Sessions that carry nothing for a while: nothing is wrong, so nothing happens to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product

import pytest
import zmq

from tests.logins import options_for
from tests.peers import Peer, arrived, numbered, round_trip
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext

Far = Callable[[int], zmq.Socket[bytes]]


@pytest.mark.lasts(185)
def test_idle_sessions_are_left_alone_for_minutes(chain: list[OpenSSHServer], echo: Peer) -> None:
    """Over one server, and behind one hop and two, in gateways of their own and in threads."""
    with ExitStack() as stack:
        socks = {}
        for hops, isolate in product(range(3), (True, False)):
            ctx = stack.enter_context(TunneledContext(isolate=isolate))
            sock = stack.enter_context(ctx.socket(zmq.REQ))
            sock.linger, sock.rcvtimeo = 0, 10_000
            sock.connect(echo.address, ssh=[options_for(server) for server in chain[: hops + 1]])
            round_trip(sock)
            socks[f"{hops} hops, {'isolated' if isolate else 'in threads'}"] = sock
        logins = [server.logins() for server in chain]
        time.sleep(185)
        reconnects = {kind: sock.tunnels[0].reconnects for kind, sock in socks.items()}
        assert reconnects == dict.fromkeys(socks, 0)
        assert [server.logins() for server in chain] == logins
        for sock in socks.values():
            assert (sock.tunnels[0].state, sock.tunnels[0].last_error) == ("up", None)
            round_trip(sock)


@pytest.mark.lasts(70)
def test_a_reply_may_take_a_minute(
    ctx: TunneledContext, openssh_options: SSHOptions, far: Far
) -> None:
    rep = far(zmq.REP)
    rep.bind("tcp://127.0.0.1:*")
    sock = ctx.socket(zmq.REQ)
    sock.connect(rep.last_endpoint.decode(), ssh=openssh_options)
    sock.send(b"question")
    assert rep.recv() == b"question"
    time.sleep(70)
    rep.send(b"answer")
    assert sock.recv() == b"answer"
    assert sock.tunnels[0].reconnects == 0


@pytest.mark.lasts(60)
def test_a_consumer_may_pause_for_a_minute(
    ctx: TunneledContext, openssh_options: SSHOptions, far: Far
) -> None:
    count = 3000
    pull = far(zmq.PULL)
    pull.rcvhwm = 10
    pull.bind("tcp://127.0.0.1:*")
    sock = ctx.socket(zmq.PUSH)
    sock.sndtimeo = 100_000
    sock.connect(pull.last_endpoint.decode(), ssh=openssh_options)

    def produce() -> None:
        for number in range(count):
            sock.send(numbered(number, 10_000))

    producer = threading.Thread(target=produce)
    producer.start()
    numbers = arrived(pull, last=100)
    time.sleep(60)
    numbers += arrived(pull, last=count - 1)
    producer.join()
    assert numbers == list(range(count))
    assert sock.tunnels[0].reconnects == 0


@pytest.mark.lasts(50)
def test_a_subscriber_gets_all_that_is_published_after_a_long_silence(
    ctx: TunneledContext, openssh_options: SSHOptions, far: Far
) -> None:
    count = 1000
    pub = far(zmq.XPUB)
    pub.sndhwm = 0
    pub.bind("tcp://127.0.0.1:*")
    sock = ctx.socket(zmq.SUB)
    sock.rcvhwm = 0
    sock.subscribe(b"")
    sock.connect(pub.last_endpoint.decode(), ssh=openssh_options)
    assert pub.recv() == b"\x01"
    time.sleep(50)
    for number in range(count):
        pub.send(numbered(number))
    assert arrived(sock, last=count - 1, timeout=10) == list(range(count))
    assert sock.tunnels[0].reconnects == 0
