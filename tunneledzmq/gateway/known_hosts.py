"""Verification of SSH host keys against ``known_hosts`` files, as OpenSSH does it.

The format is sshd(8)'s "SSH_KNOWN_HOSTS FILE FORMAT", the verdicts are those of ``check_host_key``
in OpenSSH's ``sshconnect.c``. Keys are compared as raw blobs, so that types that paramiko doesn't
implement are as good as any. Replaces ``paramiko.HostKeys``, which has no patterns and no markers.
"""

from __future__ import annotations

import binascii
import contextlib
import enum
import errno
import fnmatch
import hmac
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    import paramiko

__all__ = [
    "DEFAULT_SYSTEM_FILES",
    "DEFAULT_USER_FILES",
    "KnownHosts",
    "KnownKey",
    "Verdict",
    "add",
    "fingerprint",
    "load_keys",
    "lookup_name",
]

DEFAULT_USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
DEFAULT_SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")

logger = logging.getLogger("tunneledzmq")

_SSH_PORT = 22
_SALT_SIZE = 20

# Seconds to wait for another process that adds a key: a lock may be anybody's who may read the
# file, and OpenSSH takes none.
_LOCK_TIMEOUT = 1.0
_LOCK_STEP = 0.002
_MARKERS = {b"@revoked": "revoked", b"@cert-authority": "cert-authority"}

# Names of signatures (RFC 8332) made with an ssh-rsa key; OpenSSH takes them for the key's type.
_RSA_SIGNATURES = (b"rsa-sha2-256", b"rsa-sha2-512")

# With one of these in it, a host's name would be a pattern, a marker or another field or line.
_NOT_IN_A_NAME = re.compile(r"[@?*#\[\]|'\"\\!,\x00-\x20\x7f]|^$")


class Verdict(enum.Enum):
    """What known_hosts files say about a key that a host has shown."""

    KNOWN = "known"
    """The host is known with this very key."""

    UNKNOWN = "unknown"
    """No key is known for the host."""

    CHANGED = "changed"
    """The host is known, but only with other keys, be they of this type or another."""

    REVOKED = "revoked"
    """The key is marked ``@revoked`` for the host, and must not be accepted even if it is known."""


@dataclass(frozen=True)
class KnownKey:
    """A key in a known_hosts file.

    Attributes:
        file: Path of the file, ``~`` expanded.
        line: Number of the line, from 1.
        marker: ``""``, ``"revoked"`` or ``"cert-authority"``.
        key_type: As in the key itself: ``"ssh-rsa"``, never ``"rsa-sha2-256"``.
        blob: The public key as RFC 4253 section 6.6 encodes it.
    """

    file: str
    line: int
    marker: str
    key_type: str
    blob: bytes


class KnownHosts:
    """The entries of some known_hosts files, in file order; immutable."""

    def __init__(self, entries: Iterable[_Entry] = ()) -> None:
        self._entries = tuple(entries)

    @classmethod
    def load(cls, files: Iterable[str]) -> KnownHosts:
        """Read known_hosts files. Malformed lines are skipped, and logged at level DEBUG.

        Args:
            files: Paths; ``~`` is expanded. A missing file is an empty one.

        Raises:
            OSError: A file exists but cannot be read; names the file.
        """
        entries: list[_Entry] = []
        for path in map(os.path.expanduser, files):
            with contextlib.suppress(FileNotFoundError), _naming(path), open(path, "rb") as stream:
                entries += _parse(path, stream.read())
        return cls(entries)

    def find(self, host: str, port: int) -> list[KnownKey]:
        """Return all keys that the files have for a host, with or without a marker.

        Those of the plain `host` follow where none without a marker is there for ``[host]:port``.
        """
        keys = self._lookup(host, port)
        if port != _SSH_PORT and all(key.marker for key in keys):
            keys += self._lookup(host, _SSH_PORT)
        return list(dict.fromkeys(keys))

    def key_types(self, host: str, port: int) -> list[str]:
        """Return the types of the keys that the host may show, in file order.

        A client that asks for these first isn't shown a key of a type that isn't known yet, which
        it would have to take for a changed key.
        """
        keys = self.find(host, port)
        revoked = {key.blob for key in keys if key.marker == "revoked"}
        usable = (key for key in keys if not key.marker and key.blob not in revoked)
        return list(dict.fromkeys(key.key_type for key in usable))

    def verify(self, host: str, port: int, key: paramiko.PKey) -> Verdict:
        """Judge the key that a host has shown.

        As with OpenSSH, a key of another type than the known ones is a changed key: else an
        impostor had only to offer a type that isn't known yet. A key known for the plain `host`
        counts for ``[host]:port`` if none is known there; a different one doesn't, since it may
        well be another server's.
        """
        blob = key.asbytes()
        verdict = _judge(self._lookup(host, port), blob)
        if verdict is Verdict.UNKNOWN and port != _SSH_PORT:
            plain = _judge(self._lookup(host, _SSH_PORT), blob)
            # OpenSSH's accept-new adds a key that is revoked for the plain host; we are stricter.
            if plain in (Verdict.KNOWN, Verdict.REVOKED):
                return plain
        return verdict

    def _lookup(self, host: str, port: int) -> list[KnownKey]:
        name = os.fsencode(lookup_name(host, port))
        return [entry.key for entry in self._entries if entry.hosts.match(name)]


