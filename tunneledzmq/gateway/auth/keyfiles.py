"""Private key files, with the public halves and certificates beside them."""

from __future__ import annotations

import base64
import binascii
import errno
import io
import os
import stat
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from ...shared.system.account import readable_by_others
from ...shared.system.advice import OR_OPENSSH, convert_from_putty, quote
from ...shared.text import printable
from ..wire import Reader
from .publickey import PublicKey, parse_line

__all__ = ["KeyFile", "KeyFileError", "read_public_key"]

_CERTIFICATE = "-cert.pub"
_MAGIC = b"openssh-key-v1\0"

# What OpenSSH's format may be encrypted with (ssh-keygen -Z) that is read here: by paramiko, and by
# cryptography, the library on which it is built.
_CIPHERS = ("none", "aes256-ctr", "aes256-cbc")
_CIPHERS_OF_CRYPTOGRAPHY = ("aes256-gcm@openssh.com",)

# Characters of a file that are looked at.
_MAX_SIZE = 1 << 20

_CLASSES = {
    "ssh-rsa": paramiko.RSAKey,
    "ssh-ed25519": paramiko.Ed25519Key,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}


class KeyFileError(Exception):
    """A key file that cannot be used.

    Args:
        errno: an errno code.
        message: for the user, with the path.
    """

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class KeyFile:
    """What a path names: a private key, or at least its public half, for a key of the agent's.

    Args:
        path: of the private key, or of its certificate or public half.
        required_rsa_size: bits that an RSA key must have (``RequiredRSASize``).

    Raises:
        KeyFileError: it is missing, open to others, no key, or too short.
    """

    lack = "only the public half is there"
    """Why it is not :attr:`private`, if it is not."""

    def __init__(self, path: str, required_rsa_size: int = 0) -> None:
        self.path = path = path.removesuffix(_CERTIFICATE)
        self.public: PublicKey | None = None
        """`None` if it can be told only after decryption."""
        self.encrypted = False
        # `None` if only the public half is there, to be found in the agent.
        self._text: str | None = None
        self._key: paramiko.PKey | None = None
        self._required_rsa_size = required_rsa_size
        try:
            text, status = _read(path)
        except OSError as exc:
            self.public = _public_half(path)
            if self.public is None:
                raise KeyFileError(
                    exc.errno or errno.EIO, f"the key file {path} cannot be read: {exc.strerror}"
                ) from exc
            if exc.errno != errno.ENOENT:
                self.lack = f"it cannot be read ({exc.strerror})"
        else:
            self._parse(text, status)
        self._check_size()

    def __repr__(self) -> str:
        return f"<KeyFile {self.path}>"

    @property
    def private(self) -> bool:
        """Whether the private key is there."""
        return self._text is not None

    @property
    def locked(self) -> bool:
        """Whether it takes a passphrase to use it."""
        return self.encrypted and self._key is None

    def certificate(self) -> PublicKey | None:
        """Read the certificate beside the key; `None` if there is none.

        Raises:
            KeyFileError: it cannot be used.
        """
        path = self.path + _CERTIFICATE
        return read_public_key(path) if os.path.exists(path) else None

    def unlock(self, passphrase: str | None) -> None:
        """Load the private key.

        Raises:
            KeyFileError: the passphrase is wrong, or the file is no key.
        """
        if self._key is not None or self._text is None:
            return
        secret = None if passphrase is None else passphrase.encode(errors="surrogateescape")
        try:
            self._key = _load(self._text, self.public, secret)
        except Exception as exc:
            # What cryptography and paramiko raise for a wrong passphrase depends on the format.
            raise KeyFileError(errno.EACCES, self._why_not(exc)) from exc
        self.public = self.public or PublicKey(self._key.asbytes())

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """Sign `data`; the key must have been unlocked.

        Raises:
            KeyFileError: it is too short, which only its unlocking has shown.
        """
        assert self._key is not None
        self._check_size()
        signature: bytes = self._key.sign_ssh_data(data, algorithm).asbytes()
        return signature

    def _parse(self, text: str, status: os.stat_result) -> None:
        if "PRIVATE KEY-----" not in text:
            try:
                self.public = parse_line(text)
            except ValueError as exc:
                raise self._unknown_format(text) from exc
            return
        if readable_by_others(status):
            raise KeyFileError(
                errno.EACCES,
                f"the key file {self.path} can be read by others, so it is not used: "
                f"chmod 600 {quote(self.path)}",
            )
        self._text = text
        if "BEGIN OPENSSH PRIVATE KEY" in text:
            try:
                cipher, self.public = _parse_openssh(text)
            except ValueError as exc:
                raise KeyFileError(errno.EACCES, self._why_not(exc)) from exc
            self.encrypted = cipher != "none"
            if cipher not in (*_CIPHERS, *_CIPHERS_OF_CRYPTOGRAPHY):
                self.encrypted, self._text = False, None
                self.lack = self._unknown_cipher(cipher)
            if self.public.type.startswith("sk-"):
                self.encrypted, self._text = False, None
                self.lack = f"it needs its FIDO token, which takes an ssh-agent{OR_OPENSSH}"
        else:
            self.encrypted = "ENCRYPTED" in text
            self.public = _public_half(self.path)

    def _check_size(self) -> None:
        bits = self.public.rsa_bits if self.public is not None else None
        if bits is not None and bits < self._required_rsa_size:
            raise KeyFileError(
                errno.EACCES,
                f"the key file {self.path} is not used: its key has {bits} bits, RequiredRSASize "
                f"asks for {self._required_rsa_size}",
            )

    def _unknown_format(self, text: str) -> KeyFileError:
        advice = (
            f"it is PuTTY's: {convert_from_putty(self.path)}"
            if text.startswith("PuTTY-User-Key-File")
            else "it is neither a private nor a public key"
        )
        return KeyFileError(
            errno.EACCES,
            f"the key file {self.path} is in no format that is known here ({advice})",
        )

    def _unknown_cipher(self, cipher: str) -> str:
        return (
            f"its encryption, {printable(cipher)}, is not supported: ssh-keygen -p -Z aes256-ctr "
            f"-f {quote(self.path)} (or an ssh-agent{OR_OPENSSH})"
        )

    def _why_not(self, exc: Exception) -> str:
        if isinstance(exc, UnsupportedAlgorithm):
            assert self._text is not None
            cipher = _parse_openssh(self._text)[0] if "BEGIN OPENSSH" in self._text else str(exc)
            return f"the key file {self.path} cannot be used: {self._unknown_cipher(cipher)}"
        if self.encrypted:
            return f"the passphrase for the key file {self.path} is wrong, or the file is damaged"
        return f"the key file {self.path} is in no format that is known here ({exc})"


