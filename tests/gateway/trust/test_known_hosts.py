"""Host keys are judged as OpenSSH judges them; where it is installed, it is asked."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import hashlib
import hmac
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs import Program
from tests.sshd import SSHD, generate_key, public_key
from tests.verdicts import OpenSSHClient
from tunneledzmq.gateway.sshtunnel.algorithms import order_by_known
from tunneledzmq.gateway.trust.known_hosts import (
    KnownHosts,
    KnownKey,
    Verdict,
    add,
    fingerprint,
    load_keys,
    lookup_name,
)

ROOT = Path(__file__).parents[3]
KNOWN, UNKNOWN, CHANGED, REVOKED = Verdict


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


# Keys, and lines that hold them


def blob_of(*strings: bytes) -> bytes:
    return b"".join(len(string).to_bytes(4, "big") + string for string in strings)


def ed25519(number: int) -> paramiko.PKey:
    point = hashlib.sha256(str(number).encode()).digest()
    return paramiko.Ed25519Key(data=blob_of(b"ssh-ed25519", point))


@functools.cache
def rsa() -> paramiko.PKey:
    return paramiko.RSAKey.generate(2048)


@functools.cache
def ecdsa(bits: int) -> paramiko.PKey:
    return paramiko.ECDSAKey.generate(bits=bits)


KEY_MAKERS: dict[str, Callable[[], paramiko.PKey]] = {
    "ssh-rsa": rsa,
    "ecdsa-sha2-nistp256": lambda: ecdsa(256),
    "ecdsa-sha2-nistp384": lambda: ecdsa(384),
    "ecdsa-sha2-nistp521": lambda: ecdsa(521),
    "ssh-ed25519": lambda: ed25519(1),
}


def public_text(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def hashed(name: str, salt_size: int = 20) -> str:
    salt = hashlib.sha1(name.encode()).digest()[:salt_size]
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


SECURITY_KEY = blob_of(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
SECURITY_KEY_TEXT = f"sk-ssh-ed25519@openssh.com {base64.b64encode(SECURITY_KEY).decode()}"


def disguise(encoded: str) -> str:
    """Write a key of Ed25519 as no ssh does, but as all of them read it."""
    return base64.b64encode(blob_of(b"ED25519\0", base64.b64decode(encoded)[-32:])).decode()


def fill_in(text: str, key: str) -> bytes:
    """Put real keys for the placeholders in the text of a known_hosts file.

    Args:
        text: ``KEY`` is the key that the host shows, ``OTHER`` one of the same type, ``RSA`` and
            ``SK`` are of other types; ``CUT`` has lost its end, ``DIRTY`` has a character too many
            and ``EMPTY`` is nothing but its type; ``SPACED`` and ``DISGUISED`` are the same key
            written in another way. Each character is a byte.
        key: Type and base64 of the key that the host shows.
    """
    key_type, encoded = key.split()
    keys = {
        "KEY": key,
        "OTHER": public_text(ed25519(2)),
        "RSA": public_text(rsa()),
        "SK": SECURITY_KEY_TEXT,
        "CUT": f"{key_type} {encoded[:-8]}",
        "DIRTY": f"{key_type} {encoded[:40]}!{encoded[40:]}",
        "EMPTY": f"{key_type} {base64.b64encode(blob_of(key_type.encode())).decode()}",
        "MISNAMED": f"ssh-rsa {encoded}",
        "SIGNATURE": f"rsa-sha2-256 {rsa().get_base64()}",
        "SPACED": f"{key_type} {encoded[:9]}\r{encoded[9:20]}\v{encoded[20:30]}\f{encoded[30:]}\r",
        "DISGUISED": f"{key_type} {disguise(encoded)}",
    }
    return re.sub("|".join(keys), lambda match: keys[match[0]], text).encode("latin-1")


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("known_hosts")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def load(file: Path, text: bytes) -> KnownHosts:
    file.write_bytes(text)
    return KnownHosts.load([str(file)])


# The verdicts

# What the file says, the host and port that are connected to, and the verdict.
CASES: dict[str, tuple[str, str, int, Verdict]] = {
    # A host and its keys
    "an empty file": ("", "host", 22, UNKNOWN),
    "the same key": ("host KEY\n", "host", 22, KNOWN),
    "no newline at the end": ("host KEY", "host", 22, KNOWN),
    "another host": ("other KEY\n", "host", 22, UNKNOWN),
    "another key": ("host OTHER\n", "host", 22, CHANGED),
    "a key of another type": ("host RSA\n", "host", 22, CHANGED),
    "a type that paramiko lacks": ("host SK\n", "host", 22, CHANGED),
    "a type that names a signature": ("host SIGNATURE\n", "host", 22, CHANGED),
    "one of several keys": ("host OTHER\nhost KEY\nhost RSA\n", "host", 22, KNOWN),
    "one of several types": ("host RSA\nhost SK\nhost KEY\n", "host", 22, KNOWN),
    # Names
    "upper case in the file": ("HOST.Example KEY\n", "host.example", 22, KNOWN),
    "upper case in the name": ("host.example KEY\n", "HOST.Example", 22, KNOWN),
    "a list of names": ("other,host,192.0.2.1 KEY\n", "host", 22, KNOWN),
    "an address in a list of names": ("other,host,192.0.2.1 KEY\n", "192.0.2.1", 22, KNOWN),
    "a part of a name": ("host KEY\n", "host.example", 22, UNKNOWN),
    "a star": ("*.example KEY\n", "a.b.example", 22, KNOWN),
    "a star for nothing": ("host*.example KEY\n", "host.example", 22, KNOWN),
    "a star in vain": ("*.example KEY\n", "example", 22, UNKNOWN),
    "a question mark": ("hos?.example KEY\n", "host.example", 22, KNOWN),
    "a question mark for nothing": ("host? KEY\n", "host", 22, UNKNOWN),
    "brackets are no wildcards": ("[gh]ost* KEY\n", "host", 22, UNKNOWN),
    "an exception": ("*.example,!host.example KEY\n", "host.example", 22, UNKNOWN),
    "an exception before the rule": ("!host.example,*.example KEY\n", "host.example", 22, UNKNOWN),
    "an exception for another": ("*.example,!a.example KEY\n", "host.example", 22, KNOWN),
    "an exception with wildcards": ("*,!*.example KEY\n", "host.example", 22, UNKNOWN),
    "an exception and nothing else": ("!other KEY\n", "host", 22, UNKNOWN),
    "an exception on another line": ("*,!host OTHER\nhost KEY\n", "host", 22, KNOWN),
    "an IPv6 address": ("2001:db8::1 KEY\n", "2001:db8::1", 22, KNOWN),
    "an IPv6 address in long": ("2001:db8::1 KEY\n", "2001:DB8:0:0:0:0:0:1", 22, KNOWN),
    # Ports
    "the port": ("[host]:2222 KEY\n", "host", 2222, KNOWN),
    "the port of an IPv6 address": ("[2001:db8::1]:2222 KEY\n", "2001:db8::1", 2222, KNOWN),
    "another port": ("[host]:2223 KEY\n", "host", 2222, UNKNOWN),
    "another port than 22": ("[host]:2222 KEY\n", "host", 22, UNKNOWN),
    "another key at the port": ("[host]:2222 OTHER\n", "host", 2222, CHANGED),
    "a star covers ports": ("* KEY\n", "host", 2222, KNOWN),
    "a star in the brackets": ("[*.example]:2222 KEY\n", "host.example", 2222, KNOWN),
    "the plain host": ("host KEY\n", "host", 2222, KNOWN),
    "the plain host with another key": ("host OTHER\n", "host", 2222, UNKNOWN),
    "the plain host with another type": ("host RSA\n", "host", 2222, UNKNOWN),
    "the port outweighs the plain host": ("[host]:2222 OTHER\nhost KEY\n", "host", 2222, CHANGED),
    "the plain host's other key": ("[host]:2222 KEY\nhost OTHER\n", "host", 2222, KNOWN),
    # Hashed names
    "a hashed name": (f"{hashed('host')} KEY\n", "host", 22, KNOWN),
    "a hashed name, asked in upper case": (f"{hashed('host')} KEY\n", "HOST", 22, KNOWN),
    "a hashed name with another key": (f"{hashed('host')} OTHER\n", "host", 22, CHANGED),
    "another hashed name": (f"{hashed('other')} KEY\n", "host", 22, UNKNOWN),
    "a hashed name with a port": (f"{hashed('[host]:2222')} KEY\n", "host", 2222, KNOWN),
    "a hashed plain host": (f"{hashed('host')} KEY\n", "host", 2222, KNOWN),
    "a hash in a list is none": (f"other,{hashed('host')} KEY\n", "host", 22, UNKNOWN),
    "a hash of an unknown kind": (f"|2{hashed('host')[2:]} KEY\n", "host", 22, UNKNOWN),
    "a hash without a digest": ("|1|Zm9v KEY\n", "host", 22, UNKNOWN),
    "a hash with a short salt": (f"{hashed('host', 19)} KEY\n", "host", 22, UNKNOWN),
    "a pattern as long as can be": (f"host,{'x' * 1022} KEY\n", "host", 22, KNOWN),
    "a pattern that is too long": (f"host,{'x' * 1023} KEY\n", "host", 22, UNKNOWN),
    "an exception before one that is too long": (
        f"*,!host,{'x' * 1023} KEY\nhost KEY\n",
        "host",
        22,
        KNOWN,
    ),
    "an exception that is too long": (f"*,!{'x' * 1023} KEY\n", "host", 22, UNKNOWN),
    "a hash that isn't base64": ("|1|?|? KEY\n", "host", 22, UNKNOWN),
    # Markers
    "a revoked key": ("@revoked host KEY\n", "host", 22, REVOKED),
    "known, then revoked": ("host KEY\n@revoked host KEY\n", "host", 22, REVOKED),
    "revoked, then known": ("@revoked host KEY\nhost KEY\n", "host", 22, REVOKED),
    "revoked for all": ("@revoked * KEY\nhost KEY\n", "host", 22, REVOKED),
    "revoked for all, on all ports": ("@revoked * KEY\n[host]:22 KEY\n", "host", 2222, REVOKED),
    "revoked under a hashed name": (f"@revoked {hashed('host')} KEY\n", "host", 22, REVOKED),
    "revoked for the plain host": ("@revoked host KEY\n", "host", 2222, REVOKED),
    "revoked for another host": ("@revoked other KEY\nhost KEY\n", "host", 22, KNOWN),
    "another key revoked": ("@revoked host OTHER\nhost KEY\n", "host", 22, KNOWN),
    "only another key, and revoked": ("@revoked host OTHER\n", "host", 22, UNKNOWN),
    "a certification authority": ("@cert-authority * KEY\n", "host", 22, UNKNOWN),
    "another authority": ("@cert-authority * OTHER\nhost KEY\n", "host", 22, KNOWN),
    "an unknown marker": ("@trusted host KEY\n", "host", 22, UNKNOWN),
    "an unknown marker that ends in a host": ("@trusted,host KEY\n", "host", 22, UNKNOWN),
    "a marker without a blank": ("@revoked,host KEY\nhost KEY\n", "host", 22, KNOWN),
    "a marker before such a one": ("@revoked @x,host KEY\nhost KEY\n", "host", 22, KNOWN),
    "white space in the revoked key": ("@revoked host SPACED\nhost KEY\n", "host", 22, REVOKED),
    "white space in the key": ("host SPACED\n", "host", 22, KNOWN),
    "revoked in another form": ("@revoked host DISGUISED\nhost KEY\n", "host", 22, REVOKED),
    "known in another form": ("host DISGUISED\n", "host", 22, KNOWN),
    "two markers": ("@revoked @cert-authority * KEY\nhost KEY\n", "host", 22, KNOWN),
    # The form of lines
    "a comment": ("host KEY me@there since  2019\n", "host", 22, KNOWN),
    "a line that is a comment": ("# host KEY\n  #host KEY\n#", "host", 22, UNKNOWN),
    "a comment where the key should be": ("host # KEY\n", "host", 22, UNKNOWN),
    "blank lines": ("\n \t \n\r\nhost KEY\n\n", "host", 22, KNOWN),
    "blanks before and between": (" \t host \t KEY \t \n", "host", 22, KNOWN),
    "blanks before a marker": ("  @revoked  host KEY\n", "host", 22, REVOKED),
    "lines that end in CRLF": ("host OTHER\r\nhost KEY\r\n", "host", 22, KNOWN),
    "CRLF after a comment": ("host KEY me@there\r\n", "host", 22, KNOWN),
    "bytes that are no UTF-8": ("\xff\xfe KEY\nhost KEY \xe9\xff\n", "host", 22, KNOWN),
    "NULs left by a crash": ("\0\0\0\0\nhost KEY\n\0\0\0", "host", 22, KNOWN),
    "a NUL after the key": ("host KEY\0\n", "host", 22, KNOWN),
    "a NUL after the host": ("@revoked host\0KEY\nhost KEY\n", "host", 22, REVOKED),
    "two NULs after the host": ("host\0\0KEY\n", "host", 22, UNKNOWN),
    "a carriage return for a blank": ("host\rKEY\n", "host", 22, UNKNOWN),
    # Malformed lines
    "a key that was cut off": ("host CUT\n", "host", 22, UNKNOWN),
    "a key that is only its type": ("host EMPTY\n", "host", 22, UNKNOWN),
    "a key with an alien character": ("host DIRTY\n", "host", 22, UNKNOWN),
    "a key of another type than named": ("host MISNAMED\n", "host", 22, UNKNOWN),
    "a name and nothing else": ("host\nhost ssh-ed25519\nhost KEY\n", "host", 22, KNOWN),
    "a marker and nothing else": ("@revoked\n@revoked host\nhost KEY\n", "host", 22, KNOWN),
    "a key that isn't base64": ("host ssh-ed25519 !!!!\nhost KEY\n", "host", 22, KNOWN),
    "a type that doesn't exist": ("host ssh-\xe9 AAAA\nhost KEY\n", "host", 22, KNOWN),
}
each_case = pytest.mark.parametrize(
    ("text", "host", "port", "verdict"), CASES.values(), ids=list(CASES)
)


@pytest.mark.parametrize("key_type", KEY_MAKERS)
def test_a_program_that_compares_no_bytes_with_text_may_read_keys(key_type: str) -> None:
    """With ``python -bb``, that is an error."""
    line = f"{key_type} {KEY_MAKERS[key_type]().get_base64()}".encode()
    source = f"from tunneledzmq.gateway.trust.hostkeys import read_key; read_key({line!r})"
    subprocess.run([sys.executable, "-bb", "-W", "error", "-c", source], check=True, cwd=ROOT)


@each_case
def test_verdict(file: Path, text: str, host: str, port: int, verdict: Verdict) -> None:
    known_hosts = load(file, fill_in(text, public_text(ed25519(1))))
    assert known_hosts.verify(host, port, ed25519(1)) is verdict


@pytest.fixture(scope="session")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> OpenSSHClient:
    return OpenSSHClient(tmp_path_factory.mktemp("ssh"))


@needs("ssh", "ssh-keygen", SSHD)
@each_case
def test_ssh_comes_to_the_same_verdict(
    openssh: OpenSSHClient, text: str, host: str, port: int, verdict: Verdict
) -> None:
    lines = fill_in(text, openssh.keys["ssh-ed25519"])
    assert openssh.judge(lines, host, port)[0] is verdict


def test_explicit_port_outweighs_a_key_revoked_for_the_plain_host(file: Path) -> None:
    text = "@revoked host KEY\n[host]:2222 KEY\n"
    known_hosts = load(file, fill_in(text, public_text(ed25519(1))))
    assert known_hosts.verify("host", 2222, ed25519(1)) is KNOWN


@pytest.mark.parametrize("key_type", KEY_MAKERS)
def test_every_type_of_key_is_known_again(file: Path, key_type: str) -> None:
    key = KEY_MAKERS[key_type]()
    known_hosts = load(file, f"host {public_text(key)}\n".encode())
    assert known_hosts.verify("host", 22, key) is KNOWN
    assert known_hosts.key_types("host", 22) == {key_type}


def test_a_pattern_of_many_stars_takes_no_time(file: Path) -> None:
    known_hosts = load(file, fill_in("*a" * 100 + "b KEY\n", public_text(ed25519(1))))
    assert known_hosts.verify("a" * 250, 22, ed25519(1)) is UNKNOWN


def test_a_long_line_of_empty_strings_takes_no_time(file: Path) -> None:
    known_hosts = load(file, b"host ssh-ed25519 " + b"A" * 2_000_000)
    assert known_hosts.find("host", 22) == []


# What is known of a host


def test_find_tells_where_each_key_stands(file: Path) -> None:
    text = "# comment\nhost RSA\n\n@revoked * OTHER\n@cert-authority h* KEY\nother KEY\nhost KEY\n"
    key = ed25519(1)
    known_hosts = load(file, fill_in(text, public_text(key)))
    path = str(file)
    assert known_hosts.find("host", 22) == [
        KnownKey(path, 2, "", "ssh-rsa", rsa().asbytes()),
        KnownKey(path, 4, "revoked", "ssh-ed25519", ed25519(2).asbytes()),
        KnownKey(path, 5, "cert-authority", "ssh-ed25519", key.asbytes()),
        KnownKey(path, 7, "", "ssh-ed25519", key.asbytes()),
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[host]:2222 KEY\nhost OTHER\n", [1]),
        ("host OTHER\n[host]:2223 KEY\n", [1]),
        ("host OTHER\n@revoked [host]:2222 KEY\n", [2, 1]),
        ("@revoked * KEY\nhost OTHER\n", [1, 2]),
        ("other KEY\n", []),
    ],
)
def test_find_falls_back_to_the_plain_host(file: Path, text: str, lines: list[int]) -> None:
    known_hosts = load(file, fill_in(text, public_text(ed25519(1))))
    assert [key.line for key in known_hosts.find("host", 2222)] == lines


@pytest.mark.parametrize(
    ("text", "port", "key_types"),
    [
        ("", 22, set()),
        ("host RSA\nhost KEY\nhost OTHER\n", 22, {"ssh-rsa", "ssh-ed25519"}),
        ("host SIGNATURE\n", 22, {"ssh-rsa"}),
        ("host SK\nhost KEY\n", 22, {"sk-ssh-ed25519@openssh.com", "ssh-ed25519"}),
        ("@cert-authority * KEY\n@revoked * OTHER\nhost RSA\n", 22, {"ssh-rsa"}),
        ("@revoked * KEY\nhost KEY\nhost RSA\n", 22, {"ssh-rsa"}),
        ("@revoked * KEY\nhost KEY\nhost OTHER\n", 22, set()),
        ("@revoked * KEY\nhost OTHER\nhost KEY\n", 22, {"ssh-ed25519"}),
        ("host RSA\n[host]:2222 KEY\n", 2222, {"ssh-ed25519"}),
        ("host RSA\n[host]:2223 KEY\n", 2222, set()),
    ],
)
def test_key_types_are_those_that_the_host_may_show(
    file: Path, text: str, port: int, key_types: set[str]
) -> None:
    known_hosts = load(file, fill_in(text, public_text(ed25519(1))))
    assert known_hosts.key_types("host", port) == key_types


@pytest.mark.parametrize(
    ("known", "order"),
    [
        ([], [0, 1, 2, 3]),
        (["ssh-rsa"], [2, 3, 0, 1]),
        (["ssh-rsa", "ecdsa-sha2-nistp256"], [1, 2, 3, 0]),
        (["ssh-rsa", "ssh-ed25519"], [0, 1, 2, 3]),
    ],
)
def test_known_types_come_first_but_in_our_order(known: list[str], order: list[int]) -> None:
    types = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    assert list(order_by_known(types, known)) == [types[number] for number in order]


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("host.example", 22, "host.example"),
        ("Host.Example", 22, "host.example"),
        ("Host.Example", 2222, "[host.example]:2222"),
        ("192.0.2.1", 22, "192.0.2.1"),
        ("2001:DB8:0:0::1", 22, "2001:db8::1"),
        ("2001:DB8:0:0::1", 2222, "[2001:db8::1]:2222"),
        ("\uff11\uff12\uff17.0.0.1", 22, "\uff11\uff12\uff17.0.0.1"),
        ("h\0st", 22, "h\0st"),
        ("x" * 300, 22, "x" * 300),
    ],
)
def test_lookup_name_is_written_as_ssh_writes_it(host: str, port: int, name: str) -> None:
    assert lookup_name(host, port) == name


def found_by_ssh_keygen(file: Path, name: str) -> list[int]:
    """Return the numbers of the lines that ``ssh-keygen -F`` finds for a name."""
    command = ["ssh-keygen", "-l", "-F", name, "-f", str(file)]
    output = subprocess.run(command, capture_output=True, timeout=20).stdout
    return [int(number) for number in re.findall(rb"^# Host .* found: line (\d+)", output, re.M)]


@needs("ssh-keygen")
@settings(deadline=None, max_examples=50)
@given(
    patterns=st.lists(st.text("ab*?!,[]:2", min_size=1, max_size=12), min_size=20, max_size=100),
    name=st.text("ab", min_size=1, max_size=5) | st.just("[ab]:2"),
)
def test_patterns_match_as_ssh_keygen_matches_them(
    directory: Path, patterns: list[str], name: str
) -> None:
    file = directory / "patterns"
    text = "".join(f"{pattern} {public_text(ed25519(1))}\n" for pattern in patterns)
    known_hosts = load(file, text.encode())
    host, port = ("ab", 2) if name == "[ab]:2" else (name, 22)
    lines = found_by_ssh_keygen(file, name)
    # Without a line for the port, those for the plain host follow.
    assert [key.line for key in known_hosts.find(host, port)] == (
        lines or found_by_ssh_keygen(file, host)
    )


@needs("ssh-keygen")
@pytest.mark.parametrize(
    ("host", "port"), [("host", 22), ("host", 2222), ("2001:db8::1", 22), ("2001:db8::1", 2222)]
)
def test_names_that_ssh_keygen_has_hashed_are_found(file: Path, host: str, port: int) -> None:
    key = ed25519(1)
    name = lookup_name(host, port)
    file.write_text(f"{name} {public_text(key)}\nother {public_text(rsa())}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert name not in file.read_text()
    assert file.read_text().startswith("|1|")
    known_hosts = KnownHosts.load([str(file)])
    assert known_hosts.verify(host, port, key) is KNOWN
    assert known_hosts.verify(host, port, ed25519(2)) is CHANGED
    assert known_hosts.verify("third", port, key) is UNKNOWN


@needs("ssh-keygen")
@pytest.mark.parametrize("key_type", KEY_MAKERS)
def test_fingerprint_is_the_one_that_ssh_keygen_prints(file: Path, key_type: str) -> None:
    key = KEY_MAKERS[key_type]()
    file.write_text(f"{public_text(key)}\n")
    command = ["ssh-keygen", "-lf", str(file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert fingerprint(key) == output.split()[1]


# Whatever stands in a file

PIECES = (
    "host * ? ! , !host [host]:2222 @revoked @cert-authority @ # | |1| |1|a|b ssh-ed25519 ssh-rsa "
    f"{ed25519(1).get_base64()} {ed25519(1).get_base64()[:-3]} {hashed('host')} = == AAAA AAAAAA=="
).split()
near_lines = st.lists(
    st.sampled_from([piece.encode() for piece in PIECES]) | st.binary(max_size=4), max_size=6
).map(b" ".join)
texts = st.binary(max_size=200) | st.lists(near_lines, max_size=10).map(b"\n".join)


def as_argument(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


# What a command line can hand over: any text, and bytes that aren't UTF-8.
hosts = st.just("host") | st.text() | st.binary().map(as_argument)


@settings(deadline=None)
@given(text=texts, host=hosts, port=st.sampled_from([22, 2222]))
def test_any_file_and_any_host_give_a_verdict(
    directory: Path, text: bytes, host: str, port: int
) -> None:
    known_hosts = load(directory / "any", text)
    keys = known_hosts.find(host, port)
    verdict = known_hosts.verify(host, port, ed25519(1))
    assert isinstance(verdict, Verdict)
    assert verdict is UNKNOWN or keys
    assert known_hosts.key_types(host, port) <= {key.key_type for key in keys}


@settings(deadline=None)
@given(before=texts, after=texts)
def test_no_other_line_hides_a_known_key(directory: Path, before: bytes, after: bytes) -> None:
    line = f"host {public_text(ed25519(1))}".encode()
    known_hosts = load(directory / "hidden", b"\n".join([before, line, after]))
    assert known_hosts.verify("host", 22, ed25519(1)) in (KNOWN, REVOKED)


@settings(deadline=None)
@given(
    before=texts,
    host=st.from_regex(r"[a-zA-Z0-9_.:%\xe0-\xff-]+", fullmatch=True),
    port=st.integers(1, 65535),
)
def test_whatever_a_file_holds_an_added_key_is_known(
    directory: Path, before: bytes, host: str, port: int
) -> None:
    file = directory / "added"
    file.write_bytes(before)
    add(str(file), host, port, ed25519(1))
    assert file.read_bytes().startswith(before)
    assert KnownHosts.load([str(file)]).verify(host, port, ed25519(1)) in (KNOWN, REVOKED)


# Loading


def test_all_files_count(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"host {public_text(ed25519(1))}\n")
    second.write_text(f"host {public_text(rsa())}\n@revoked * {public_text(ed25519(1))}\n")
    known_hosts = KnownHosts.load([str(first), str(second)])
    assert known_hosts.verify("host", 22, rsa()) is KNOWN
    assert known_hosts.verify("host", 22, ed25519(1)) is REVOKED
    assert [key.file for key in known_hosts.find("host", 22)] == [
        str(p) for p in (first, second, second)
    ]


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    known_hosts = KnownHosts.load([str(tmp_path / "missing"), str(tmp_path / "no" / "directory")])
    assert known_hosts.verify("host", 22, ed25519(1)) is UNKNOWN


IS_A_DIRECTORY = PermissionError if sys.platform == "win32" else IsADirectoryError


def set_home(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(path))


def test_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_home(tmp_path, monkeypatch)
    (tmp_path / "hosts").write_text(f"host {public_text(ed25519(1))}\n")
    (key,) = KnownHosts.load(["~/hosts"]).find("host", 22)
    assert Path(key.file) == tmp_path / "hosts"


def test_a_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(IS_A_DIRECTORY) as caught:
        KnownHosts.load([str(tmp_path)])
    assert caught.value.filename == str(tmp_path)


def test_malformed_lines_are_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="tunneledzmq"):
        load(file, b"# comment\n\nhost\nhost ssh-rsa secret\n@what * ssh-rsa AAAA\n")
    records = [record for record in caplog.records if record.name == "tunneledzmq"]
    assert [record.levelno for record in records] == [logging.DEBUG] * 3
    for record, number in zip(records, (3, 4, 5), strict=True):
        assert record.getMessage().startswith(f"{file}:{number}: ")
        assert "secret" not in record.getMessage()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of a user whom file modes stop."""
    if sys.platform == "win32":
        pytest.skip("file modes are POSIX")
    nobody = 65534
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, nobody, nobody)
        os.seteuid(nobody)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_an_unreadable_file_is_an_error_that_names_it(unprivileged: Path) -> None:
    file = unprivileged / "known_hosts"
    file.touch(mode=0o000)
    with pytest.raises(PermissionError, match=re.escape(str(file))):
        KnownHosts.load([str(file)])


