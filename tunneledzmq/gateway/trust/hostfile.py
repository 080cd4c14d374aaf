"""The lines of known_hosts files, as OpenSSH reads them (``hostfile.c``).

The format is sshd(8)'s "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import binascii
import hmac
import logging
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..config.wildcards import match_list
from .hostkeys import HostKey, decode_base64, read_key

__all__ = ["Entry", "hash_name", "parse"]

logger = logging.getLogger("tunneledzmq")

_SALT_SIZE = 20
_MARKERS = {b"@revoked": "revoked", b"@cert-authority": "cert-authority"}

# What separates two fields. A NUL ends the names of the hosts, and for OpenSSH the key follows it.
_BLANKS = re.compile(rb"[ \t]+")
_END_OF_NAMES = re.compile(rb"[ \t\0][ \t]*")


class Entry(NamedTuple):
    """A line with a key."""

    line: int
    """Its number, from 1."""

    marker: str
    """``""``, ``"revoked"`` or ``"cert-authority"``."""

    hosts: _Patterns | _HashedName
    key: HostKey


class _Patterns(NamedTuple):
    text: str

    def match(self, name: str) -> bool:
        return match_list(name, self.text, ignore_case=True)


class _HashedName(NamedTuple):
    text: str
    salt: bytes

    def match(self, name: str) -> bool:
        return hash_name(name, self.salt) == self.text


def parse(path: str, text: bytes) -> Iterator[Entry]:
    """Yield what a file says. Malformed lines are skipped, and logged at level DEBUG."""
    for number, raw in enumerate(text.split(b"\n"), start=1):
        line = raw.lstrip(b" \t")
        # A crash may leave blocks of NULs in a file; for OpenSSH, one ends the line.
        if not line or line.startswith((b"#", b"\0")):
            continue
        try:
            yield _parse_line(number, line)
        except ValueError as exc:
            logger.debug("%s:%d: line skipped: %s", path, number, exc)


def hash_name(name: str, salt: bytes | None = None) -> str:
    """Hide the name of a host, as with ``HashKnownHosts``."""
    salt = os.urandom(_SALT_SIZE) if salt is None else salt
    digest = hmac.digest(salt, os.fsencode(name), "sha1")
    encoded = (binascii.b2a_base64(part, newline=False).decode() for part in (salt, digest))
    return f"|1|{'|'.join(encoded)}"


def _parse_line(number: int, line: bytes) -> Entry:
    marker = ""
    if line.startswith(b"@"):
        word, line = [*_BLANKS.split(line, maxsplit=1), b""][:2]
        marker = _MARKERS.get(word, "")
        if not marker or line.startswith(b"@"):
            raise ValueError("an unknown marker, or several")
    hosts, key = [*_END_OF_NAMES.split(line, maxsplit=1), b""][:2]
    key = key.partition(b"\0")[0]
    if not key or key.startswith(b"#"):
        raise ValueError("host names or key missing")
    return Entry(number, marker, _parse_hosts(os.fsdecode(hosts)), read_key(key))


def _parse_hosts(field: str) -> _Patterns | _HashedName:
    if not field.startswith("|"):
        return _Patterns(field)
    _, version, *rest = field.split("|")
    salt = decode_base64(rest[0].encode()) if rest else b""
    if version != "1" or len(rest) != 2 or len(salt) != _SALT_SIZE:
        raise ValueError("hashed host name of an unknown kind")
    return _HashedName(field, salt)
