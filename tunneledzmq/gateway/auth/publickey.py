"""Public keys and OpenSSH's certificates, as they are sent to a server."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timezone

from ..wire import Reader, pack_string

__all__ = ["Certificate", "PublicKey", "parse_line"]

_CERTIFICATE = "-cert-v01@openssh.com"

# Of how many strings, after the name, a public key of each type consists.
_PARTS = {
    "ssh-rsa": 2,
    "ssh-dss": 4,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}

# Kinds of certificates (PROTOCOL.certkeys).
_USER = 1


@dataclass(frozen=True)
class Certificate:
    """What OpenSSH's PROTOCOL.certkeys has beside the key; times are seconds since 1970."""

    kind: int
    valid_after: int
    valid_before: int

    def fault(self, now: float) -> str | None:
        """Tell why no server would accept it, if so."""
        if self.kind != _USER:
            return "it is a certificate for hosts, not for users"
        if now >= self.valid_before:
            return f"the certificate has expired ({_time(self.valid_before)})"
        if now < self.valid_after:
            return f"the certificate is not valid yet ({_time(self.valid_after)})"
        return None


class PublicKey:
    """A public key, or a certificate.

    Args:
        blob: as the protocol has it.

    Raises:
        ValueError: it is malformed.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        reader = Reader(blob)
        self.type = reader.string().decode("ascii")
        """Such as ``ssh-ed25519``, or ``ssh-ed25519-cert-v01@openssh.com``."""
        self.certificate: Certificate | None = None
        self.plain = blob
        """The key without its certificate."""
        if self.type.endswith(_CERTIFICATE):
            self._read_certificate(reader)
        self.rsa_bits = _rsa_bits(self.plain)
        """Of an RSA key; `None` for the others."""

    def _read_certificate(self, reader: Reader) -> None:
        plain_type = self.type.removesuffix(_CERTIFICATE)
        if plain_type.startswith("sk-"):
            plain_type += "@openssh.com"
        if plain_type not in _PARTS:
            raise ValueError(f"a certificate of an unknown type, {self.type}")
        reader.string()  # the nonce
        parts = [reader.string() for _ in range(_PARTS[plain_type])]
        self.plain = pack_string(plain_type) + b"".join(map(pack_string, parts))
        reader.uint64()  # the serial number
        kind = reader.uint32()
        reader.string()  # the key id
        reader.string()  # the principals
        self.certificate = Certificate(kind, reader.uint64(), reader.uint64())
        for _ in ("options", "extensions", "reserved", "key of the authority", "signature"):
            reader.string()

    def __repr__(self) -> str:
        return f"<PublicKey {self.type}>"


def parse_line(text: str) -> PublicKey:
    """Parse a public key file: ``TYPE BASE64 [COMMENT]``.

    Raises:
        ValueError: it is none.
    """
    name, encoded = [*text.split(maxsplit=2), "", ""][:2]
    try:
        key = PublicKey(base64.b64decode(encoded, validate=True))
    except binascii.Error as exc:
        raise ValueError(str(exc)) from exc
    if key.type != name:
        raise ValueError("no public key")
    return key


def _rsa_bits(plain: bytes) -> int | None:
    reader = Reader(plain)
    if reader.string() != b"ssh-rsa":
        return None
    reader.string()  # the exponent
    return int.from_bytes(reader.string(), "big").bit_length()


def _time(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return "for ages"
