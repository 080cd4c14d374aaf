"""Packets that are compressed may not grow without bound."""

from __future__ import annotations

import zlib

import pytest
from paramiko.ssh_exception import SSHException

from tunneledzmq.gateway.sshtunnel.compression import Decompressor


def test_packets_are_decompressed_one_after_the_other() -> None:
    deflate, inflate = zlib.compressobj(), Decompressor(1000)
    for payload in (b"one", b"x" * 1000, bytes(range(256)), b"one"):
        packet = deflate.compress(payload) + deflate.flush(zlib.Z_PARTIAL_FLUSH)
        assert inflate(packet) == payload


@pytest.mark.parametrize(
    "packet",
    [zlib.compress(bytes(1001)), zlib.compress(bytes(1 << 24)), zlib.compress(b""), b"garbage"],
    ids=["larger by one", "a bomb", "nothing", "garbage"],
)
def test_packets_of_no_use(packet: bytes) -> None:
    with pytest.raises(SSHException, match="packet"):
        Decompressor(1000)(packet)
