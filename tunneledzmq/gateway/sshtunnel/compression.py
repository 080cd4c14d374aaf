"""Decompression of packets (RFC 4253, section 6.2), which may not grow without bound."""

from __future__ import annotations

import zlib

from paramiko.ssh_exception import SSHException

__all__ = ["Decompressor"]


class Decompressor:
    """Takes the place of paramiko's, which makes 250 MB of a packet of 256 KiB.

    Args:
        limit: bytes to which a packet may grow.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stream = zlib.decompressobj()

    def __call__(self, data: bytes) -> bytes:
        """Decompress a packet.

        Raises:
            SSHException: it is larger than a packet may be, or has nothing in it.
        """
        try:
            payload = self._stream.decompress(data, self._limit + 1)
        except zlib.error as exc:
            raise SSHException(f"a packet that cannot be decompressed: {exc}") from exc
        if not 0 < len(payload) <= self._limit:
            raise SSHException("a compressed packet of a size that it may not have")
        return payload
