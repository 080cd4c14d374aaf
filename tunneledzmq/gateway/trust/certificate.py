"""Certificates of hosts (OpenSSH's PROTOCOL.certkeys), and whether one is to be believed.

As ``cert_parse``, ``sshkey_cert_check_authority`` and ``sshkey_cert_check_host`` in OpenSSH's
``sshkey.c`` have it. paramiko looks at nothing in a certificate but its key.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.message import Message

from ..wire import Reader, pack_string
from .hostkeys import HostKey, parse_key, public_parts

__all__ = ["CA_SIGNATURES", "HostCertificate", "is_certificate", "key_of", "plain_algorithm"]

CA_SIGNATURES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""How an authority may sign: OpenSSH's default of ``CASignatureAlgorithms``, but for FIDO keys,
which paramiko cannot verify."""

_SUFFIX = "-cert-v01@openssh.com"
_USER, _HOST = 1, 2

# SSHKEY_CERT_MAX_PRINCIPALS.
_MAX_PRINCIPALS = 256

_CLASSES: dict[str, Any] = {
    "ssh-rsa": paramiko.RSAKey,
    "ssh-ed25519": paramiko.Ed25519Key,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}

# Which signatures a key of each type makes; of the others, that of its own name.
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


def is_certificate(name: str) -> bool:
    """Tell whether a type of host keys, or an algorithm, is one of certificates."""
    return name.endswith(_SUFFIX)


def plain_algorithm(name: str) -> str:
    """Return the algorithm with which the key of a certificate signs."""
    return name.removesuffix(_SUFFIX)


def key_of(blob: bytes) -> paramiko.PKey:
    """Make paramiko's key of a plain one.

    Raises:
        ValueError: it is of a type that paramiko does not know, or malformed.
    """
    kind = Reader(blob).string().decode("ascii")
    if kind not in _CLASSES:
        raise ValueError(f"a key of type {kind}")
    try:
        return _CLASSES[kind](data=blob)
    except Exception as exc:  # whatever cryptography makes of the numbers
        raise ValueError(str(exc)) from exc


@dataclass(frozen=True)
class HostCertificate:
    """What an authority says of a host's key; times are seconds since 1970."""

    key: bytes
    """The host's."""

    authority: HostKey
    """The key that has signed."""

    signed_with: str
    """The algorithm of its signature; empty where that cannot be verified here."""

    kind: int
    principals: tuple[str, ...]
    """The host's names; none means any."""

    valid_after: int
    valid_before: int
    critical: tuple[str, ...]
    """Options that whoever does not know them must not pass over."""

    @classmethod
    def read(cls, blob: bytes) -> HostCertificate:
        """Read a certificate, and verify the authority's signature.

        Whether the authority is one that is known, and what it says, is for others to judge.

        Raises:
            ValueError: it is malformed, or its signature is wrong.
        """
        reader = Reader(blob)
        name = reader.string().decode("ascii")
        if not is_certificate(name):
            raise ValueError("no certificate")
        key_type = name.removesuffix(_SUFFIX)
        reader.string()  # the nonce
        parts = public_parts(key_type, reader)
        reader.uint64()  # the serial number
        kind = reader.uint32()
        if kind not in (_USER, _HOST):
            raise ValueError("neither for a host nor for a user")
        reader.string()  # the key id
        principals = Reader(reader.string()).strings()
        if len(principals) > _MAX_PRINCIPALS or any(b"\0" in name for name in principals):
            raise ValueError("its principals are malformed")
        valid_after, valid_before = reader.uint64(), reader.uint64()
        critical = _options(reader.string())
        _options(reader.string())  # extensions, which may be passed over
        reader.string()  # reserved
        authority = parse_key(reader.string())
        if authority.certificate:
            raise ValueError("its authority is a certificate itself")
        signed = blob[: len(blob) - len(reader.rest)]
        signature = reader.string()
        if reader.rest:
            raise ValueError("something follows it")
        return cls(
            pack_string(key_type) + b"".join(map(pack_string, parts)),
            authority,
            _verify(authority, signed, signature),
            kind,
            tuple(name.decode(errors="replace") for name in principals),
            valid_after,
            valid_before,
            critical,
        )

    def fault(self, name: str, now: float, signatures: Collection[str]) -> str | None:
        """Tell why it is not to be believed of a host, if so.

        Args:
            name: the host's, as the user means it (HostKeyAlias, or HostName).
            now: seconds since 1970.
            signatures: algorithms with which an authority may sign.
        """
        if not self.signed_with:
            return f"a signature by a key of type {self.authority.type} cannot be verified here"
        if self.kind != _HOST:
            return "it is one for users, not for hosts"
        if now < self.valid_after:
            return "it is not valid yet"
        if now >= self.valid_before:
            return "it has expired"
        if self.principals and name not in self.principals:
            return f"it is for {', '.join(self.principals)}, not for {name}"
        if self.critical:
            return f"it has options that are not known here: {', '.join(self.critical)}"
        if self.signed_with not in CA_SIGNATURES or self.signed_with not in signatures:
            return f"it is signed with {self.signed_with}, which is not accepted"
        return None


def _options(data: bytes) -> tuple[str, ...]:
    reader = Reader(data)
    names = []
    while reader.rest:
        names.append(reader.text())
        reader.string()
    return tuple(names)


def _verify(authority: HostKey, signed: bytes, signature: bytes) -> str:
    """Return the algorithm of a signature that is right; nothing if nobody can tell."""
    if authority.type not in _CLASSES:
        return ""
    reader = Reader(signature)
    algorithm, _ = reader.string().decode("ascii"), reader.string()
    if reader.rest:
        raise ValueError("something follows the authority's signature")
    if algorithm == authority.type == "ssh-rsa":
        return algorithm  # with SHA-1, for which nothing is believed anyway
    if algorithm not in _SIGNATURES.get(authority.type, (authority.type,)):
        raise ValueError(f"signed with {algorithm!r} by a key of type {authority.type}")
    try:
        right = key_of(authority.blob).verify_ssh_sig(signed, Message(signature))
    except ValueError:
        raise
    except Exception as exc:  # whatever cryptography makes of the bytes
        raise ValueError(str(exc)) from exc
    if not right:
        raise ValueError("the authority's signature is wrong")
    return algorithm