def fingerprint(key: paramiko.PKey) -> str:
    """Return the fingerprint of a key as ``ssh-keygen -l`` prints it: ``SHA256:...``."""
    text: str = key.fingerprint
    return text


def lookup_name(host: str, port: int) -> str:
    """Return the name of a host in known_hosts files, as ssh writes it: `host` or ``[host]:port``.

    Args:
        host: A name, or an address without brackets.
        port: Its SSH port; only 22 gives the plain name.
    """
    # Bytes, since Python would make addresses of names that aren't ASCII, and ssh wouldn't.
    encoded = os.fsencode(host)
    try:
        address = socket.getaddrinfo(encoded, None, flags=socket.AI_NUMERICHOST)[0][4]
        name, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    except (OSError, ValueError):
        name = os.fsdecode(encoded.lower())
    return name if port == _SSH_PORT else f"[{name}]:{port}"


def load_keys(file: str) -> list[bytes]:
    """Read a file of public keys, one a line (``RevokedHostKeys``); return their blobs.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is a key revocation list (KRL), or a line is malformed; says which.
    """
    with open(file, "rb") as stream:
        text = stream.read()
    if text.startswith(b"SSHKRL\n\0"):
        raise ValueError("a key revocation list (KRL), for which backend='openssh' is needed")
    blobs = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        try:
            blobs.append(_parse_key(fields[0], fields[1])[1])
        except (ValueError, IndexError):
            raise ValueError(f"line {number} is no public key") from None
    return blobs


def add(file: str, host: str, port: int, key: paramiko.PKey, *, hashed: bool = False) -> Verdict:
    """Add a key to a known_hosts file, unless the file has one for this host by now.

    The line is appended as a whole or not at all, also where several processes add at a time. A
    missing file is created with mode 0600, a missing ``~/.ssh`` with mode 0700.

    Args:
        file: Path; ``~`` is expanded.
        hashed: Whether to hide the host's name (``HashKnownHosts``).

    Returns:
        What the file said of the key: it was added if that is :attr:`Verdict.UNKNOWN`.

    Raises:
        OSError: The key cannot be added; names the file.
        ValueError: `host` would mean something else in a known_hosts file.
    """
    if _NOT_IN_A_NAME.search(host):
        raise ValueError(f"host name {host!r} cannot stand in a known_hosts file")
    path = os.path.expanduser(file)
    with _naming(path), _open_locked(path) as descriptor:
        with open(descriptor, "rb", closefd=False) as stream:
            text = stream.read()
        verdict = KnownHosts(_parse(path, text)).verify(host, port, key)
        if verdict is not Verdict.UNKNOWN:
            return verdict
        newline = "" if not text or text.endswith(b"\n") else "\n"
        name = lookup_name(host, port)
        line = (
            f"{newline}{_hash_name(name) if hashed else name} {key.get_name()} {key.get_base64()}\n"
        )
        _append(descriptor, os.fsencode(line))
    return verdict


def _hash_name(name: str) -> str:
    salt = os.urandom(_SALT_SIZE)
    digest = hmac.digest(salt, os.fsencode(name), "sha1")
    encoded = (binascii.b2a_base64(part, newline=False).decode() for part in (salt, digest))
    return f"|1|{'|'.join(encoded)}"


class _Patterns(NamedTuple):
    accepted: tuple[bytes, ...]
    excepted: tuple[bytes, ...]

    def match(self, name: bytes) -> bool:
        return any(_match_wildcards(name, pattern) for pattern in self.accepted) and not any(
            _match_wildcards(name, pattern) for pattern in self.excepted
        )


