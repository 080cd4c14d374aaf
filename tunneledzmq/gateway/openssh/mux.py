"""The protocol of an ssh master's control socket (OpenSSH's PROTOCOL.mux), without I/O.

Each message is a length and a type, then the body. We ask for nothing but one channel for each
control connection (``ssh -W`` over a master does the same), and for the master's end.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "FAILURES",
    "HELLO",
    "SESSION_OPENED",
    "ProtocolError",
    "Receiver",
    "hello",
    "stdio_forward",
    "terminate",
]

HELLO = 0x00000001
_TERMINATE = 0x10000005
_NEW_STDIO_FORWARD = 0x10000008
SESSION_OPENED = 0x80000006
FAILURES = (0x80000002, 0x80000003)
"""Permission denied, and failure."""

_VERSION = 4

# A reply holds a number or a sentence.
_MAX_SIZE = 1 << 16

_UINT32 = Struct(">I")


class ProtocolError(Exception):
    """What is at the control socket speaks another protocol."""


def hello() -> bytes:
    """Return the greeting that each side begins with."""
    return _message(HELLO, _uint32(_VERSION))


def stdio_forward(host: str, port: int) -> bytes:
    """Ask for a channel to an address that the server reaches.

    Two descriptors follow, each with a byte of its own: where ssh reads, and where it writes.
    """
    reserved = _string(b"")
    return _message(_NEW_STDIO_FORWARD, _uint32(0), reserved, _string(host.encode()), _uint32(port))


def terminate() -> bytes:
    """Ask the master to end in order."""
    return _message(_TERMINATE, _uint32(0))


class Receiver:
    """Puts messages together from what arrives."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[int, str]]:
        """Take data; return the messages that are complete: type, and the text of a failure.

        Raises:
            ProtocolError: the other side is no ssh master that we know.
        """
        self._data += data
        messages = []
        while len(self._data) >= 4:
            (size,) = _UINT32.unpack_from(self._data)
            if not 4 <= size <= _MAX_SIZE:
                raise ProtocolError(f"a message of {size} bytes")
            if len(self._data) < 4 + size:
                break
            body, self._data = self._data[4 : 4 + size], self._data[4 + size :]
            messages.append(_parse(body))
        return messages


def _parse(body: bytes) -> tuple[int, str]:
    (kind,) = _UINT32.unpack_from(body)
    if kind == HELLO:
        if body[4:8] != _uint32(_VERSION):
            raise ProtocolError("another version of the control protocol")
        return kind, ""
    # Failures have the number of the request, and a text with its length.
    return kind, body[12:].decode(errors="replace") if kind in FAILURES else ""


def _message(kind: int, *fields: bytes) -> bytes:
    return _string(_uint32(kind) + b"".join(fields))


def _string(data: bytes) -> bytes:
    return _uint32(len(data)) + data


def _uint32(value: int) -> bytes:
    return _UINT32.pack(value)
