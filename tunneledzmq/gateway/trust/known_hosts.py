"""Verification of SSH host keys against ``known_hosts`` files, as OpenSSH does it.

The verdicts are those of ``check_host_key`` in OpenSSH's ``sshconnect.c``; :mod:`.hostfile` reads
the lines. Types that paramiko doesn't implement are as good as any. Replaces
``paramiko.HostKeys``, which has no patterns and no markers.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...shared.system.account import SYSTEM_SSH_DIRECTORY
from ...shared.system.advice import HAS_OPENSSH
from ...shared.system.locks import lock_file
from ..config.addresses import canonical_host, lower
from .hostfile import hash_name, parse
from .hostkeys import ShortKeyError, read_key

if TYPE_CHECKING:
    import paramiko

__all__ = [
    "DEFAULT_SYSTEM_FILES",
    "DEFAULT_USER_FILES",
    "SSH_PORT",
    "KnownHosts",
    "KnownKey",
    "Verdict",
    "add",
    "fingerprint",
    "load_keys",
    "lookup_name",
]

DEFAULT_USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
DEFAULT_SYSTEM_FILES = tuple(
    os.path.join(SYSTEM_SSH_DIRECTORY, name) for name in ("ssh_known_hosts", "ssh_known_hosts2")
)

SSH_PORT = 22

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
        blob: The public key as RFC 4253 section 6.6 encodes it; of a certificate, its key.
        certificate: Whether the line has a certificate, which is no key of the host's.
    """

    file: str
    line: int
    marker: str
    key_type: str
    blob: bytes
    certificate: bool = False


class KnownHosts:
    """The entries of some known_hosts files, in file order; immutable."""

    def __init__(self, files: Iterable[tuple[str, bytes]] = ()) -> None:
        self._entries = [(path, entry) for path, text in files for entry in parse(path, text)]

    @classmethod
    def load(cls, files: Iterable[str]) -> KnownHosts:
        """Read known_hosts files. Malformed lines are skipped, and logged at level DEBUG.

        Args:
            files: Paths; ``~`` is expanded. A missing file is an empty one.

        Raises:
            OSError: A file exists but cannot be read; names the file.
        """
        texts = []
        for path in map(os.path.expanduser, files):
            with contextlib.suppress(FileNotFoundError), _naming(path), open(path, "rb") as stream:
                texts.append((path, stream.read()))
        return cls(texts)

    def find(self, host: str, port: int) -> list[KnownKey]:
        """Return all keys that the files have for a host, with or without a marker.

        Those of the plain `host` follow where none without a marker is there for ``[host]:port``.
        """
        keys = self._lookup(host, port)
        if port != SSH_PORT and all(key.marker for key in keys):
            keys += self._lookup(host, SSH_PORT)
        return list(dict.fromkeys(keys))

    def key_types(self, host: str, port: int) -> set[str]:
        """Return the types of the keys that the host may show.

        A client that asks for these first isn't shown a key of a type that isn't known yet, which
        it would have to take for a changed key. As in OpenSSH's ``order_hostkeyalgs``, the plain
        `host` is no help, and of each type the first key is looked at.
        """
        keys = self._lookup(host, port)
        revoked = {key.blob for key in keys if key.marker == "revoked"}
        first: dict[str, bytes] = {}
        for key in keys:
            if not key.marker and not key.certificate:
                first.setdefault(key.key_type, key.blob)
        return {key_type for key_type, blob in first.items() if blob not in revoked}

    def has_authority(self, host: str, port: int) -> bool:
        """Tell whether a certificate may vouch for the host's key (``@cert-authority``)."""
        names = (port,) if port == SSH_PORT else (port, SSH_PORT)
        return any(
            key.marker == "cert-authority" for each in names for key in self._lookup(host, each)
        )

    def verify_authority(self, host: str, port: int, authority: bytes, key: bytes) -> Verdict:
        """Judge the authority that vouches for the key of a host.

        Args:
            host: the host's name.
            port: its port; as with keys, the plain `host` is looked at, too.
            authority: the authority's key.
            key: the host's.

        Returns:
            :attr:`Verdict.KNOWN`, :attr:`Verdict.REVOKED` (either key is) or
            :attr:`Verdict.UNKNOWN`.
        """
        verdict = _judge_authority(self._lookup(host, port), authority, key)
        if verdict is Verdict.UNKNOWN and port != SSH_PORT:
            verdict = _judge_authority(self._lookup(host, SSH_PORT), authority, key)
        return verdict

    def verify(self, host: str, port: int, key: paramiko.PKey) -> Verdict:
        """Judge the key that a host has shown.

        As with OpenSSH, a key of another type than the known ones is a changed key: else an
        impostor had only to offer a type that isn't known yet. A key known for the plain `host`
        counts for ``[host]:port`` if none is known there; a different one doesn't, since it may
        well be another server's.
        """
        blob = key.asbytes()
        verdict = _judge(self._lookup(host, port), blob)
        if verdict is Verdict.UNKNOWN and port != SSH_PORT:
            plain = _judge(self._lookup(host, SSH_PORT), blob)
            # OpenSSH's accept-new adds a key that is revoked for the plain host; we are stricter.
            if plain in (Verdict.KNOWN, Verdict.REVOKED):
                return plain
        return verdict

    def _lookup(self, host: str, port: int) -> list[KnownKey]:
        name = lookup_name(host, port)
        return [
            KnownKey(path, entry.line, entry.marker, *entry.key)
            for path, entry in self._entries
            if entry.hosts.match(name)
        ]


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
    name = lower(canonical_host(host))
    return name if port == SSH_PORT else f"[{name}]:{port}"


