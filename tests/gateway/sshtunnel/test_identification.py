"""A server's identification, and what it may say before, read as ssh reads them."""

from __future__ import annotations

import io

import pytest
from paramiko.ssh_exception import SSHException

from tunneledzmq.gateway.sshtunnel.identification import read_identification


def identify(said: bytes, end: type[Exception] = EOFError) -> tuple[bytes, list[str]]:
    """Read the identification; return it, and what was told of the lines before."""
    told: list[str] = []
    stream = io.BytesIO(said)

    def read_line() -> bytes:
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise end
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


@pytest.mark.parametrize("end", [EOFError, ConnectionResetError])
def test_what_it_says_in_its_place_is_told_however_it_hangs_up(end: type[Exception]) -> None:
    """It is reset where it has not read ours."""
    with pytest.raises(SSHException, match="it says 'no more of you', and hangs up"):
        identify(b"no more of you\r\n", end)
    with pytest.raises(end):
        identify(b"", end)


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
