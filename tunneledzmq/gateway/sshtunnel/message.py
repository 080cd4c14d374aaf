"""What the server sends, read as ssh reads it."""

from __future__ import annotations

from paramiko.message import Message
from paramiko.ssh_exception import SSHException

__all__ = ["FarMessage"]

# Bytes of an integer at most (sshbuf.h, SSHBUF_MAX_BIGNUM: 16,384 bits), and the sign's.
_MAX_MPINT = 16384 // 8 + 1


class FarMessage(Message):  # type: ignore[misc]
    """A message of the server, for paramiko's handlers and ours.

    paramiko's own makes up what is missing from a message that is cut short, so that a loop over a
    count in it has no end; it ends the session over text that is not UTF-8; and it takes integers
    of any size, with which a packet keeps a core busy for ten seconds, or below zero, with which
    it never ends.

    Args:
        content: what follows the message's number.
        seqno: the packet's number.
    """

    def __init__(self, content: bytes, seqno: int) -> None:
        super().__init__(content)
        self.seqno = seqno

    def get_bytes(self, n: int) -> bytes:
        """Read `n` bytes."""
        data: bytes = self.packet.read(n)
        if len(data) < n:
            raise SSHException("a message of the server is cut short")
        return data

    def get_text(self) -> str:
        """Read a string of characters, of which nothing but ASCII is certain."""
        data: bytes = self.get_string()
        return data.decode(errors="replace")

    def get_mpint(self) -> int:
        """Read an integer as key exchanges have it: not below zero, nor beyond all sense."""
        data: bytes = self.get_string()
        if len(data) > _MAX_MPINT or data[:1] >= b"\x80":
            raise SSHException("a message of the server has an integer out of range")
        return int.from_bytes(data, "big")
