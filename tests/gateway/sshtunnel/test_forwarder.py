"""A login that is given up, whatever it has come to."""

from __future__ import annotations

from itertools import count

from tests.sshd import OpenSSHServer
from tunneledzmq.gateway.attempt import Attempt
from tunneledzmq.gateway.login import Login
from tunneledzmq.gateway.questions import Questions
from tunneledzmq.gateway.sshtunnel.forwarder import TunnelForwarder


def test_only_the_session_s_thread_closes_its_socket(openssh: OpenSSHServer) -> None:
    """It may be about to wait for the socket, and would never hear that it was closed."""
    login = Login(
        openssh.server,
        openssh.host,
        openssh.port,
        openssh.user,
        keyfiles=[openssh.keyfile],
        user_known_hosts=[openssh.known_hosts],
        agent=False,
    )
    ends: list[str] = []
    forwarder = TunnelForwarder(login, lambda transport, reason: ends.append(reason))
    attempt = Attempt(Questions(lambda message: None, count(1)), login.given_up)
    transport = forwarder.dial(attempt)
    with transport.pump.lock:  # which that thread needs to close it
        attempt.abort()
        assert transport.link.fileno() >= 0
    transport.join(5)
    assert not transport.is_alive() and transport.link.fileno() < 0
    assert len(ends) == 1
    forwarder.close()
