"""The greeting of ZMTP 3.1 (ZeroMQ RFC 37), by which one knows who speaks it."""

from __future__ import annotations

import socket
import time

from ..shared.text import printable

__all__ = ["NotZMTP", "greet"]

_SIGNATURE_SIZE = 10
_GREETING_SIZE = 64
# Our part of it ends with the major version: a peer says what security it wants before it hears
# what we have to offer.
_OUR_PART = b"\xff" + bytes(8) + b"\x7f\x03"

# Bytes of what a stranger says that a message shows.
_SHOWN = 60


class NotZMTP(Exception):
    """What listens there speaks something else, or nothing."""


def greet(sock: socket.socket, timeout: float) -> str:
    """Exchange greetings.

    Args:
        sock: connected to the peer.
        timeout: seconds for the whole exchange.

    Returns:
        What the peer speaks.

    Raises:
        NotZMTP: it does not speak ZMTP.
    """
    deadline = time.monotonic() + timeout
    signature = _receive(sock, _SIGNATURE_SIZE, deadline)
    if len(signature) < _SIGNATURE_SIZE or signature[0] != 0xFF or not signature[9] & 1:
        raise NotZMTP(_stranger(signature + _rest(sock)))
    sock.sendall(_OUR_PART)
    version = _receive(sock, 1, deadline)
    if not version:
        raise NotZMTP("what listens there began like ZMTP, and then said no more")
    if version[0] < 3:
        return f"ZMTP {version[0] + 1}.0"
    rest = _receive(sock, _GREETING_SIZE - _SIGNATURE_SIZE - 1, deadline)
    if len(rest) < _GREETING_SIZE - _SIGNATURE_SIZE - 1:
        raise NotZMTP("what listens there broke its ZMTP greeting off")
    mechanism = printable(rest[1:21].rstrip(b"\0"))
    return f"ZMTP {version[0]}.{rest[0]}, security {mechanism}"


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Receive `size` bytes, or what there is at the end of the time or of the stream."""
    data = b""
    while len(data) < size:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = sock.recv(size - len(data))
        except OSError:
            break
        if not piece:
            break
        data += piece
    return data


def _rest(sock: socket.socket) -> bytes:
    sock.settimeout(0.1)
    try:
        return sock.recv(_SHOWN)
    except OSError:
        return b""


def _stranger(said: bytes) -> str:
    text = "something listens there, but it does not speak ZMTP: "
    if not said:
        return text + "it says nothing; is that the port of a ZeroMQ socket?"
    return text + f"it says {said[:_SHOWN]!r}; is that the port of a ZeroMQ socket?"
