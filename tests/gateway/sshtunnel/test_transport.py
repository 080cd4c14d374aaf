"""A session, and what a server may not do to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from paramiko.common import MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS
from paramiko.message import Message
from paramiko.ssh_exception import SSHException

from tunneledzmq.gateway.sshtunnel.link import Link
from tunneledzmq.gateway.sshtunnel.message import FarMessage
from tunneledzmq.gateway.sshtunnel.transport import ForwardTransport
from tunneledzmq.gateway.traffic.pump import Pump
from tunneledzmq.gateway.traffic.transport import TURN
from tunneledzmq.gateway.wire import pack_string


@pytest.fixture
def transport() -> Iterator[ForwardTransport]:
    """A session that has not begun."""
    ours, theirs = socket.socketpair()
    pump = Pump()
    link = Link(ours, pump)
    with theirs:
        yield ForwardTransport(link, lambda transport, reason: None)
        link.abort()
    pump.close()


def test_turns_are_short_where_several_wait_for_a_slow_link(transport: ForwardTransport) -> None:
    """Each one's turn is in front of all the others', and the kernel has not taken the last one."""
    transport.connections[1] = Mock()
    assert transport.turn == TURN
    while not transport.link.waits:
        transport.link.send(bytes(TURN))
    assert transport.turn == TURN
    transport.connections[2] = Mock()
    assert transport.turn < TURN // 10


def test_answers_do_not_pile_up_in_a_key_exchange(transport: ForwardTransport) -> None:
    transport.clear_to_send.clear()
    request = Message(struct.pack(">I", 3) + b"ask\1")
    with pytest.raises(EOFError, match="asks too much"):  # noqa: PT012
        for _ in range(100_000):
            request.rewind()
            transport._parse_global_request(request)
    assert len(transport._deferred) < 50_000


def test_answers_without_questions_do_not_pile_up(transport: ForwardTransport) -> None:
    userauth = transport.get_auth_handler()
    with pytest.raises(SSHException, match="was not asked"):  # noqa: PT012
        for _ in range(100):
            userauth._handler_table[MSG_USERAUTH_FAILURE](FarMessage(pack_string(b"x") + b"\0", 0))
    userauth._handler_table[MSG_USERAUTH_SUCCESS](FarMessage(b"", 0))
    assert not userauth._handler_table  # from now on they have no meaning
