"""Firewalls that count tries: who is patient passes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import zmq

from tests.faults.injection import Relay, time_to_heal
from tests.logins import options_for
from tests.peers import Peer
from tests.sshd import OpenSSHServer
from tunneledzmq import TunneledContext


@pytest.mark.lasts(100)
def test_a_limiter_lets_us_pass_after_an_outage(
    ctx: TunneledContext, openssh: OpenSSHServer, remote: Callable[..., Peer]
) -> None:
    with Relay(openssh) as relay:
        relay.limit_connections()
        sock = ctx.socket(zmq.DEALER)
        sock.connect(remote("router").address, ssh=options_for(relay))
        time_to_heal(sock)
        relay.refuse_connections()
        relay.cut_connections()
        time.sleep(6)
        relay.accept_connections()
        time_to_heal(sock, timeout=75)
        [tunnel] = sock.tunnels
        assert tunnel.state == "up"
        # Ten quick tries, and a patient one now and then.
        assert relay.connections() <= 20
