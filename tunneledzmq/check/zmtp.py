"""The greeting of ZMTP 3.1 (ZeroMQ RFC 37), by which one knows who speaks it."""

from __future__ import annotations

import socket
import time
from typing import NamedTuple

from ..shared.text import printable

__all__ = ["Greeting", "NotZMTP", "greet"]

_SIGNATURE_SIZE = 10
_GREETING_SIZE = 64
# Our part of it ends with the major version: a peer says what security it wants before it hears
# what we have to offer.
_OUR_PART = b"\xff" + bytes(8) + b"\x7f\x03"

# Bytes of what a stranger says that a message shows.
_SHOWN = 60


class NotZMTP(Exception):
    """What listens there speaks something else, or nothing."""


class Greeting(NamedTuple):
    """What a peer has said."""

    speaks: str
    round_trip: float
    """Seconds from our part to the peer's answer to it."""


def greet(sock: socket.socket, timeout: float) -> Greeting:
    """Exchange greetings.

    Args:
        sock: connected to the peer.
        timeout: seconds for the whole exchange.

    Raises:
        NotZMTP: it does not speak ZMTP.
    """
    deadline = time.monotonic() + timeout
    signature, ended = _receive(sock, _SIGNATURE_SIZE, deadline)
    if len(signature) < _SIGNATURE_SIZE or signature[0] != 0xFF or not signature[9] & 1:
        raise NotZMTP(_stranger(signature + _rest(sock), ended, timeout))
    sock.sendall(_OUR_PART)
    sent_at = time.monotonic()
    version, _ = _receive(sock, 1, deadline)
    round_trip = time.monotonic() - sent_at
    if not version:
        raise NotZMTP("what listens there began like ZMTP, and then said no more")
    if version[0] < 3:
        return Greeting(f"ZMTP {version[0] + 1}.0", round_trip)
    rest, _ = _receive(sock, _GREETING_SIZE - _SIGNATURE_SIZE - 1, deadline)
    if len(rest) < _GREETING_SIZE - _SIGNATURE_SIZE - 1:
        raise NotZMTP("what listens there broke its ZMTP greeting off")
    mechanism = printable(rest[1:21].rstrip(b"\0"))
    return Greeting(f"ZMTP {version[0]}.{rest[0]}, security {mechanism}", round_trip)


def _receive(sock: socket.socket, size: int, deadline: float) -> tuple[bytes, bool]:
    """Receive `size` bytes, or what there is at the end of the time or of the stream.

    Returns:
        The bytes, and whether it was the end of the stream.
    """
    data = b""
    while len(data) < size:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = sock.recv(size - len(data))
        except TimeoutError:
            return data, False
        except OSError:
            return data, True
        if not piece:
            return data, True
        data += piece
    return data, False


def _rest(sock: socket.socket) -> bytes:
    sock.settimeout(0.1)
    try:
        return sock.recv(_SHOWN)
    except OSError:
        return b""


def _stranger(said: bytes, ended: bool, timeout: float) -> str:
    if said:
        return (
            "something listens there, but it does not speak ZMTP: it says "
            f"{said[:_SHOWN]!r}; is that the port of a ZeroMQ socket?"
        )
    if ended:
        return (
            "the connection to it was closed before a word was said: does anything listen there? "
            "Some servers confirm a connection before they have it"
        )
    return (
        f"it is connected, but was not heard within {timeout:g} s: is the peer suspended or hung, "
        "or the port another service's, or does the server confirm a connection before it has it?"
    )
