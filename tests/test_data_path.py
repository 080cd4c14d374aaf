"""What goes in comes out, whatever the cipher, and whatever paramiko is like inside."""

from __future__ import annotations

import logging
import random
import threading
import time

import paramiko
import pytest
import zmq

from tests.logins import Server, options_for
from tests.peers import Peer
from tests.sshd import OpenSSHServer
from tunneledzmq import TunneledContext
from tunneledzmq.gateway.sshtunnel.ciphers import EtmSealer
from tunneledzmq.gateway.sshtunnel.packetizer import (
    LinkPacketizer,
)
from tunneledzmq.gateway.sshtunnel.transport import ForwardTransport

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


@pytest.mark.parametrize("batches", [True, False], ids=["batches", "plain"])
@pytest.mark.parametrize("way", WAYS)
def test_keys_are_exchanged_in_the_middle_of_traffic(
    way: str,
    batches: bool,
    server: Server,
    echo: Peer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not batches:
        monkeypatch.setenv("TUNNELEDZMQ_NO_BATCHES", "1")
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


@pytest.mark.parametrize("batches", [True, False], ids=["batches", "plain"])
def test_the_server_may_ask_for_new_keys(
    batches: bool, ctx: TunneledContext, echo: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not batches:
        monkeypatch.setenv("TUNNELEDZMQ_NO_BATCHES", "1")
    with OpenSSHServer(RekeyLimit="1M") as server:
        sock = ctx.socket(zmq.DEALER)
        sock.connect(echo.address, ssh=options_for(server))
        exchange(sock, megabytes=10)
        assert sock.tunnels[0].reconnects == 0
        sock.close(linger=0)


@pytest.mark.parametrize("asks", ["client", "server"])
def test_traffic_stops_no_longer_than_the_key_exchange(
    asks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    took: list[float] = []

    def send_kex_init(transport: ForwardTransport) -> None:
        begun.append(time.monotonic())
        paramiko.Transport._send_kex_init(transport)

    def parse_newkeys(transport: ForwardTransport, message: paramiko.Message) -> None:
        resume(transport, message)
        took.append(time.monotonic() - begun[-1])

    resume = ForwardTransport._parse_newkeys
    monkeypatch.setattr(ForwardTransport, "_send_kex_init", send_kex_init)
    monkeypatch.setattr(ForwardTransport, "_parse_newkeys", parse_newkeys)
    if asks == "client":
        monkeypatch.setattr(LinkPacketizer, "REKEY_BYTES", 1 << 23)
    with (
        OpenSSHServer(**{"RekeyLimit": "8M"} if asks == "server" else {}) as server,
        Peer("source") as source,
        TunneledContext(isolate=False) as ctx,
        ctx.socket(zmq.PULL) as sock,
    ):
        sock.linger = 0
        sock.rcvtimeo = 10_000
        sock.connect(source.address, ssh=options_for(server))
        sending = threading.Thread(target=source.send, args=(8000, 10_000))
        sending.start()
        sock.recv()
        longest, before = 0.0, time.monotonic()
        for _ in range(7999):
            sock.recv()
            longest = max(longest, time.monotonic() - before)
            before = time.monotonic()
        sending.join()
    assert len(took) > 5
    # Besides, other processes want the processor.
    assert longest < max(took[1:]) + 0.2


@pytest.mark.parametrize("name", ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"])
def test_batches_are_used_without_aes_gcm(
    name: str, echo: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: list[int] = []
    seal = EtmSealer.seal

    def count(sealer: EtmSealer, plain: memoryview, out: memoryview, at: int) -> None:
        sealed.append(len(plain))
        seal(sealer, plain, out, at)

    monkeypatch.setattr(EtmSealer, "seal", count)
    with (
        OpenSSHServer(Ciphers="aes256-ctr", MACs=f"hmac-sha2-256,{name}") as server,
        TunneledContext(isolate=False) as ctx,
        ctx.socket(zmq.DEALER) as sock,
    ):
        sock.rcvtimeo = sock.sndtimeo = 10_000
        sock.linger = 0
        sock.connect(echo.address, ssh=options_for(server))
        exchange(sock, megabytes=10)
        assert sock.tunnels[0].reconnects == 0
    assert sum(sealed) > 10 << 20


def test_paramiko_does_the_work_where_nothing_fits_the_batches(
    ctx: TunneledContext, echo: Peer
) -> None:
    with OpenSSHServer(Ciphers="aes128-ctr", MACs="hmac-sha2-256") as server:
        sock = ctx.socket(zmq.DEALER)
        sock.connect(echo.address, ssh=options_for(server))
        exchange(sock, megabytes=10)
        assert sock.tunnels[0].reconnects == 0
        sock.close(linger=0)
