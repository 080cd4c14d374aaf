"""Host certificates are believed where ssh believes them, and nowhere else."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from tests.logins import options_for
from tests.peers import Peer, round_trip
from tests.sshd import OpenSSHServer, generate_key, public_key
from tunneledzmq import HostKeyError, TunneledContext, UnknownHostKeyError
from tunneledzmq.gateway.trust.certificate import CA_SIGNATURES, HostCertificate


@dataclass(frozen=True)
class Case:
    """A server with a certificate, and what the user knows."""

    believed: bool
    known: str = "@cert-authority [HOST]:PORT CA\n"
    sign: tuple[str, ...] = ("-h", "-n", "127.0.0.1")
    authority: str = "ssh-ed25519"
    host_key: str = "ssh-ed25519"
    config: str = ""
    says: str = field(default="")


CASES = {
    "its name": Case(True),
    "no principals": Case(True, sign=("-h",)),
    "one of its names": Case(True, sign=("-h", "-n", "a,127.0.0.1")),
    "another name": Case(False, sign=("-h", "-n", "127.0.0.2"), says="it is for 127.0.0.2"),
    "a pattern": Case(False, sign=("-h", "-n", "127.*"), says="it is for 127.*"),
    "with a port": Case(False, sign=("-h", "-n", "[127.0.0.1]:22"), says="it is for"),
    "valid": Case(True, sign=("-h", "-V", "20200101:20990101")),
    "expired": Case(False, sign=("-h", "-V", "20200101:20210101"), says="it has expired"),
    "not yet valid": Case(False, sign=("-h", "-V", "20900101:20910101"), says="it is not valid"),
    "for users": Case(False, sign=("-n", "127.0.0.1"), says="it is one for users"),
    "critical option": Case(
        False, sign=("-h", "-O", "critical:new@example.org=1"), says="options that are not known"
    ),
    "extension": Case(True, sign=("-h", "-O", "extension:new@example.org=1")),
    "another authority": Case(
        False, "@cert-authority * OTHER\n", says="signed by another authority (SHA256:"
    ),
    "no authority": Case(False, "* OTHER\n"),
    "one of two authorities": Case(True, "@cert-authority * OTHER\n@cert-authority * CA\n"),
    "of the plain host": Case(True, "@cert-authority HOST CA\n"),
    "of all hosts": Case(True, "@cert-authority * CA\n"),
    "of another host": Case(False, "@cert-authority 127.0.0.2 CA\n"),
    "not of this host": Case(False, "@cert-authority *,![HOST]:PORT,!HOST CA\n"),
    "the authority as a key": Case(False, "* CA\n"),
    "the key as an authority": Case(False, "@cert-authority * KEY\n"),
    "revoked authority": Case(False, "@cert-authority * CA\n@revoked * CA\n", says="revoked"),
    "revoked key": Case(False, "@cert-authority * CA\n@revoked * KEY\n", says="revoked"),
    "authority in RevokedHostKeys": Case(
        False, config="RevokedHostKeys DIR/authority.pub", says="authority of its host certificate"
    ),
    "revoked elsewhere": Case(True, "@cert-authority * CA\n@revoked other CA\n"),
    "another key is known": Case(True, "@cert-authority * CA\n* OTHER\n"),
    "expired, and the key is known": Case(
        True, "@cert-authority * CA\n* KEY\n", sign=("-h", "-V", "20200101:20210101")
    ),
    "another authority, and the key is known": Case(True, "@cert-authority * OTHER\n* KEY\n"),
    "RSA by RSA": Case(True, authority="ssh-rsa", host_key="ssh-rsa"),
    "ECDSA by ECDSA": Case(True, authority="ecdsa-sha2-nistp256", host_key="ecdsa-sha2-nistp256"),
    "signed with SHA-1": Case(False, sign=("-h", "-t", "ssh-rsa"), authority="ssh-rsa"),
    "signed with SHA-256": Case(True, sign=("-h", "-t", "rsa-sha2-256"), authority="ssh-rsa"),
    "an algorithm that is not accepted": Case(
        False, config="CASignatureAlgorithms rsa-sha2-512", says="signed with ssh-ed25519"
    ),
    "an algorithm taken away": Case(False, config="CASignatureAlgorithms -ssh-ed25519"),
    "an alias": Case(
        True, "@cert-authority box CA\n", sign=("-h", "-n", "box"), config="HostKeyAlias box"
    ),
    "an alias that is another's": Case(
        False, "@cert-authority box CA\n", config="HostKeyAlias box", says="not for box"
    ),
    "certificates are not asked for": Case(False, config="HostKeyAlgorithms ssh-ed25519"),
    "certificates alone are asked for": Case(
        True, config="HostKeyAlgorithms *-cert-v01@openssh.com"
    ),
}

_OF_OTHERS = ("@cert-authority 127.0.0.2 CA\n", "@cert-authority *,![HOST]:PORT,!HOST CA\n")


def certify(directory: Path, authority: Path, key: Path, sign: tuple[str, ...]) -> Path:
    """Have an authority sign a key; return the certificate."""
    copy = directory / "to_be_signed"
    copy.with_suffix(".pub").write_text(f"{public_key(key)}\n")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "id", *sign, f"{copy}.pub"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return directory / "to_be_signed-cert.pub"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_certificate_is_believed_where_ssh_believes_it(
    ctx: TunneledContext, echo: Peer, tmp_path: Path, case: Case, backend: str
) -> None:
    authority = generate_key(tmp_path / "authority", case.authority)
    other = generate_key(tmp_path / "other")
    with OpenSSHServer(host_key_types=[case.host_key]) as server:
        key = Path(server.host_keys[0])
        certificate = certify(tmp_path, authority, key, case.sign)
        server._config["HostCertificate"] = str(certificate)
        server.restart()
        text = case.known.replace("HOST", server.host).replace("PORT", str(server.port))
        for name, file in (("CA", authority), ("OTHER", other), ("KEY", key)):
            text = text.replace(f" {name}\n", f" {public_key(file)}\n")
        Path(server.known_hosts).write_text(text)
        config = case.config.replace("DIR", str(tmp_path))
        (tmp_path / "config").write_text(f"Host *\n{config}\n")
        options = options_for(server, config_file=str(tmp_path / "config"))
        with ctx.socket(zmq.REQ) as sock:
            if case.believed:
                sock.connect(echo.address, ssh=options)
                round_trip(sock)
                return
            with pytest.raises(HostKeyError) as caught:
                sock.connect(echo.address, ssh=options)
        assert Path(server.known_hosts).read_text() == text
        assert backend != "sshtunnel" or case.says in str(caught.value)
        if isinstance(caught.value, UnknownHostKeyError):
            # The advice is never to take what the authority is there to tell.
            vouched = "@cert-authority" in text and case.known not in _OF_OTHERS
            assert ("ssh-keygen -s CA" in str(caught.value)) == vouched
            assert ("ssh-keyscan" in str(caught.value)) == (not vouched)


def test_a_certified_key_stays_through_key_exchanges(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    authority = generate_key(tmp_path / "authority")
    with OpenSSHServer(RekeyLimit="200K") as server:
        certificate = certify(tmp_path, authority, Path(server.host_keys[0]), ("-h",))
        server._config["HostCertificate"] = str(certificate)
        server.restart()
        Path(server.known_hosts).write_text(f"@cert-authority * {public_key(authority)}\n")
        with ctx.socket(zmq.REQ) as sock:
            sock.connect(echo.address, ssh=options_for(server))
            for _ in range(20):
                sock.send(bytes(100_000))
                assert len(sock.recv()) == 100_000
            [tunnel] = sock.tunnels
            assert tunnel.reconnects == 0


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good certificate."""
    directory = tmp_path_factory.mktemp("signed")
    authority, key = generate_key(directory / "ca"), generate_key(directory / "key")
    text = certify(directory, authority, key, ("-h", "-n", "host")).read_text()
    return base64.b64decode(text.split()[1])


