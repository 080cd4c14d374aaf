"""The server's identification, and what it may say before (RFC 4253, section 4.2), as ssh does it.

paramiko's reading of it wants UTF-8, and no more than 100 lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from paramiko.ssh_exception import IncompatiblePeer, SSHException

from ...shared.text import printable

__all__ = ["MAX_LINE", "ZMTP", "ZMTP_THERE", "check_beginning", "read_identification"]

MAX_LINE = 8192
"""Bytes of a line at most (SSH_MAX_BANNER_LEN), its end left out."""

ZMTP = b"\xff\0"
"""How all ZeroMQ sockets begin."""

ZMTP_THERE = "a ZeroMQ socket listens there; are the address and ssh= the wrong way round?"

# Lines up to the identification (SSH_MAX_PRE_BANNER_LINES).
_MAX_LINES = 1024

_IDENTIFICATION = re.compile(rb"SSH-([0-9]{1,9})\.([0-9]{1,9})-.")


def read_identification(read_line: Callable[[], bytes], tell: Callable[[str], None]) -> bytes:
    """Read up to the server's identification, and return it: the key exchange signs its bytes.

    Args:
        read_line: reads a line, and returns it without its line feed.
        tell: told of the lines before it.

    Raises:
        SSHException: there is none, or one of another protocol.
    """
    first = ""
    for _ in range(_MAX_LINES):
        try:
            line = read_line().rstrip(b"\r")
        except (EOFError, ConnectionError):
            if first:
                raise SSHException(f"it says '{first}', and hangs up") from None
            raise
        if len(line) > MAX_LINE or b"\r" in line or b"\0" in line:
            raise SSHException("what it says before its identification is no text")
        if line.startswith(b"SSH-") and line != b"SSH-":
            _check(line)
            return line
        first = first or printable(line).strip()
        tell(f"before its identification: {printable(line)}")
    raise SSHException(f"no identification in its first {_MAX_LINES} lines")


def check_beginning(data: bytes) -> None:
    """Look at what the server says first: what is known by that need not be waited for.

    Raises:
        SSHException: it is no SSH server.
    """
    # The signature of ZMTP 2.0 and later (ZeroMQ RFC 15), which is no text.
    if data.startswith(ZMTP):
        raise SSHException(ZMTP_THERE)


def _check(line: bytes) -> None:
    found = _IDENTIFICATION.match(line)
    if found is None:
        raise SSHException(f"its identification is malformed: {printable(line)}")
    # 1.99 stands for both versions.
    if int(found[1]) != 2 and (int(found[1]), int(found[2])) != (1, 99):
        raise IncompatiblePeer(f"it speaks another version of the protocol: {printable(line)}")
