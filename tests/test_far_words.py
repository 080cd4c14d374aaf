"""What a server says, read as ssh reads it, and shown to nobody as it came."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.common import MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS
from paramiko.message import Message
from paramiko.ssh_exception import SSHException

from tunneledzmq.gateway.sshtunnel.compression import Decompressor
from tunneledzmq.gateway.sshtunnel.identification import read_identification
from tunneledzmq.gateway.sshtunnel.link import Link
from tunneledzmq.gateway.sshtunnel.message import FarMessage
from tunneledzmq.gateway.sshtunnel.transport import ForwardTransport
from tunneledzmq.gateway.traffic.pump import Pump
from tunneledzmq.gateway.traffic.refusal import refusal
from tunneledzmq.shared.text import printable

# Text


def test_what_can_be_read_is_kept() -> None:
    assert printable("Grüße an 中文") == "Grüße an 中文"
    assert printable("Grüße\n\tan 中文\r\n", lines=True) == "Grüße\n\tan 中文\n"


def test_what_cannot_be_read_is_shown_as_ssh_shows_it() -> None:
    assert printable("\x1b[2J\x00\x7f\ud800") == "\\033[2J\\000\\177\\355\\240\\200"
    assert printable(b"caf\xe9 \xff\xc3\xa9") == "caf\\351 \\377é"
    assert printable("one\r\ntwo\tthree") == "one\\015\\012two\\011three"


def test_it_is_cut() -> None:
    assert printable("x" * 400) == "x" * 400
    assert printable("x" * 401) == "x" * 400 + "..."
    assert printable(b"\x1b" * 1_000_000, 10) == "\\033\\033\\0..."


@given(st.one_of(st.text(), st.binary()), st.integers(1, 50), st.booleans())
def test_whatever_it_is(text: str | bytes, limit: int, lines: bool) -> None:
    shown = printable(text, limit, lines=lines)
    assert len(shown) <= limit + 3
    assert all(c.isprintable() or (lines and c in "\n\t") for c in shown)
    assert printable(shown, limit + 3, lines=lines) == shown
    shown.encode()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 0xFFFFFFFF])
def test_refusals(code: int) -> None:
    said = refusal(code, "\x1b]0;title\x07\n" + "no! " * 100_000)
    assert said.isprintable()
    assert len(said) < 700


# Messages


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


# Compression


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


# Identification


def identify(said: bytes) -> tuple[bytes, list[str]]:
    """Read the identification; return it, and what was told of the lines before."""
    told: list[str] = []
    stream = io.BytesIO(said)

    def read_line() -> bytes:
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line[:-1]

    return read_identification(read_line, told.append), told


@pytest.mark.parametrize(
    "line",
    [
        b"SSH-2.0-OpenSSH_9.9",
        b"SSH-1.99-x",
        b"SSH-2.1-later",
        b"SSH-2.0-caf\xe9 \xff",
        b"SSH-2.0-" + b"x" * (8192 - 8),
        b"SSH-2.0--",
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_identifications(line: bytes) -> None:
    assert identify(line + b"\r\n")[0] == line
    assert identify(line + b"\n")[0] == line


def test_what_may_come_before() -> None:
    before = [b"caf\xe9 \x1b[2J", b"", b"SSH-", b"x" * 8192] * 255 + [b"last"] * 3
    found, told = identify(b"\r\n".join([*before, b"SSH-2.0-x\r\n"]))
    assert found == b"SSH-2.0-x"
    assert len(told) == 1023
    assert all(line.isprintable() and len(line) < 500 for line in told)
    assert "caf\\351 \\033[2J" in told[0]


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0\n",
        b"SSH-1.5-old\n",
        b"SSH-3.0-new\n",
        b"SSH-x.0-x\n",
        b"SSH-2.0-\n",
        b"SSH-" + b"9" * 5000 + b".0-x\n",
        b"SSH-2.0-x\0y\n",
        b"SSH-2.0-x\ry\n",
        b"a\0b\nSSH-2.0-x\n",
        b"hello\n" * 1024 + b"SSH-2.0-x\n",
        b"x" * 8193 + b"\nSSH-2.0-x\n",
    ],
    ids=lambda said: said[:12].decode(),
)
def test_what_ssh_does_not_take_either(said: bytes) -> None:
    with pytest.raises(SSHException) as caught:
        identify(said)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


# What is asked and not listened to


def test_a_server_that_does_not_read_is_not_read_either() -> None:
    """More than a few megabytes of answers do not pile up."""
    ours, theirs = socket.socketpair()
    pump = Pump()
    link = Link(ours, pump)
    link.settimeout(0.05)
    with theirs:
        theirs.setblocking(False)
        answers = bytes(1 << 20)
        while not link._flooded:
            link.send(answers)
        theirs.send(b"one more question")
        with pytest.raises(TimeoutError):
            link.recv(100)
        spent = time.process_time()
        with pytest.raises(TimeoutError):
            link.recv(100)
        assert time.process_time() - spent < 0.04  # it waits, and does not look again and again
        link.settimeout(5)
        reader = threading.Thread(target=read_all, args=(theirs,))
        reader.start()
        assert link.recv(100) == b"one more question"
        link.abort()
        reader.join()
    pump.close()


def read_all(sock: socket.socket) -> None:
    sock.setblocking(True)
    while sock.recv(1 << 20):
        pass


@pytest.fixture
def transport() -> Iterator[ForwardTransport]:
    """A session that has not begun."""
    ours, theirs = socket.socketpair()
    pump = Pump()
    link = Link(ours, pump)
    with theirs:
        yield ForwardTransport(link, lambda transport, reason: None)
        link.abort()
    pump.close()


def test_answers_do_not_pile_up_in_a_key_exchange(transport: ForwardTransport) -> None:
    transport.clear_to_send.clear()
    request = Message(struct.pack(">I", 3) + b"ask\1")
    with pytest.raises(EOFError, match="asks too much"):  # noqa: PT012
        for _ in range(100_000):
            request.rewind()
            transport._parse_global_request(request)
    assert len(transport._deferred) < 50_000


def test_answers_without_questions_do_not_pile_up(transport: ForwardTransport) -> None:
    userauth = transport.get_auth_handler()
    with pytest.raises(SSHException, match="was not asked"):  # noqa: PT012
        for _ in range(100):
            userauth._handler_table[MSG_USERAUTH_FAILURE](FarMessage(string(b"x") + b"\0", 0))
    userauth._handler_table[MSG_USERAUTH_SUCCESS](FarMessage(b"", 0))
    assert not userauth._handler_table  # from now on they have no meaning