def load_keys(file: str) -> list[bytes]:
    """Read a file of public keys, one a line (``RevokedHostKeys``); return their blobs.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is a key revocation list (KRL), or a line is malformed; says which.
    """
    with open(file, "rb") as stream:
        text = stream.read()
    if text.startswith(b"SSHKRL\n\0"):
        needed = "backend='openssh' is needed" if HAS_OPENSSH else "there is no support"
        raise ValueError(f"a key revocation list (KRL), for which {needed}")
    blobs = []
    for number, raw in enumerate(text.split(b"\n"), start=1):
        line = raw.partition(b"\0")[0].lstrip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        try:
            blobs.append(read_key(line).blob)
        except ShortKeyError:
            continue  # it is believed nowhere
        except ValueError:
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
        verdict = KnownHosts([(path, text)]).verify(host, port, key)
        if verdict is not Verdict.UNKNOWN:
            return verdict
        newline = "" if not text or text.endswith(b"\n") else "\n"
        name = lookup_name(host, port)
        line = (
            f"{newline}{hash_name(name) if hashed else name} {key.get_name()} {key.get_base64()}\n"
        )
        _append(descriptor, os.fsencode(line))
    return verdict


def _judge(keys: list[KnownKey], blob: bytes) -> Verdict:
    if any(key.marker == "revoked" and key.blob == blob for key in keys):
        return Verdict.REVOKED
    known = [key for key in keys if not key.marker]
    if any(key.blob == blob and not key.certificate for key in known):
        return Verdict.KNOWN
    return Verdict.CHANGED if known else Verdict.UNKNOWN


def _judge_authority(keys: list[KnownKey], authority: bytes, key: bytes) -> Verdict:
    if any(known.marker == "revoked" and known.blob in (authority, key) for known in keys):
        return Verdict.REVOKED
    if any(known.marker == "cert-authority" and known.blob == authority for known in keys):
        return Verdict.KNOWN
    return Verdict.UNKNOWN


@contextlib.contextmanager
def _open_locked(path: str) -> Iterator[int]:
    ssh_directory = os.path.expanduser("~/.ssh")
    if os.path.normpath(os.path.dirname(path)) == os.path.normpath(ssh_directory):
        with contextlib.suppress(FileExistsError):
            os.mkdir(ssh_directory, 0o700)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        lock_file(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


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
