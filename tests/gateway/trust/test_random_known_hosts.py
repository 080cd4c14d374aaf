"""Random known_hosts files mean to us what they mean to the real ssh.

``RANDOM_KNOWN_HOSTS=2000 pytest tests/test_random_known_hosts.py`` asks about as many files, each
the one of its number, in some minutes; without it, about a few. ``RANDOM_KNOWN_HOSTS=17:18`` asks
about that one.
"""

from __future__ import annotations

import base64
import random
import re
import subprocess
from pathlib import Path

import paramiko
import pytest

from tests.gateway.trust.test_known_hosts import (
    SECURITY_KEY_TEXT,
    blob_of,
    ecdsa,
    ed25519,
    hashed,
    needs,
    public_text,
    rsa,
)
from tests.seeds import chunks, seeds_of
from tests.sshd import SSHD, generate_key
from tests.verdicts import OpenSSHClient
from tunneledzmq.gateway.sshtunnel.algorithms import order_by_known
from tunneledzmq.gateway.trust.known_hosts import KnownHosts, Verdict

HOSTS = [
    ("host", 22),
    ("host", 2222),
    ("Host.example", 22),
    ("host.example", 2222),
    ("192.0.2.1", 22),
    ("2001:db8::1", 2222),
]
KEY_TYPES = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]
ORDER = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"]

SEEDS = seeds_of("RANDOM_KNOWN_HOSTS", default=40)

# A verdict that comes later lets fewer keys in.
STRICTNESS = [Verdict.KNOWN, Verdict.UNKNOWN, Verdict.CHANGED, Verdict.REVOKED]

# Where we are stricter than OpenSSH: lines without which both agree.
STRICTER = {
    "a tab ends a marker; for OpenSSH, not where a space follows later": (
        rb"^[ \t]*@(revoked|cert-authority)\t.* .*\n"
    ),
}
# Never written here: a point that is not on its curve, and a certificate with a wrong signature.
# OpenSSH skips the line; we take it for a key, which no server shows.


class Writer:
    """Writes known_hosts files, about the host keys of the server among others."""

    def __init__(self, openssh: OpenSSHClient, directory: Path) -> None:
        shown = [*openssh.keys.values()]
        others = [*map(public_text, (ed25519(2), ecdsa(256), ecdsa(521), rsa()))]
        others.append(f"ssh-dss {encoded(b'ssh-dss', b'p', b'q', b'g', b'y')}")
        others.append(SECURITY_KEY_TEXT)
        authority = generate_key(directory / "authority")
        certificates = [certify(file, authority) for file in openssh.keyfiles.values()]
        self._keys = [*shown * 4, *others, *certificates, *map(disguise, shown)]

    def write(self, chance: random.Random) -> tuple[bytes, str, int]:
        """Return a file, and the host and port to look up in it."""
        host, port = chance.choice(HOSTS)
        lines = [self._line(chance, host, port) for _ in range(chance.randint(1, 8))]
        return b"".join(line + chance.choice([b"\n", b"\n", b"\r\n"]) for line in lines), host, port

    def _line(self, chance: random.Random, host: str, port: int) -> bytes:
        if chance.random() < 0.05:
            return chance.choice([b"", b" \t", b"# host", b"\0\0", b"host", b"@revoked", b"@"])
        markers = ["", "", "", "@revoked ", "@revoked ", "@cert-authority ", "@revoked  \t"]
        odd = ["@revoked\t", "@Revoked ", "@", "@word ", "@word,", "@revoked @word,", "@revoked,"]
        marker = chance.choice(odd if chance.random() < 0.1 else markers)
        name, text = chance.choice(self._keys).split()
        if name == "ssh-rsa" and chance.random() < 0.3:
            name = chance.choice(["rsa-sha2-256", "rsa-sha2-512", "ssh-dss", "RSA"])
        if chance.random() < 0.3:
            text = self._deface(chance, text)
        blanks = [" ", " ", "\t", "  ", " \t"]
        if chance.random() < 0.03:
            blanks = ["\0", "\r", "\v", "\f", "\0 ", " \0", "\xa0"]
        hosts = self._hosts(chance, host, port)
        comment = chance.choice(["", "", " comment", "\tme@there  x", " "])
        start = chance.choice(["", "", "", " ", "\t "])
        line = f"{start}{marker}{hosts}{chance.choice(blanks)}{name}{chance.choice(blanks)}{text}"
        result = (line + comment).encode("latin-1")
        fragile = name.startswith("ecdsa") or "-cert-" in name
        return result if fragile or chance.random() > 0.05 else self._damage(chance, result)

    def _hosts(self, chance: random.Random, host: str, port: int) -> str:
        host = host.lower()
        full = host if port == 22 else f"[{host}]:{port}"
        if chance.random() < 0.2:
            field = hashed(chance.choice([full, full, host, "other"]))
            return chance.choice([field] * 5 + [field + "|", "|2" + field[2:], field[:-1], "|1|"])
        patterns = [full, full, host, "*", full.upper(), "?" + full[1:], host[:2] + "*", "other"]
        patterns += [f"[{host}]:*", "!" + full, "!" + host, "!other", "*.example", "", "!", "!*x"]
        if chance.random() < 0.1:
            size = chance.choice([1022, 1023, 1024])
            patterns += ["*" * size, "!" + "x" * size, full + "*" * (size - len(full))] * 4
        return ",".join(chance.choices(patterns, k=chance.choice([1, 1, 2, 3])))

    def _deface(self, chance: random.Random, text: str) -> str:
        at = chance.randrange(len(text))
        if chance.random() < 0.6:
            return text[:at] + chance.choice(["\r", "\v", "\f", "\r\v"]) + text[at:]
        return chance.choice(
            [text[:-1], text + "=", text + "\r", text[:at], f"{text}\0x", text + "!"]
        )

    def _damage(self, chance: random.Random, line: bytes) -> bytes:
        at = chance.randrange(len(line))
        byte = bytes([chance.choice(b" \t\r\v\f\0!,*?|@#=AZ\xff")])
        return line[:at] + chance.choice([b"", byte]) + line[at + chance.randint(0, 1) :]


