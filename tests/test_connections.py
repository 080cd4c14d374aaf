"""`connections=N`: the sockets of a context are spread over N sessions, in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil
import pytest
import zmq

from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext

Gateways = Callable[[], set[psutil.Process]]


def test_sockets_take_the_sessions_in_turn(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    gateways: Gateways,
) -> None:
    before = openssh.logins()
    options = replace(openssh_options, connections=3)
    for count in range(1, 8):
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        assert len(gateways()) == min(count, 3)
    assert openssh.logins() == before + 3


def test_a_session_ends_with_its_last_socket_and_is_set_up_again(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    options = replace(openssh_options, connections=2)
    for _ in range(3):
        socks = [ctx.socket(zmq.REQ) for _ in range(4)]
        for sock in socks:
            sock.connect(echo.address, ssh=options)
            round_trip(sock)
        assert len(gateways()) == 2
        for sock in socks:
            sock.close()
        wait_until(lambda: not gateways(), timeout=3)


@pytest.mark.parametrize("connections", [0, -1])
def test_a_malformed_number_of_connections(connections: int) -> None:
    with pytest.raises(ValueError, match="connections"):
        SSHOptions("me@host", connections=connections)


@pytest.mark.parametrize("connections", [1.0, "2", None, True])
def test_connections_of_another_type(connections: Any) -> None:
    with pytest.raises(TypeError, match="connections"):
        SSHOptions("me@host", connections=connections)
