"""Readers that take little, and sleep: what came for them waits, whatever becomes of the rest."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
import zmq

from tests.faults.injection import kill_session
from tests.peers import arrived, sending_and_ending
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext

COUNT = 150
SIZE = 10_000


@pytest.mark.lasts(30)
@pytest.mark.parametrize("session", ["stays", "dies"])
def test_a_sleeping_reader_gets_all_of_a_peer_that_has_ended(
    session: str, ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions
) -> None:
    with ExitStack() as peers:
        socks = {}
        for hwm in (1, 2, 3):
            addr, peer = peers.enter_context(sending_and_ending(COUNT, SIZE))
            sock = socks[hwm] = ctx.socket(zmq.PULL)
            sock.rcvhwm = hwm
            sock.connect(addr, ssh=openssh_options)
            [tunnel] = sock.tunnels
            peer.join()
            wait_until(lambda tunnel=tunnel: tunnel.stats().bytes_received > COUNT * SIZE)  # type: ignore[misc]
    time.sleep(15)
    if session == "dies":
        kill_session(openssh)
    time.sleep(15)
    numbers = {hwm: arrived(sock, COUNT - 1, timeout=5) for hwm, sock in socks.items()}
    assert {hwm: len(came) for hwm, came in numbers.items()} == dict.fromkeys(socks, COUNT)
    assert all(came == list(range(COUNT)) for came in numbers.values())
    assert {sock.tunnels[0].reconnects for sock in socks.values()} == {int(session == "dies")}
