"""Packets in batches: all of it arrives, in order, however it is cut."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from paramiko.common import MSG_IGNORE
from paramiko.message import Message
from paramiko.packet import Packetizer

from tunneledzmq.gateway.sshtunnel.link import Link
from tunneledzmq.gateway.sshtunnel.packetizer import (
    HEADROOM,
    TAILROOM,
    BatchPacketizer,
    LinkPacketizer,
    packetizer_class,
)
from tunneledzmq.gateway.traffic.pump import Pump

KEY, IV = bytes(range(16)), bytes(12)


class Channel:
    """A channel that keeps what comes for it."""

    def __init__(self, number: int, max_packet: int = 1 << 15) -> None:
        self.remote_id = number
        self.max_packet = max_packet
        self.received = b""
        self.room = 0

    def feed(self, data: memoryview) -> None:
        self.received += data

    def window_adjust(self, size: int) -> None:
        self.room += size


class Session:
    """One end of a session whose keys have been exchanged."""

    in_kex = False
    expects_packet = False

    def __init__(self, sock: socket.socket, channels: list[Channel], kind: Any) -> None:
        self.pump = Pump()
        self.link = Link(sock, self.pump)
        self.connections = {channel.remote_id: channel for channel in channels}
        self.packetizer = kind(self.link)
        self.packetizer.session = self
        for set_cipher, name in (
            (self.packetizer.set_outbound_cipher, "iv_out"),
            (self.packetizer.set_inbound_cipher, "iv_in"),
        ):
            set_cipher(AESGCM(KEY), 16, None, 16, None, aead=True, **{name: IV})

    def send_data(self, channel: Channel, data: bytes) -> None:
        buffer = memoryview(bytes(HEADROOM) + data + bytes(TAILROOM)).cast("B")
        self.packetizer.send_data(channel, memoryview(bytearray(buffer)), len(data))

    def write_all(self) -> None:
        """Write until the other end has all: as the session's thread does while it waits."""
        while self.link._output_end:
            self.pump.run_once(1)

    def close(self) -> None:
        self.link.abort()
        self.pump.close()


def ignored(text: bytes) -> Message:
    message = Message()
    message.add_byte(bytes([MSG_IGNORE]))
    message.add_string(text)
    return message


@given(
    pieces=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 100_000)), min_size=1, max_size=8),
    max_packet=st.sampled_from([1, 100, 1 << 15]),
    sender=st.sampled_from([BatchPacketizer, LinkPacketizer]),
)
def test_what_goes_in_comes_out(
    pieces: list[tuple[int, int]], max_packet: int, sender: type[LinkPacketizer]
) -> None:
    if max_packet == 1:
        pieces = [(number, size % 300 + 1) for number, size in pieces]
    ours, theirs = socket.socketpair()
    channels = [Channel(number, max_packet) for number in range(2)]
    here, there = Session(ours, channels, sender), Session(theirs, channels, BatchPacketizer)
    sent = [b"", b""]
    try:
        for number, size in pieces:
            data = os.urandom(size)
            sent[number] += data
            here.send_data(channels[number], data)
            # A message in between is for paramiko, and comes when all before it has been fed.
            here.packetizer.send_message(ignored(b"%d" % size))
            writing = threading.Thread(target=here.write_all)
            writing.start()
            kind, message = there.packetizer.read_message()
            assert (kind, message.get_string()) == (MSG_IGNORE, b"%d" % size)
            writing.join()
            assert [channel.received for channel in channels] == sent
    finally:
        here.close()
        there.close()


def test_a_packet_that_was_changed_ends_the_session() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(0)
    here, there = Session(ours, [channel], BatchPacketizer), None
    try:
        here.send_data(channel, b"hello")
        packet = bytearray(theirs.recv(1000))
        packet[9] ^= 1
        middle, far = socket.socketpair()
        with middle:
            middle.sendall(packet)
            there = Session(far, [channel], BatchPacketizer)
            with pytest.raises(paramiko.SSHException, match="Mismatched MAC"):
                there.packetizer.read_message()
        assert channel.received == b""
    finally:
        here.close()
        theirs.close()
        if there is not None:
            there.close()


def test_batches_are_used_where_paramiko_is_as_expected() -> None:
    assert packetizer_class() is BatchPacketizer


def test_paramiko_does_the_work_where_it_is_not_as_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Packetizer, "_trigger_rekey")
    assert packetizer_class() is LinkPacketizer