def encoded(*strings: bytes) -> str:
    return base64.b64encode(blob_of(*strings)).decode()


def certify(key: Path, authority: Path) -> str:
    command = [
        "ssh-keygen",
        "-q",
        "-s",
        str(authority),
        "-h",
        "-I",
        "id",
        "-n",
        "host",
        f"{key}.pub",
    ]
    subprocess.run(command, check=True)
    return " ".join(Path(f"{key}-cert.pub").read_text().split()[:2])


def disguise(key: str) -> str:
    """Write a key in another way that OpenSSH takes for the same."""
    name, text = key.split()
    message = paramiko.Message(base64.b64decode(text))
    parts = [message.get_binary() for _ in range(3)]
    if name == "ssh-rsa":
        return f"{name} {encoded(b'rsa', *(bytes(3) + part for part in parts[1:]))}"
    return f"{name} {encoded(name.encode() + bytes(1), *filter(None, parts[1:]))}"


@pytest.fixture(scope="session")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> OpenSSHClient:
    return OpenSSHClient(tmp_path_factory.mktemp("ssh"), KEY_TYPES)


@pytest.fixture(scope="session")
def writer(openssh: OpenSSHClient, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    return Writer(openssh, tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def host_keys(openssh: OpenSSHClient) -> dict[str, paramiko.PKey]:
    return {
        order: paramiko.PKey.from_path(openssh.keyfiles[kind])
        for order, kind in zip(ORDER, KEY_TYPES, strict=True)
    }


@needs("ssh", "ssh-keygen", SSHD)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", chunks(SEEDS, 20), ids=str)
def test_nothing_is_believed_that_ssh_refuses(
    seeds: range,
    openssh: OpenSSHClient,
    writer: Writer,
    host_keys: dict[str, paramiko.PKey],
    tmp_path: Path,
) -> None:
    def judge(text: bytes) -> tuple[Verdict, str]:
        (tmp_path / "known_hosts").write_bytes(text)
        hosts = KnownHosts.load([str(tmp_path / "known_hosts")])
        algorithm = order_by_known(ORDER, hosts.key_types(host, port))[0]
        return hosts.verify(host, port, host_keys[algorithm]), algorithm

    wrong = []
    for seed in seeds:
        text, host, port = writer.write(random.Random(seed))
        ours, theirs = judge(text), openssh.judge(text, host, port)
        without = re.sub(b"|".join(STRICTER.values()), b"", text, flags=re.MULTILINE)
        lenient = STRICTNESS.index(ours[0]) < STRICTNESS.index(theirs[0])
        if lenient or theirs not in (ours, judge(without)):
            wrong.append(f"{seed}: {ours} where ssh says {theirs}: {host}:{port}\n{text!r}")
    assert not wrong, "\n\n".join(wrong)