def test_who_says_what(signed: bytes) -> None:
    certificate = HostCertificate.read(signed)
    assert certificate.principals == ("host",)
    assert certificate.fault("host", 2e9, CA_SIGNATURES) is None
    assert certificate.fault("HOST", 2e9, CA_SIGNATURES)
    assert replace(certificate, signed_with="").fault("host", 2e9, CA_SIGNATURES)


def test_no_bit_of_a_certificate_can_be_changed(signed: bytes) -> None:
    for at in range(len(signed)):
        changed = bytearray(signed)
        changed[at] ^= 1
        with pytest.raises(ValueError):  # noqa: PT011
            HostCertificate.read(bytes(changed))
    for end in range(len(signed)):
        with pytest.raises(ValueError):  # noqa: PT011
            HostCertificate.read(signed[:end])
    with pytest.raises(ValueError, match="follows"):
        HostCertificate.read(signed + b"\0")


@given(st.binary(max_size=300), st.sampled_from(["ssh-ed25519", "ssh-rsa", "ssh-dss", "x"]))
def test_any_bytes_are_a_certificate_or_no_value(rest: bytes, name: str) -> None:
    head = f"{name}-cert-v01@openssh.com".encode()
    for blob in (rest, len(head).to_bytes(4, "big") + head + rest):
        with pytest.raises(ValueError):  # noqa: PT011
            HostCertificate.read(blob)
