"""Public keys in known_hosts and RevokedHostKeys files, as OpenSSH reads them.

What counts is the key that OpenSSH would make of a line (``sshkey_read`` in ``sshkey.c``), not how
the line writes it: with white space in its base64, with zeros before its numbers or as part of a
certificate it is the same key, and revoked if that is.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from ..wire import Reader, pack_string

__all__ = [
    "HostKey",
    "ShortKeyError",
    "decode_base64",
    "parse_key",
    "public_parts",
    "read_key",
]

# Of what the public keys of each type consist: numbers; strings, of a certain size or of any; the
# name of a curve, and a point on it.
_NUMBER, _ANY = "number", 0
_PARTS: dict[str, list[str | int | bytes]] = {
    "ssh-rsa": [_NUMBER, _NUMBER],
    "ssh-dss": [_NUMBER] * 4,
    "ssh-ed25519": [32],
    "ecdsa-sha2-nistp256": [b"nistp256", 65],
    "ecdsa-sha2-nistp384": [b"nistp384", 97],
    "ecdsa-sha2-nistp521": [b"nistp521", 133],
    "sk-ssh-ed25519@openssh.com": [32, _ANY],
    "sk-ecdsa-sha2-nistp256@openssh.com": [b"nistp256", 65, _ANY],
}

# Names of signatures, which OpenSSH takes for the type of the key that makes them.
_SIGNATURES = {
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256@openssh.com",
}
# Within a key, OpenSSH takes its own short names of types too.
_SHORT_NAMES = {
    "rsa": "ssh-rsa",
    "dsa": "ssh-dss",
    "ed25519": "ssh-ed25519",
    "ed25519-sk": "sk-ssh-ed25519@openssh.com",
}
_CERTIFICATE = "-cert-v01@openssh.com"

# OpenSSH's SSH_RSA_MINIMUM_MODULUS_SIZE and SSHBUF_MAX_BIGNUM.
_MIN_RSA_BITS = 1024
_MAX_NUMBER = 2048

_WHITE_SPACE = b" \t\n\v\f\r"


class ShortKeyError(ValueError):
    """An RSA key that is too short for OpenSSH."""


class HostKey(NamedTuple):
    """A public key."""

    type: str
    """As in the key itself: ``"ssh-rsa"``, never ``"rsa-sha2-256"``."""

    blob: bytes
    """As RFC 4253 section 6.6 encodes it; of a certificate, the key that it is for."""

    certificate: bool


def read_key(text: bytes) -> HostKey:
    """Read ``TYPE BASE64 [COMMENT]``.

    Raises:
        ShortKeyError: it is an RSA key that is too short.
        ValueError: it is no key.
    """
    name, encoded = [*re.split(rb"[ \t]+", text, maxsplit=2), b""][:2]
    key = parse_key(decode_base64(encoded.translate(None, _WHITE_SPACE)))
    if _type_of(name.decode("ascii")) != (key.type, key.certificate):
        raise ValueError("the key isn't of the type that the line names")
    return key


def decode_base64(text: bytes) -> bytes:
    """Decode base64.

    Raises:
        ValueError: it isn't in its one proper form.
    """
    data = binascii.a2b_base64(text)
    # binascii overlooks alien characters, padding and spare bits that OpenSSH doesn't.
    if binascii.b2a_base64(data, newline=False) != text:
        raise ValueError("not base64")
    return data


def parse_key(blob: bytes) -> HostKey:
    """Read a key as RFC 4253, section 6.6, encodes it, or a certificate for one.

    Raises:
        ShortKeyError: it is an RSA key that is too short.
        ValueError: it is no key.
    """
    reader = Reader(blob)
    name = reader.string().removesuffix(b"\0").decode("ascii")
    key_type, certificate = _type_of(_SHORT_NAMES.get(name.lower(), name))
    if certificate:
        reader.string()  # the nonce
    parts = public_parts(key_type, reader)
    if certificate:
        _skip_certificate(reader)
    if reader.rest:
        raise ValueError("something follows the key")
    if key_type == "ssh-rsa" and int.from_bytes(parts[1], "big").bit_length() < _MIN_RSA_BITS:
        raise ShortKeyError(f"an RSA key of less than {_MIN_RSA_BITS} bits")
    plain = b"".join(map(pack_string, (key_type.encode(), *parts)))
    return HostKey(key_type, plain, certificate)


def public_parts(key_type: str, reader: Reader) -> list[bytes]:
    """Read what a public key consists of, after its type.

    Raises:
        ValueError: it is malformed, or of an unknown type.
    """
    if key_type not in _PARTS:
        raise ValueError("an unknown type")
    return [_part(kind, reader.string()) for kind in _PARTS[key_type]]


def _part(kind: str | int | bytes, part: bytes) -> bytes:
    if kind is _NUMBER:
        return _number(part)
    # That a point is on its curve is left to whoever believes the key.
    fits = part == kind if isinstance(kind, bytes) else kind in (_ANY, len(part))
    if not fits:
        raise ValueError("a part of the key is malformed")
    return part


def _number(part: bytes) -> bytes:
    """Return a number without zeros that it doesn't need."""
    if part[:1] >= b"\x80":
        raise ValueError("a negative number")
    if len(part) > _MAX_NUMBER + (part[:1] == b"\0"):
        raise ValueError("a number that is too large")
    number = part.lstrip(b"\0")
    return b"\0" + number if number[:1] >= b"\x80" else number


def _skip_certificate(reader: Reader) -> None:
    # PROTOCOL.certkeys; the signature isn't verified, since nothing is believed for it.
    reader.uint64()
    reader.uint32()
    for _ in ("key id", "principals"):
        reader.string()
    reader.uint64()
    reader.uint64()
    for _ in ("options", "extensions", "reserved", "key of the authority", "signature"):
        reader.string()


def _type_of(name: str) -> tuple[str, bool]:
    """Return the type of a key, and whether it is a certificate."""
    plain = name.removesuffix(_CERTIFICATE)
    certificate = plain != name
    if certificate and plain.startswith("sk-"):
        plain += "@openssh.com"
    key_type = _SIGNATURES.get(plain, plain)
    if key_type not in _PARTS:
        raise ValueError("an unknown type")
    return key_type, certificate
