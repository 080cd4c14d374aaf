"""Sealing and opening of SSH packets in place, in buffers that are used again and again.

Both families of ciphers here send the packet's length in the clear, then what is encrypted, then
a tag: AES-GCM (RFC 5647), and encrypt-then-MAC (OpenSSH's PROTOCOL, section 1.9).
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from paramiko.ssh_exception import SSHException

__all__ = ["EtmOpener", "EtmSealer", "GcmOpener", "GcmSealer", "Opener", "Sealer"]

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_SEQUENCE = 0xFFFFFFFF
_INVOCATIONS = 0xFFFFFFFFFFFFFFFF

_GCM_TAG = 16

# Older versions of cryptography want this much more room than they use.
_SLACK = 15


class Sealer(Protocol):
    """The sending half of a cipher, with one key."""

    tag_size: int
    sequence: int
    """The next packet's sequence number; it goes on beyond 32 bits."""

    def seal(self, plain: memoryview, out: memoryview, at: int) -> None:
        """Write the packet's length, its encrypted form and the tag to `out`, from `at` on."""
        ...


class Opener(Protocol):
    """The receiving half of a cipher, with one key."""

    tag_size: int
    sequence: int
    """The next packet's sequence number; it goes on beyond 32 bits."""

    def open(self, data: memoryview, start: int, stop: int, out: memoryview, at: int) -> None:
        """Write the plain form of the packet in ``data[start:stop]`` to `out`, from `at` on.

        Raises:
            SSHException: it was changed on its way.
        """
        ...


class _Gcm:
    """AES-GCM (RFC 5647), with cryptography's ``AESGCM``."""

    tag_size = _GCM_TAG

    def __init__(self, engine: Any, nonce: bytes, sequence: int) -> None:
        self.sequence = sequence
        # Fixed part and invocation counter (RFC 5647, section 7.1).
        self._nonce = bytearray(nonce)
        self._invocation = int.from_bytes(nonce[4:], "big")
        self._engine = engine
        # cryptography 47 has them.
        self._encrypt_into = getattr(engine, "encrypt_into", self._encrypt)
        self._decrypt_into = getattr(engine, "decrypt_into", self._decrypt)

    def _encrypt(
        self, nonce: bytearray, plain: memoryview, aad: memoryview, out: memoryview
    ) -> None:
        out[:] = self._engine.encrypt(bytes(nonce), bytes(plain), bytes(aad))

    def _decrypt(
        self, nonce: bytearray, data: memoryview, aad: memoryview, out: memoryview
    ) -> None:
        out[:] = self._engine.decrypt(bytes(nonce), bytes(data), bytes(aad))


class GcmSealer(_Gcm):
    """The sending half of AES-GCM."""

    def seal(self, plain: memoryview, out: memoryview, at: int) -> None:
        """Seal a packet."""
        start = at + 4
        _U32.pack_into(out, at, len(plain))
        _U64.pack_into(self._nonce, 4, self._invocation)
        self._encrypt_into(
            self._nonce, plain, out[at:start], out[start : start + len(plain) + _GCM_TAG]
        )
        self._invocation = (self._invocation + 1) & _INVOCATIONS
        self.sequence += 1


class GcmOpener(_Gcm):
    """The receiving half of AES-GCM."""

    def open(self, data: memoryview, start: int, stop: int, out: memoryview, at: int) -> None:
        """Open a packet."""
        begin = start + 4
        _U64.pack_into(self._nonce, 4, self._invocation)
        try:
            self._decrypt_into(
                self._nonce,
                data[begin:stop],
                data[start:begin],
                out[at : at + stop - begin - _GCM_TAG],
            )
        except InvalidTag:
            raise SSHException("Mismatched MAC") from None
        self._invocation = (self._invocation + 1) & _INVOCATIONS
        self.sequence += 1


class _Etm:
    """A cipher that needs no tag of its own, with an HMAC of what it has encrypted.

    Args:
        engine: cryptography's ``CipherContext``.
        hash_function: one of :mod:`hashlib`.
        key: the HMAC's.
        tag_size: bytes of the HMAC that are sent.
        sequence: the first packet's sequence number.
    """

    def __init__(
        self,
        engine: Any,
        hash_function: Callable[..., Any],
        key: bytes,
        tag_size: int,
        sequence: int,
    ) -> None:
        self.tag_size = tag_size
        self.sequence = sequence
        self._engine = engine
        self._mac = hmac.new(key, digestmod=hash_function)

    def _tag(self, data: memoryview) -> bytes:
        mac = self._mac.copy()
        mac.update(_U32.pack(self.sequence & _SEQUENCE))
        mac.update(data)
        return mac.digest()[: self.tag_size]


class EtmSealer(_Etm):
    """The sending half of encrypt-then-MAC."""

    def seal(self, plain: memoryview, out: memoryview, at: int) -> None:
        """Seal a packet."""
        _U32.pack_into(out, at, len(plain))
        end = at + 4 + len(plain)
        self._engine.update_into(plain, out[at + 4 : end + _SLACK])
        out[end : end + self.tag_size] = self._tag(out[at:end])
        self.sequence += 1


class EtmOpener(_Etm):
    """The receiving half of encrypt-then-MAC."""

    def open(self, data: memoryview, start: int, stop: int, out: memoryview, at: int) -> None:
        """Open a packet."""
        end = stop - self.tag_size
        if not hmac.compare_digest(self._tag(data[start:end]), data[end:stop]):
            raise SSHException("Mismatched MAC")
        self._engine.update_into(data[start + 4 : end], out[at : at + end - start - 4 + _SLACK])
        self.sequence += 1
