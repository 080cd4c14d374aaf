"""Packets are sealed and opened."""

from __future__ import annotations

import hashlib
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from tunneledzmq.gateway.sshtunnel.ciphers import EtmOpener, EtmSealer, GcmOpener, GcmSealer


class OldEngine:
    """AES-GCM as it was in cryptography before it could write to a given buffer."""

    def __init__(self, key: bytes) -> None:
        engine = AESGCM(key)
        self.encrypt, self.decrypt = engine.encrypt, engine.decrypt


@pytest.mark.parametrize("open_with", [AESGCM, OldEngine])
@pytest.mark.parametrize("seal_with", [AESGCM, OldEngine])
def test_what_one_version_of_cryptography_seals_the_other_opens(
    seal_with: Any, open_with: Any
) -> None:
    key, nonce = bytes(range(16)), bytes(4) + b"\xff" * 8
    sealer = GcmSealer(seal_with(key), nonce, 0)
    opener = GcmOpener(open_with(key), nonce, 0)
    for plain in (bytes(range(32)), bytes(64)):
        packet = memoryview(bytearray(100))
        sealer.seal(memoryview(plain), packet, 0)
        out = memoryview(bytearray(100))
        opener.open(packet, 0, 4 + len(plain) + 16, out, 1)
        assert bytes(out[1 : 1 + len(plain)]) == plain


def test_a_changed_packet_is_not_opened() -> None:
    engine = Cipher(AES(bytes(16)), CTR(bytes(16)))
    pairs = (
        (GcmSealer(AESGCM(bytes(16)), bytes(12), 5), GcmOpener(AESGCM(bytes(16)), bytes(12), 5)),
        (
            EtmSealer(engine.encryptor(), hashlib.sha256, bytes(32), 32, 5),
            EtmOpener(engine.decryptor(), hashlib.sha256, bytes(32), 32, 5),
        ),
    )
    for sealer, opener in pairs:
        packet, out = memoryview(bytearray(100)), memoryview(bytearray(100))
        sealer.seal(memoryview(bytes(32)), packet, 0)
        packet[20] ^= 1
        with pytest.raises(paramiko.SSHException, match="Mismatched MAC"):
            opener.open(packet, 0, 36 + sealer.tag_size, out, 0)