def read_public_key(path: str) -> PublicKey:
    """Read a public key or a certificate.

    Raises:
        KeyFileError: it cannot be used.
    """
    try:
        return parse_line(_read(path)[0])
    except OSError as exc:
        raise KeyFileError(
            exc.errno or errno.EIO, f"{path} cannot be read: {exc.strerror}"
        ) from exc
    except ValueError as exc:
        raise KeyFileError(errno.EACCES, f"{path} is malformed: {exc}") from exc


def _public_half(path: str) -> PublicKey | None:
    try:
        return read_public_key(f"{path}.pub")
    except KeyFileError:
        return None


def _read(path: str) -> tuple[str, os.stat_result]:
    with open(path, encoding="latin-1", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(_MAX_SIZE), status


def _without_waiting(path: str, flags: int) -> int:
    # A named pipe would keep us until somebody writes into it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parse_openssh(text: str) -> tuple[str, PublicKey]:
    """Tell how the key is encrypted, and its public half, which is not."""
    body = text.partition("KEY-----")[2].partition("-----END")[0]
    try:
        reader = Reader(base64.b64decode("".join(body.split()), validate=True))
    except binascii.Error as exc:
        raise ValueError(str(exc)) from exc
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise ValueError("another version of OpenSSH's format")
    cipher = reader.text()
    reader.string()  # the key derivation function
    reader.string()  # and its options
    if reader.uint32() != 1:
        raise ValueError("several keys in one file")
    return cipher, PublicKey(reader.string())


def _load(text: str, public: PublicKey | None, passphrase: bytes | None) -> paramiko.PKey:
    if (
        "BEGIN OPENSSH" not in text
        or public is None
        or _parse_openssh(text)[0] in _CIPHERS_OF_CRYPTOGRAPHY
    ):
        text = _to_openssh(text, passphrase)
        public, passphrase = _parse_openssh(text)[1], None
    key_class = _CLASSES.get(public.type)
    if key_class is None:
        raise ValueError(f"a key of type {public.type}")
    return key_class.from_private_key(io.StringIO(text), passphrase)


def _to_openssh(text: str, passphrase: bytes | None) -> str:
    """Turn a key in an older format into OpenSSH's.

    paramiko knows but some of them, and its older versions not with today's cryptography, the
    library on which it is built.
    """
    from cryptography.hazmat.primitives import serialization

    ours = "BEGIN OPENSSH" in text
    load = serialization.load_ssh_private_key if ours else serialization.load_pem_private_key
    key: Any = load(text.encode("latin-1"), passphrase)
    converted: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return converted.decode()
