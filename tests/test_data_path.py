"""What goes in comes out, whatever the cipher, and whatever paramiko is like inside."""

from __future__ import annotations

import logging
import random

import paramiko
import pytest
import sshtunnel
import zmq
from paramiko.packet import Packetizer

from tests.logins import Server, options_for
from tests.peers import Peer
from tests.sshd import OpenSSHServer
from tunneledzmq import TunneledContext
from tunneledzmq.gateway.packetizer import BatchPacketizer, LinkPacketizer, packetizer_class

WAYS = {
    "aes-gcm": {},
    "aes-ctr": {"ciphers": "aes128-ctr"},
    "aes256-gcm": {"ciphers": "aes256-gcm@openssh.com"},
    "compressed": {"compression": True},
    "compressed-aes-ctr": {"compression": True, "ciphers": "aes256-ctr"},
}


def exchange(sock: zmq.Socket[bytes], megabytes: int) -> None:
    """Have messages of all sizes echoed, several at a time, and compare them."""
    generator = random.Random(7)
    pattern = generator.randbytes(1 << 21)
    sent: list[bytes] = []
    total = 0
    while total < megabytes << 20:
        size = int(2 ** generator.uniform(0, 21))
        start = generator.randrange(len(pattern) - size + 1)
        sent.append(pattern[start : start + size])
        total += size
    waiting = 0
    received: list[bytes] = []
    for message in sent:
        sock.send_multipart([b"", message])
        waiting += 1
        while waiting > 4:
            received.append(sock.recv_multipart()[1])
            waiting -= 1
    while waiting:
        received.append(sock.recv_multipart()[1])
        waiting -= 1
    assert received == sent


@pytest.mark.parametrize("batches", [True, False], ids=["batches", "plain"])
@pytest.mark.parametrize("way", WAYS)
def test_what_goes_in_comes_out(
    way: str,
    batches: bool,
    ctx: TunneledContext,
    server: Server,
    echo: Peer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not batches:
        monkeypatch.setenv("TUNNELEDZMQ_NO_BATCHES", "1")
    sock = ctx.socket(zmq.DEALER)
    sock.connect(echo.address, ssh=options_for(server, **WAYS[way]))
    exchange(sock, megabytes=10)
    assert sock.tunnels[0].reconnects == 0


@pytest.mark.parametrize("way", WAYS)
def test_keys_are_exchanged_in_the_middle_of_traffic(
    way: str,
    server: Server,
    echo: Peer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(LinkPacketizer, "REKEY_BYTES", 1 << 20)
    with (
        caplog.at_level(logging.DEBUG, "tunneledzmq.paramiko"),
        TunneledContext(isolate=False) as ctx,
        ctx.socket(zmq.DEALER) as sock,
    ):
        sock.rcvtimeo = sock.sndtimeo = 10_000
        sock.linger = 0
        sock.connect(echo.address, ssh=options_for(server, **WAYS[way]))
        exchange(sock, megabytes=10)
        assert sock.tunnels[0].reconnects == 0
    assert caplog.text.count("Switch to new keys") > 3


def test_the_server_may_ask_for_new_keys(ctx: TunneledContext, echo: Peer) -> None:
    with OpenSSHServer(RekeyLimit="1M") as server:
        sock = ctx.socket(zmq.DEALER)
        sock.connect(echo.address, ssh=options_for(server))
        exchange(sock, megabytes=10)
        assert sock.tunnels[0].reconnects == 0
        sock.close(linger=0)


def test_batches_are_used_where_paramiko_is_as_expected() -> None:
    assert packetizer_class() is BatchPacketizer


def test_paramiko_does_the_work_where_it_is_not_as_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Packetizer, "_trigger_rekey")
    assert packetizer_class() is LinkPacketizer


@pytest.mark.parametrize(
    "name",
    [
        "_parse_disconnect",
        "_parse_newkeys",
        "_parse_service_accept",
        "_send_message",
        "_verify_key",
        "_channel_handler_table",
    ],
)
def test_paramiko_has_what_the_transport_overrides(name: str) -> None:
    assert hasattr(paramiko.ServiceRequestingTransport, name)


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