class _HashedName(NamedTuple):
    salt: bytes
    digest: bytes

    def match(self, name: bytes) -> bool:
        return hmac.digest(self.salt, name, "sha1") == self.digest


class _Entry(NamedTuple):
    hosts: _Patterns | _HashedName
    key: KnownKey


def _judge(keys: list[KnownKey], blob: bytes) -> Verdict:
    if any(key.marker == "revoked" and key.blob == blob for key in keys):
        return Verdict.REVOKED
    blobs = [key.blob for key in keys if not key.marker]
    if blob in blobs:
        return Verdict.KNOWN
    return Verdict.CHANGED if blobs else Verdict.UNKNOWN


def _match_wildcards(name: bytes, pattern: bytes) -> bool:
    if b"*" not in pattern and b"?" not in pattern:
        return name == pattern
    return fnmatch.fnmatchcase(name, pattern.replace(b"[", b"[[]"))


def _parse(path: str, text: bytes) -> Iterator[_Entry]:
    for number, raw in enumerate(text.split(b"\n"), start=1):
        # For OpenSSH a NUL ends the line; a crash may leave blocks of them in a file.
        line = raw.partition(b"\0")[0].lstrip(b" \t").rstrip(b" \t\r")
        if not line or line.startswith(b"#"):
            continue
        try:
            yield _parse_line(path, number, line)
        except ValueError as exc:
            logger.debug("%s:%d: line skipped: %s", path, number, exc)


def _parse_line(path: str, number: int, line: bytes) -> _Entry:
    fields = re.split(rb"[ \t]+", line)
    marker = _MARKERS.get(fields[0], "")
    if marker:
        del fields[0]
    if len(fields) < 3:
        raise ValueError("host names, key type or key missing")
    key_type, blob = _parse_key(fields[1], fields[2])
    return _Entry(_parse_hosts(fields[0]), KnownKey(path, number, marker, key_type, blob))


def _parse_hosts(field: bytes) -> _Patterns | _HashedName:
    if field.startswith(b"|"):
        _, version, *rest = field.split(b"|")
        hashed = _HashedName(*map(_decode_base64, rest)) if len(rest) == 2 else None
        if version != b"1" or hashed is None or len(hashed.salt) != _SALT_SIZE:
            raise ValueError("hashed host name of an unknown kind")
        return hashed
    patterns = field.lower().split(b",")
    return _Patterns(
        accepted=tuple(pattern for pattern in patterns if not pattern.startswith(b"!")),
        excepted=tuple(pattern[1:] for pattern in patterns if pattern.startswith(b"!")),
    )


def _parse_key(name: bytes, field: bytes) -> tuple[str, bytes]:
    blob = _decode_base64(field)
    key_type = b"ssh-rsa" if name in _RSA_SIGNATURES else name
    strings = list(_split_strings(blob))
    if len(strings) < 2 or strings[0] != key_type:
        raise ValueError("the key isn't of the type that the line names")
    return key_type.decode("ascii"), blob


def _split_strings(blob: bytes) -> Iterator[bytes]:
    # A public key consists of strings and mpints, each with its length in front (RFC 4251 section
    # 5), whatever its type: so a key that was cut off shows.
    end = 0
    while end < len(blob):
        start = end + 4
        end = start + int.from_bytes(blob[end:start], "big")
        if end > len(blob):
            raise ValueError("the key is cut off")
        yield blob[start:end]


def _decode_base64(text: bytes) -> bytes:
    data = binascii.a2b_base64(text)
    # binascii overlooks alien characters, padding and spare bits that OpenSSH doesn't.
    if binascii.b2a_base64(data, newline=False) != text:
        raise ValueError("not base64")
    return data


@contextlib.contextmanager
def _open_locked(path: str) -> Iterator[int]:
    ssh_directory = os.path.expanduser("~/.ssh")
    if os.path.dirname(path) == ssh_directory:
        with contextlib.suppress(FileExistsError):
            os.mkdir(ssh_directory, 0o700)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        _lock(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_STEP)
            else:
                return


def _append(descriptor: int, line: bytes) -> None:
    written = os.write(descriptor, line)
    if written < len(line):
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if os.fstat(descriptor).st_size == end:  # else somebody who took no lock has gone on
            os.ftruncate(descriptor, end - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    # The errors of read, write and flock don't know their file.
    try:
        yield
    except OSError as exc:
        exc.filename = path
        raise
