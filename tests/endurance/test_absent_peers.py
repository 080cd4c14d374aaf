"""Peers that are away for minutes: what was sent waits for them, as with direct TCP."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import zmq

from tests.peers import arrived, free_port, numbered
from tests.polling import wait_until
from tunneledzmq import SSHOptions, TunneledContext

Far = Callable[[int], zmq.Socket[bytes]]


@pytest.mark.lasts(120)
def test_a_peer_may_come_back_after_two_minutes(
    ctx: TunneledContext, openssh_options: SSHOptions, far: Far
) -> None:
    count = 500
    pull = far(zmq.PULL)
    pull.bind("tcp://127.0.0.1:*")
    addr = pull.last_endpoint.decode()
    sock = ctx.socket(zmq.PUSH)
    sock.connect(addr, ssh=openssh_options)
    [tunnel] = sock.tunnels
    sock.send(numbered(0))
    assert pull.recv() == numbered(0)

    pull.close()
    # What is sent before libzmq hears of it goes with the connection.
    wait_until(lambda: tunnel.last_error)
    for number in range(1, count):
        sock.send(numbered(number))
    time.sleep(120)
    with far(zmq.PULL) as back:
        back.bind(addr)
        # The peer is asked for every RECONNECT_IVL.
        assert arrived(back, last=count - 1, timeout=3) == list(range(1, count))
    assert tunnel.reconnects == 0


@pytest.mark.lasts(120)
def test_a_subscription_waits_two_minutes_for_its_publisher(
    ctx: TunneledContext, openssh_options: SSHOptions, far: Far
) -> None:
    """The program does not call into its socket meanwhile."""
    count = 100
    addr = f"tcp://127.0.0.1:{free_port()}"
    sock = ctx.socket(zmq.SUB)
    sock.subscribe(b"")
    sock.connect(addr, ssh=openssh_options)
    [tunnel] = sock.tunnels
    time.sleep(120)
    pub = far(zmq.XPUB)
    pub.bind(addr)
    assert pub.poll(3000), "the subscription did not come"
    assert pub.recv() == b"\x01"
    for number in range(count):
        pub.send(numbered(number))
    assert arrived(sock, last=count - 1, timeout=5) == list(range(count))
    assert tunnel.reconnects == 0
