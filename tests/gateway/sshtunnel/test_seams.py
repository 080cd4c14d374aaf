"""What we override of paramiko and sshtunnel is still there."""

from __future__ import annotations

import socket

import paramiko
import pytest
import sshtunnel
from paramiko.common import MSG_CHANNEL_OPEN_SUCCESS


@pytest.mark.parametrize(
    "name",
    [
        "_parse_disconnect",
        "_parse_newkeys",
        "_parse_service_accept",
        "_send_message",
        "_verify_key",
    ],
)
def test_paramiko_has_what_the_transport_overrides(name: str) -> None:
    assert hasattr(paramiko.ServiceRequestingTransport, name)


def test_paramiko_has_the_table_that_the_transport_fills() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = paramiko.ServiceRequestingTransport(ours)
        assert MSG_CHANNEL_OPEN_SUCCESS in transport._handler_table
        transport.close()


@pytest.mark.parametrize(
    "name",
    [
        "_connect_to_gateway",
        "_consolidate_auth",
        "_get_binds",
        "_get_transport",
        "_make_ssh_forward_handler_class",
        "_make_ssh_forward_server",
        "_make_ssh_forward_server_class",
        "_make_stream_ssh_forward_server_class",
    ],
)
def test_sshtunnel_has_what_the_forwarder_overrides(name: str) -> None:
    assert hasattr(sshtunnel.SSHTunnelForwarder, name)