# Adding


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_add_creates_a_private_file_in_a_private_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_home(tmp_path, monkeypatch)
    umask = os.umask(0)
    try:
        add("~/.ssh/known_hosts", "host", 22, ed25519(1))
    finally:
        os.umask(umask)
    assert mode(tmp_path / ".ssh") == 0o700
    assert mode(tmp_path / ".ssh" / "known_hosts") == 0o600
    assert KnownHosts.load(["~/.ssh/known_hosts"]).verify("host", 22, ed25519(1)) is KNOWN


def test_add_creates_no_other_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_home(tmp_path, monkeypatch)
    file = tmp_path / "missing" / "known_hosts"
    with pytest.raises(FileNotFoundError) as caught:
        add(str(file), "host", 22, ed25519(1))
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == []


def test_add_keeps_the_file_and_its_mode(file: Path) -> None:
    file.write_bytes(b"# mine\r\n\xff\n")
    file.chmod(0o644)
    add(str(file), "host", 22, ed25519(1))
    assert file.read_bytes() == f"# mine\r\n\xff\nhost {public_text(ed25519(1))}\n".encode(
        "latin-1"
    )
    assert mode(file) == 0o644


def test_add_starts_a_new_line(file: Path) -> None:
    file.write_text(f"other {public_text(rsa())}")
    add(str(file), "host", 22, ed25519(1))
    assert file.read_text() == f"other {public_text(rsa())}\nhost {public_text(ed25519(1))}\n"


