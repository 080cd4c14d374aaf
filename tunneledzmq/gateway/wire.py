"""Strings and integers as SSH has them (RFC 4251, section 5), read strictly."""

from __future__ import annotations

__all__ = ["Reader", "pack_string"]


class Reader:
    """Reads what somebody else has written.

    All methods raise :exc:`ValueError` where the data is cut short.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def rest(self) -> bytes:
        """What has not been read yet."""
        return self._data[self._position :]

    def take(self, count: int) -> bytes:
        """Read `count` bytes."""
        end = self._position + count
        if end > len(self._data):
            raise ValueError("the data is cut short")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def boolean(self) -> bool:
        """Read one byte that is zero or not."""
        return self.take(1) != b"\0"

    def uint32(self) -> int:
        """Read a number of four bytes."""
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        """Read a number of eight bytes."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """Read a string."""
        return self.take(self.uint32())

    def text(self) -> str:
        """Read a string of characters, of which nothing but ASCII is certain."""
        return self.string().decode(errors="replace")

    def strings(self) -> list[bytes]:
        """Read all the strings that are left."""
        found = []
        while self.rest:
            found.append(self.string())
        return found


def pack_string(data: bytes | str) -> bytes:
    """Return `data` as a string; what stands for bytes that were no text is those bytes again."""
    if isinstance(data, str):
        data = data.encode(errors="surrogateescape")
    return len(data).to_bytes(4, "big") + data
