"""Keys: their files, certificates and agents, and the order in which they are offered."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from tests.agents import FailingAgent, add_to_agent, running_agent
from tests.logins import options_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import KEYGEN_TYPES, OpenSSHServer, generate_key, keygen
from tunneledzmq import SSHAuthenticationError, SSHOptions, TunneledContext
from tunneledzmq.gateway.auth.agent import Agent, AgentError
from tunneledzmq.gateway.auth.identities import Identities, load_identities
from tunneledzmq.gateway.auth.keyfiles import KeyFile, KeyFileError
from tunneledzmq.gateway.auth.publickey import PublicKey, parse_line
from tunneledzmq.gateway.login import Login, LoginError

TIMEOUT = 2.0


def assert_lets_in(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)


def assert_refused(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> str:
    with ctx.socket(zmq.REQ) as sock:
        with pytest.raises(SSHAuthenticationError) as caught:
            sock.connect(echo.address, ssh=options)
        assert sock.tunnels == []
    return str(caught.value)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An ssh-agent without keys, at `SSH_AUTH_SOCK`."""
    with running_agent(tmp_path / "agent") as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        yield path


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The key of a certificate authority."""
    return generate_key(tmp_path / "authority")


@pytest.fixture
def trusting(need_sshd: None, authority: Path) -> Iterator[OpenSSHServer]:
    """A server that lets in whoever has a certificate of the authority, and no plain keys."""
    with OpenSSHServer(
        TrustedUserCAKeys=Path(f"{authority}.pub"), AuthorizedKeysFile="none", LogLevel="DEBUG1"
    ) as server:
        yield server


def certify(keyfile: Path, authority: Path, *arguments: str, user: str = "root") -> Path:
    """Sign a key; return the path of the certificate."""
    keygen("-s", authority, "-I", "test", "-n", user, *arguments, Path(f"{keyfile}.pub"))
    return Path(f"{keyfile}-cert.pub")


EXPIRED = ["-V", "20000101000000:20010101000000"]
NOT_YET = ["-V", "20900101000000:20910101000000"]


# Files


@pytest.mark.parametrize("key_format", ["PEM", "PKCS8"])
@pytest.mark.parametrize("key_type", ["ecdsa-sha2-nistp256", "ssh-rsa"])
@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_the_older_formats_of_keys(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    key_format: str,
    key_type: str,
    passphrase: str | None,
) -> None:
    keyfile = generate_key(tmp_path / "key", key_type)
    openssh.authorize(keyfile)
    keygen("-p", "-N", passphrase or "", "-m", key_format, "-f", keyfile)
    assert "OPENSSH" not in keyfile.read_text()
    Path(f"{keyfile}.pub").unlink()
    assert_lets_in(ctx, options_for(openssh, keyfile=str(keyfile), passphrase=passphrase), echo)


def test_keys_that_are_encrypted_in_newer_ways(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, home: Path
) -> None:
    locked = {}
    for cipher in ("aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"):
        path = locked[cipher] = tmp_path / cipher.partition("-")[0]
        keygen("-t", "ed25519", "-N", "sesame", "-Z", cipher, "-f", path)
        openssh.authorize(path)
    gcm, chacha = locked.values()
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=str(gcm), passphrase="sesame"))
        round_trip(sock)
    told = "its encryption, chacha20-poly1305@openssh.com, is not supported: ssh-keygen -p"
    (home / ".ssh" / "id_ed25519").write_bytes(chacha.read_bytes())
    (home / ".ssh" / "id_ed25519").chmod(0o600)
    for keyfile in (str(chacha), None):
        options = options_for(openssh, keyfile=keyfile, passphrase="sesame")
        with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHAuthenticationError) as caught:
            sock.connect(echo.address, ssh=options)
        assert told in str(caught.value) and "wrong" not in str(caught.value)
    wrong = options_for(openssh, keyfile=str(gcm), passphrase="wr0ng")
    with (
        ctx.socket(zmq.REQ) as sock,
        pytest.raises(SSHAuthenticationError, match=r"passphrase for the key file .* is wrong"),
    ):
        sock.connect(echo.address, ssh=wrong)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.chmod(0o644), "chmod 600"),
        (lambda path: path.write_text("PuTTY-User-Key-File-3: ssh-ed25519\n"), "puttygen"),
        (lambda path: path.write_text(path.read_text()[:200]), "format"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "regular file"),
        (lambda path: path.unlink(), "ssh-agent"),
    ],
    ids=["open to others", "PuTTY's", "cut short", "pipe", "public half only"],
)
def test_a_key_file_that_was_named_must_be_usable(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    make: Callable[[Path], Any],
    reason: str,
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    make(keyfile)
    message = assert_refused(ctx, options_for(openssh, keyfile=str(keyfile)), echo)
    assert str(keyfile) in message and reason in message and openssh.server in message


def test_a_default_key_that_is_unusable_is_passed_over(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    openssh.authorize(generate_key(home / ".ssh" / "id_rsa", "ssh-rsa"))
    (home / ".ssh" / "id_ed25519").write_text("no key")
    generate_key(home / ".ssh" / "id_ecdsa", "ecdsa-sha2-nistp256").chmod(0o644)
    with caplog.at_level(logging.INFO, "tunneledzmq"):
        assert_lets_in(ctx, options_for(openssh, keyfile=None), echo)
        wait_until(lambda: "id_ed25519" in caplog.text and "chmod 600" in caplog.text)


# Certificates


@pytest.mark.parametrize("key_type", sorted(KEYGEN_TYPES))
def test_a_certificate_beside_the_key(
    ctx: TunneledContext,
    trusting: OpenSSHServer,
    authority: Path,
    echo: Peer,
    tmp_path: Path,
    key_type: str,
) -> None:
    keyfile = generate_key(tmp_path / "key", key_type)
    assert_refused(ctx, options_for(trusting, keyfile=str(keyfile)), echo)
    certificate = certify(keyfile, authority, user=trusting.user)
    assert_lets_in(ctx, options_for(trusting, keyfile=str(keyfile)), echo)
    assert_lets_in(ctx, options_for(trusting, keyfile=str(certificate)), echo)


@pytest.mark.parametrize("key_type", sorted(KEYGEN_TYPES))
def test_a_certificate_in_the_agent(
    ctx: TunneledContext,
    trusting: OpenSSHServer,
    authority: Path,
    echo: Peer,
    tmp_path: Path,
    agent: str,
    key_type: str,
) -> None:
    keyfile = generate_key(tmp_path / "key", key_type)
    certify(keyfile, authority, user=trusting.user)
    add_to_agent(agent, keyfile)
    options = options_for(trusting, keyfile=None, agent=True)
    assert_lets_in(ctx, options, echo)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (EXPIRED, "has expired (2001-01-01"),
        (NOT_YET, "is not valid yet (2090-01-01"),
        (["-h"], "for hosts"),
    ],
    ids=["expired", "not yet valid", "for hosts"],
)
def test_a_certificate_that_no_server_would_take_is_told(
    ctx: TunneledContext,
    trusting: OpenSSHServer,
    authority: Path,
    echo: Peer,
    tmp_path: Path,
    arguments: list[str],
    reason: str,
) -> None:
    keyfile = generate_key(tmp_path / "key")
    certificate = certify(keyfile, authority, *arguments, user=trusting.user)
    message = assert_refused(ctx, options_for(trusting, keyfile=str(keyfile)), echo)
    assert str(certificate) in message and reason in message
    # It was not sent in vain.
    assert "Certificate invalid" not in trusting.log()


def test_a_malformed_certificate_is_told_and_its_key_used(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keyfile = generate_key(tmp_path / "key")
    Path(f"{keyfile}-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com AAAAB3Nz\n")
    message = assert_refused(ctx, options_for(openssh, keyfile=str(keyfile)), echo)
    assert f"{keyfile}-cert.pub is malformed" in message
    openssh.authorize(keyfile)
    with caplog.at_level(logging.WARNING, "tunneledzmq"):
        assert_lets_in(ctx, options_for(openssh, keyfile=str(keyfile)), echo)
        wait_until(lambda: "malformed" in caplog.text)


# The agent


def test_a_key_that_is_named_by_its_public_half(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, agent: str
) -> None:
    keyfile = generate_key(tmp_path / "key", passphrase="")
    openssh.authorize(keyfile)
    add_to_agent(agent, keyfile)
    keyfile.unlink()
    for path in (keyfile, f"{keyfile}.pub"):
        assert_lets_in(ctx, options_for(openssh, keyfile=str(path), agent=True), echo)
        message = assert_refused(ctx, options_for(openssh, keyfile=str(path)), echo)
        assert str(path) in message


def test_the_agent_opens_a_key_that_is_locked(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, agent: str
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    add_to_agent(agent, keyfile)
    keygen("-p", "-N", "open sesame", "-f", keyfile)
    assert_lets_in(ctx, options_for(openssh, keyfile=str(keyfile), agent=True), echo)


def test_an_agent_that_refuses_to_sign(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, agent: str
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    add_to_agent(agent, "-c", keyfile)  # its dialog to confirm says no
    message = assert_refused(ctx, options_for(openssh, keyfile=None, agent=True), echo)
    assert "it refused to sign" in message
    other = generate_key(tmp_path / "other")
    openssh.authorize(other)
    assert_lets_in(ctx, options_for(openssh, keyfile=[keyfile, other], agent=True), echo)


def test_no_signature_is_asked_for_in_vain(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    agent: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    add_to_agent(agent, "-c", generate_key(tmp_path / "other"))  # asked to sign, it would refuse
    add_to_agent(agent, keyfile)
    with caplog.at_level(logging.DEBUG, "tunneledzmq"):
        assert_lets_in(ctx, options_for(openssh, keyfile=None, agent=True), echo)
        wait_until(lambda: "is not accepted" in caplog.text)
    assert "does not sign" not in caplog.text


def test_a_locked_agent(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, agent: str
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    add_to_agent(agent, keyfile)
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho open sesame\n")
    askpass.chmod(0o700)
    environment = {
        **os.environ,
        "SSH_ASKPASS": str(askpass),
        "SSH_ASKPASS_REQUIRE": "force",
        "SSH_AUTH_SOCK": agent,
    }
    subprocess.run(["ssh-add", "-q", "-x"], check=True, env=environment)
    message = assert_refused(ctx, options_for(openssh, keyfile=None, agent=True), echo)
    assert agent in message and "locked" in message


@pytest.mark.parametrize(
    "answer",
    [None, b"", b"\0\0\0\5\x0c\0\0\0\1", b"\xff" * 100, b"\0\0\0\1\x05"],
    ids=["silent", "mute", "cut short", "junk", "refusing"],
)
def test_an_agent_of_no_use_is_passed_over(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes | None,
) -> None:
    with FailingAgent(tmp_path / "agent", answer) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
        options = options_for(openssh, agent=True, connect_timeout=TIMEOUT)
        assert_lets_in(any_ctx, options, echo)
        start = time.monotonic()
        stranger = str(generate_key(tmp_path / "stranger"))
        options = options_for(openssh, keyfile=stranger, agent=True, connect_timeout=TIMEOUT)
        message = assert_refused(any_ctx, options, echo)
        assert time.monotonic() - start < TIMEOUT + 1.5
        assert agent.path in message
        assert agent.requests == 2


def test_an_agent_that_never_signs(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    with FailingAgent(tmp_path / "agent", keyfile=keyfile) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
        options = options_for(openssh, keyfile=None, agent=True, connect_timeout=TIMEOUT)
        start = time.monotonic()
        message = assert_refused(any_ctx, options, echo)
        assert time.monotonic() - start < TIMEOUT + 1.5
        assert agent.path in message and "a comment" in message


@pytest.mark.parametrize("lists", [True, False], ids=["signs not", "lists not"])
def test_a_session_returns_when_a_silent_agent_speaks_again(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lists: bool,
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    path = tmp_path / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))

    def use(agent: str) -> None:
        # An agent that is missing for a moment would refuse us for good.
        (tmp_path / "next").symlink_to(agent)
        os.replace(tmp_path / "next", path)

    sock = any_ctx.socket(zmq.REQ)
    with (
        running_agent(tmp_path / "speaks") as speaking,
        FailingAgent(tmp_path / "silent", keyfile=keyfile if lists else None) as silent,
    ):
        add_to_agent(speaking, keyfile)
        use(speaking)
        options = options_for(openssh, keyfile=None, agent=True, connect_timeout=TIMEOUT)
        sock.connect(echo.address, ssh=options)
        [tunnel] = sock.tunnels
        use(silent.path)
        openssh.kill_sessions()
        wait_until(lambda: str(path) in (tunnel.last_error or ""))
        assert tunnel.state == "down"
        use(speaking)
        wait_until(lambda: tunnel.state == "up", timeout=20)
        round_trip(sock)


def test_a_gateway_ends_while_the_agent_is_silent(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    path = tmp_path / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    with TunneledContext(isolate=False) as ctx, ctx.socket(zmq.REQ) as sock:
        with running_agent(path) as agent:
            add_to_agent(agent, keyfile)
            sock.connect(echo.address, ssh=options_for(openssh, keyfile=None, agent=True))
        path.unlink(missing_ok=True)
        with FailingAgent(path, keyfile=keyfile) as failing:
            openssh.kill_sessions()
            wait_until(lambda: failing.requests == 2)
            start = time.monotonic()
            sock.close(linger=0)
            ctx.term()
            assert time.monotonic() - start < 5
    # That nothing is left, not even the thread that dials, is checked after every test.


# The order


def offers(**fields: Any) -> Identities:
    login = Login("me@host:22", "host", 22, "me", connect_timeout=TIMEOUT, **fields)
    return load_identities(login)


def names(found: Identities) -> list[str]:
    return [re.sub(r".* \((.*)\)", r"agent:\1", offer.name) for offer in found.offers]


@pytest.fixture
def keys(tmp_path: Path, agent: str) -> dict[str, str]:
    """Keys: `both` and `too` are also in the agent, which has `other` as well."""
    paths = {}
    for name in ("both", "too", "file", "other"):
        path = generate_key(tmp_path / name)
        keygen("-c", "-C", name, "-f", path)
        paths[name] = str(path)
    for name in ("other", "too", "both"):
        add_to_agent(agent, paths[name])
    os.unlink(paths["other"])
    return paths


def test_keys_are_offered_in_the_order_of_openssh(keys: dict[str, str]) -> None:
    files = [keys["file"], keys["both"], keys["too"]]
    assert names(offers(identity_files=files)) == [
        keys["both"],
        keys["too"],
        "agent:other",
        keys["file"],
    ]


def test_keys_that_the_program_named_come_first(keys: dict[str, str]) -> None:
    found = offers(keyfiles=[keys["file"], keys["both"]], identity_files=[keys["too"]])
    assert names(found) == [keys["file"], keys["both"], "agent:other", "agent:too"]


def test_identities_only_leaves_the_agents_other_keys_out(keys: dict[str, str]) -> None:
    files = [keys["file"], keys["too"], keys["other"]]  # of the last one only the .pub is there
    found = offers(identity_files=files, identities_only=True)
    assert names(found) == [keys["too"], keys["other"], keys["file"]]
    assert [isinstance(offer.signer, Agent) for offer in found.offers] == [True, True, False]


def test_certificate_files_come_first(
    keys: dict[str, str], authority: Path, tmp_path: Path
) -> None:
    lonely = generate_key(tmp_path / "lonely")
    paths = [
        str(certify(Path(keys["file"]), authority)),
        str(certify(lonely, authority)),
        str(certify(Path(keys["other"]), authority)),
        str(tmp_path / "missing-cert.pub"),
        f"{lonely}.pub",
    ]
    found = offers(identity_files=[keys["file"]], certificate_files=paths)
    assert names(found)[:2] == [paths[0], paths[2]]
    assert names(found).count(paths[0]) == 1
    text = "\n".join(found.problems)
    assert f"{paths[1]}: there is no private key" in text
    assert paths[3] in text and f"{paths[4]}: no certificate" in text


def test_where_the_agent_is(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.environ["SSH_AUTH_SOCK"]
    monkeypatch.setenv("MY_AGENT", path)
    for name in (None, "SSH_AUTH_SOCK", "$MY_AGENT", "${MY_AGENT}", path):
        assert len(offers(identity_agent=name).offers) == 3
    assert not offers(identity_agent="none").offers
    assert not offers(identity_agent="$NO_SUCH_VARIABLE").offers
    assert not offers(agent=False, identity_agent=path).offers
    found = offers(identity_agent="/no/such/agent")
    assert "/no/such/agent" in found.problems[0]


def test_a_key_that_is_let_in_takes_one_request(
    ctx: TunneledContext, echo: Peer, tmp_path: Path, agent: str
) -> None:
    locked = generate_key(tmp_path / "locked", passphrase="open sesame")
    with OpenSSHServer(LogLevel="DEBUG1") as server:
        server.authorize(locked)
        add_to_agent(agent, server.keyfile)
        ways: list[dict[str, Any]] = [
            {},
            {"keyfile": None, "agent": True},
            {"agent": True},
            {"keyfile": str(locked), "passphrase": "open sesame"},
        ]
        for number, way in enumerate(ways, 1):
            assert_lets_in(ctx, options_for(server, **way), echo)
            assert server.log().count("userauth-request for user") == number


def test_too_many_keys_are_told(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, agent: str
) -> None:
    for number in range(7):
        add_to_agent(agent, generate_key(tmp_path / f"key{number}"))
    message = assert_refused(ctx, options_for(openssh, keyfile=None, agent=True), echo)
    assert "Too many authentication failures" in message and "keyfile=" in message
    assert_lets_in(ctx, options_for(openssh, agent=True), echo)


def test_two_keys_where_the_server_wants_two(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with OpenSSHServer(AuthenticationMethods="publickey,publickey") as server:
        second = generate_key(tmp_path / "second")
        server.authorize(second)
        assert_lets_in(ctx, options_for(server, keyfile=[server.keyfile, second]), echo)
        message = assert_refused(ctx, options_for(server), echo)
        assert "it accepts publickey" in message


def test_an_rsa_key_does_not_sign_with_sha1(
    ctx: TunneledContext, echo: Peer, tmp_path: Path, agent: str
) -> None:
    keyfile = generate_key(tmp_path / "key", "ssh-rsa")
    with OpenSSHServer(PubkeyAcceptedAlgorithms="rsa-sha2-512") as server:
        server.authorize(keyfile)
        assert_lets_in(ctx, options_for(server, keyfile=str(keyfile)), echo)
        add_to_agent(agent, keyfile)
        assert_lets_in(ctx, options_for(server, keyfile=None, agent=True), echo)


# RequiredRSASize


def test_short_rsa_keys_are_not_offered_wherever_they_are(
    tmp_path: Path, agent: str, authority: Path
) -> None:
    short, held, certified = (generate_key(tmp_path / name, "ssh-rsa") for name in "abc")
    add_to_agent(agent, held)
    certificate = str(certify(certified, authority))
    add_to_agent(agent, certified)  # with its certificate
    files = [str(short), str(held), str(generate_key(tmp_path / "ed25519"))]
    given: dict[str, Any] = {"identity_files": files, "certificate_files": [certificate]}
    assert len(offers(**given, required_rsa_size=2048).offers) == 5
    found = offers(**given, required_rsa_size=2049)
    assert names(found) == files[2:]
    assert any(f"{short} is not used: its key has 2048 bits" in text for text in found.problems)
    assert any("agent's ssh-rsa key" in text and "2049" in text for text in found.problems)


def test_a_short_key_that_was_named_is_an_error(tmp_path: Path) -> None:
    keyfile = str(generate_key(tmp_path / "key", "ssh-rsa"))
    with pytest.raises(LoginError, match="RequiredRSASize asks for 3000") as caught:
        offers(keyfiles=[keyfile], required_rsa_size=3000)
    assert caught.value.kind == "SSHAuthenticationError"


def test_a_key_that_shows_only_when_unlocked_to_be_short_signs_nothing(tmp_path: Path) -> None:
    keyfile = generate_key(tmp_path / "key", "ssh-rsa")
    keygen("-p", "-N", "open sesame", "-m", "PEM", "-f", keyfile)
    Path(f"{keyfile}.pub").unlink()
    file = KeyFile(str(keyfile), required_rsa_size=3000)
    file.unlock("open sesame")
    with pytest.raises(KeyFileError, match="2048 bits"):
        file.sign(b"", "rsa-sha2-512")


# Junk


@given(st.binary())
def test_any_bytes_are_a_public_key_or_no_value(blob: bytes) -> None:
    try:
        key = PublicKey(blob)
    except ValueError:
        return
    assert key.blob == blob


@given(st.binary(max_size=200), st.sampled_from(["ssh-rsa", "sk-ssh-ed25519", "ssh-ed25519"]))
def test_any_certificate_is_read_or_no_value(rest: bytes, name: str) -> None:
    kind = f"{name}-cert-v01@openssh.com".encode()
    try:
        key = PublicKey(len(kind).to_bytes(4, "big") + kind + rest)
    except ValueError:
        return
    assert key.certificate is not None
    key.certificate.fault(time.time())


@given(st.text())
def test_any_line_is_a_public_key_or_no_value(line: str) -> None:
    try:
        key = parse_line(line)
    except ValueError:
        return
    assert key.type == line.split()[0]


@given(body=st.binary(max_size=300), kind=st.sampled_from(["OPENSSH", "RSA", "EC", "ENCRYPTED"]))
def test_any_key_file_is_read_or_an_error(
    body: bytes, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(b"-----BEGIN %s PRIVATE KEY-----\n" % kind.encode() + body + b"\n-----END ")
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        KeyFile(str(path)).unlock("open sesame")


def test_an_agent_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for path in ("/no/such/agent", str(tmp_path), "x" * 200):
        with pytest.raises(AgentError):
            Agent(path).keys(TIMEOUT)


def test_a_missing_key_has_its_errno(tmp_path: Path) -> None:
    with pytest.raises(LoginError) as caught:
        offers(keyfiles=[str(tmp_path / "missing")])
    assert caught.value.errno == errno.ENOENT and not caught.value.passing