@needs("ssh-keygen")
@pytest.mark.parametrize("port", [22, 2222])
@pytest.mark.parametrize("host", ["host.example", "Host.Example", "192.0.2.1", "2001:db8::1"])
def test_ssh_keygen_finds_what_was_added(file: Path, host: str, port: int) -> None:
    for name, key in (("other", rsa()), (host, ecdsa(256)), ("third", ed25519(1))):
        assert add(str(file), name, port, key) is UNKNOWN
    assert found_by_ssh_keygen(file, lookup_name(host, port)) == [2]


@pytest.mark.parametrize("name", ["host", "HOST", "*", "a,host", hashed("host")])
def test_add_adds_nothing_that_is_there(file: Path, name: str) -> None:
    text = f"other {public_text(rsa())}\n{name} {public_text(ed25519(1))} comment"
    file.write_text(text)
    assert add(str(file), "host", 22, ed25519(1)) is KNOWN
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("line", "verdict"), [("host OTHER", CHANGED), ("@revoked host KEY", REVOKED)]
)
def test_add_adds_nothing_to_a_host_that_is_known_otherwise(
    file: Path, line: str, verdict: Verdict
) -> None:
    text = fill_in(line, public_text(ed25519(1)))
    file.write_bytes(text)
    assert add(str(file), "host", 22, ed25519(1)) is verdict
    assert file.read_bytes() == text


