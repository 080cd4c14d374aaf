"""What is known of a peer, by what becomes of the connections to it."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from tunneledzmq.gateway.traffic.connection import End
from tunneledzmq.gateway.traffic.peers import Peers
from tunneledzmq.shared.pace import Pace


@pytest.mark.parametrize("peer_ends_first", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_peer_that_libzmq_has_left_is_no_longer_known_to_be_there(
    peer_ends_first: bool, wanted: bool
) -> None:
    """It may go meanwhile, and a connection that is then carried would break."""
    peers = Peers(lambda call: call(), lambda peer: None)
    peers.transport = transport = Mock()
    transport.path.round_trip = 0.001
    peer = peers.find(("10.0.1.2", 5555))
    forward: Any = Mock(pace=Pace(), connections=set(), wants_peer=wanted)
    peer.forwards.add(forward)
    connection = Mock(transport=transport, silent=False, bytes_received=10, age=3.0)
    peer._asking = connection
    peer.opened(connection)
    assert peer.there
    assert peer.connect() is connection
    peer.use(connection, forward)
    if peer_ends_first:
        peer.peer_ended(connection, answers=True)
    peer.ended(connection, End.LIBZMQ, "")
    assert not peer.there
    assert not peer.answered


def test_a_tunnel_that_counts_on_a_peer_that_another_has_left_need_not_wait() -> None:
    peers = Peers(lambda call: call(), lambda peer: None)
    peers.transport = transport = Mock()
    peer = peers.find(("10.0.1.2", 5555))
    first: Any = Mock(pace=Pace(), connections=set(), wants_peer=False)
    second: Any = Mock(pace=Pace(), connections=set(), wants_peer=True)
    peer.forwards |= {first, second}
    connection = Mock(transport=transport, silent=False, bytes_received=10, age=3.0)
    peer._asking = connection
    peer.opened(connection)
    assert peer.connect() is connection
    peer.use(connection, first)
    peer.ended(connection, End.LIBZMQ, "")
    assert peer.there
