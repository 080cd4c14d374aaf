"""Messages of a server, read as ssh reads them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from paramiko.ssh_exception import SSHException

from tunneledzmq.gateway.sshtunnel.message import FarMessage


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def test_text_need_not_be_utf_8() -> None:
    assert FarMessage(string(b"caf\xe9"), 0).get_text() == "caf\ufffd"
    assert FarMessage(string(b"a,\xff"), 0).get_list() == ["a", "\ufffd"]


@pytest.mark.parametrize(
    "read",
    [
        FarMessage.get_int,
        FarMessage.get_boolean,
        FarMessage.get_string,
        FarMessage.get_text,
        FarMessage.get_mpint,
        FarMessage.get_list,
    ],
)
@pytest.mark.parametrize(
    "content", [b"", b"\0\0\0\x05hell", b"\xff\xff\xff\xff", b"\0\x0f\xff\xff"]
)
def test_what_is_missing_is_not_made_up(
    read: Callable[[FarMessage], object], content: bytes
) -> None:
    message = FarMessage(content, 0)
    with pytest.raises(SSHException, match="cut short"):  # noqa: PT012
        for _ in range(10):  # the first may be there
            read(message)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**16384 - 1], ids=hex)
def test_integers(number: int) -> None:
    data = number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b""
    assert FarMessage(string(data), 0).get_mpint() == number


@pytest.mark.parametrize(
    "data",
    [b"\x80", b"\xff\x00" + bytes(255), b"\x01" + bytes(2049), b"\x7f" * 250_000],
    ids=["negative", "negative, as a modulus", "too large", "huge"],
)
def test_integers_without_sense(data: bytes) -> None:
    with pytest.raises(SSHException, match="out of range"):
        FarMessage(string(data), 0).get_mpint()