@pytest.mark.parametrize("line", ["other KEY", "[host]:2222 KEY", "#host KEY"])
def test_add_adds_what_is_not_there(file: Path, line: str) -> None:
    file.write_bytes(fill_in(line, public_text(ed25519(1))))
    add(str(file), "host", 22, ed25519(1))
    assert len(file.read_text().splitlines()) == 2
    assert KnownHosts.load([str(file)]).verify("host", 22, ed25519(1)) is KNOWN


@pytest.mark.parametrize("there", [True, False])
def test_add_follows_a_symbolic_link(tmp_path: Path, there: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    if there:
        target.write_text("# mine\n")
    link.symlink_to("target")
    add(str(link), "host", 22, ed25519(1))
    assert link.is_symlink()
    assert KnownHosts.load([str(target)]).verify("host", 22, ed25519(1)) is KNOWN


@pytest.mark.parametrize("host", [*"@?*#[]|'\"\\!, \t\n\r\0", "", "a b", "a\nb", "*.example"])
def test_add_writes_no_name_that_means_something_else(file: Path, host: str) -> None:
    with pytest.raises(ValueError, match="known_hosts"):
        add(str(file), host, 22, ed25519(1))
    assert not file.exists()


def test_add_to_dev_null_adds_nothing() -> None:
    add(os.devnull, "host", 22, ed25519(1))
    assert KnownHosts.load([os.devnull]).find("host", 22) == []


def test_adding_to_a_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(IS_A_DIRECTORY) as caught:
        add(str(tmp_path), "host", 22, ed25519(1))
    assert caught.value.filename == str(tmp_path)


def test_adding_to_a_read_only_file_is_an_error_that_names_it(unprivileged: Path) -> None:
    file = unprivileged / "known_hosts"
    file.write_text("# mine\n")
    file.chmod(0o400)
    with pytest.raises(PermissionError, match=re.escape(str(file))):
        add(str(file), "host", 22, ed25519(1))
    assert file.read_text() == "# mine\n"


def program(source: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program that finds the names of this module."""
    prologue = "import sys; from tests.gateway.trust.test_known_hosts import *\n"
    return Program(
        [sys.executable, "-c", prologue + source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


FILL_THE_DISK = """
import resource
size = os.path.getsize(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
try:
    add(sys.argv[1], "host", 22, ed25519(1))
except OSError as exc:
    print(exc.errno, exc.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_a_line_for_which_there_is_no_room_leaves_no_trace(file: Path) -> None:
    """A limit on the file's size stands in for a full disk: both cut a write short."""
    file.write_text("# mine")
    with program(FILL_THE_DISK, str(file)) as process:
        output, _ = process.communicate(timeout=60)
    assert output == f"{errno.ENOSPC} {file}\n"
    assert file.read_text() == "# mine"


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_add_looks_at_the_file_when_its_turn_has_come(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    lock = fcntl.flock
    text = f"host {public_text(ed25519(1))} added meanwhile\n"

    def wait_for_another_process(descriptor: int, operation: int) -> None:
        assert operation & fcntl.LOCK_EX
        file.write_text(text)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", wait_for_another_process)
    add(str(file), "host", 22, ed25519(1))
    assert file.read_text() == text


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_lock_of_somebody_else_delays_and_does_not_hinder(file: Path) -> None:
    import fcntl

    file.write_text("# mine\n")
    with file.open() as reader:  # whoever may read it may lock it
        fcntl.flock(reader, fcntl.LOCK_EX)
        start = time.monotonic()
        assert add(str(file), "host", 22, ed25519(1)) is UNKNOWN
        assert time.monotonic() - start < 2
    assert file.read_text() == f"# mine\nhost {public_text(ed25519(1))}\n"


ADD_MANY = """
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 41):
    add(sys.argv[1], f"host{number}", 22, ed25519(number))
    add(sys.argv[1], f"host{number}", int(sys.argv[2]), ed25519(-number))
"""


def test_processes_that_add_at_a_time_tear_and_repeat_no_line(file: Path) -> None:
    ports = range(2000, 2004)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(program(ADD_MANY, str(file), str(port))) for port in ports]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
    expected = [f"host{number} {public_text(ed25519(number))}" for number in range(1, 41)]
    expected += [
        f"[host{number}]:{port} {public_text(ed25519(-number))}"
        for number in range(1, 41)
        for port in ports
    ]
    assert sorted(file.read_text().splitlines()) == sorted(expected)


# Other files, and other forms


@needs("ssh-keygen")
def test_a_key_is_revoked_by_a_certificate_for_it(tmp_path: Path) -> None:
    host, authority = (generate_key(tmp_path / name) for name in ("host", "authority"))
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "id", "-n", "host", f"{host}.pub"]
    subprocess.run(sign, check=True)
    key, certificate = public_key(host), public_key(f"{host}-cert")
    shown = paramiko.Ed25519Key.from_private_key_file(str(host))
    file = tmp_path / "known_hosts"
    assert load(file, f"host {certificate}\n".encode()).verify("host", 22, shown) is CHANGED
    text = f"@revoked * {certificate}\nhost {key}\n".encode()
    assert load(file, text).verify("host", 22, shown) is REVOKED


@needs("ssh-keygen")
def test_a_hidden_name_is_found_by_its_host_alone(file: Path) -> None:
    add(str(file), "host", 2222, ed25519(1), hashed=True)
    assert b"host" not in file.read_bytes()
    assert KnownHosts.load([str(file)]).verify("host", 2222, ed25519(1)) is KNOWN
    assert KnownHosts.load([str(file)]).verify("other", 2222, ed25519(1)) is UNKNOWN
    assert found_by_ssh_keygen(file, "[host]:2222") == [1]
    assert found_by_ssh_keygen(file, "[other]:2222") == []


def test_a_file_of_keys_is_read(file: Path) -> None:
    spaced = public_text(ed25519(1)).replace("AAAI", "AA\r\v\fAI")
    file.write_bytes(f"# no key\n\n{spaced} of somebody\n{public_text(rsa())}".encode())
    assert load_keys(str(file)) == [ed25519(1).asbytes(), rsa().asbytes()]


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"SSHKRL\n\0", "KRL"), (b"#\nssh-rsa AAAA", "line 2"), (b"nonsense", "line 1")],
)
def test_a_file_of_something_else_is_refused(text: bytes, says: str, file: Path) -> None:
    file.write_bytes(text)
    with pytest.raises(ValueError, match=says):
        load_keys(str(file))
