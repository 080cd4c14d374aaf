"""Logging in: keys, agents and passwords; and whom to believe: host keys."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.agents import running_agent
from tests.logins import options_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer, generate_key, keygen, public_key
from tunneledzmq import (
    SSHAuthenticationError,
    SSHOptions,
    TunneledContext,
    TunnelError,
    UnknownHostKeyError,
)
from tunneledzmq.demo.server import EmbeddedServer

pytestmark = pytest.mark.usefixtures("backend")

HAS_NO_MODES = os.name == "nt"


def assert_lets_in(ctx: TunneledContext, options: SSHOptions | str, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An ssh-agent without keys, at `SSH_AUTH_SOCK`."""
    with running_agent(tmp_path / "agent") as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        yield path


@pytest.mark.parametrize("key_type", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_a_key_of_each_type(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, key_type: str
) -> None:
    keyfile = generate_key(tmp_path / "key", key_type)
    openssh.authorize(keyfile)
    assert_lets_in(ctx, options_for(openssh, keyfile=str(keyfile)), echo)


@pytest.mark.parametrize("key_type", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_a_host_key_of_each_type(ctx: TunneledContext, echo: Peer, key_type: str) -> None:
    with OpenSSHServer(host_key_types=[key_type]) as server:
        assert_lets_in(ctx, options_for(server), echo)


def test_the_host_key_that_is_known_is_asked_for(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with OpenSSHServer(host_key_types=["ssh-ed25519", "ecdsa-sha2-nistp256"]) as server:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(f"[{server.host}]:{server.port} {public_key(server.host_keys[1])}\n")
        assert_lets_in(ctx, options_for(server, known_hosts=str(known_hosts)), echo)


def test_a_stale_key_of_another_type_does_not_matter(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with OpenSSHServer(host_key_types=["ssh-rsa", "ssh-ed25519"]) as server:
        name = f"[{server.host}]:{server.port}"
        stale = public_key(generate_key(tmp_path / "stale", "ssh-rsa"))
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(f"{name} {stale}\n{name} {public_key(server.host_keys[1])}\n")
        assert_lets_in(ctx, options_for(server, known_hosts=str(known_hosts)), echo)


def test_hashed_names_in_known_hosts(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(Path(openssh.known_hosts).read_text())
    keygen("-H", "-f", known_hosts)
    assert openssh.host not in known_hosts.read_text()
    assert_lets_in(ctx, options_for(openssh, known_hosts=str(known_hosts)), echo)


def test_a_key_known_for_the_plain_host_counts_for_every_port(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"{openssh.host} {public_key(openssh.host_keys[0])}\n")
    assert_lets_in(ctx, options_for(openssh, known_hosts=str(known_hosts)), echo)


def test_a_key_with_a_passphrase(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    keyfile = generate_key(tmp_path / "key", passphrase="open sesame")
    openssh.authorize(keyfile)
    options = options_for(openssh, keyfile=str(keyfile), passphrase="open sesame")
    assert_lets_in(ctx, options, echo)


def test_each_of_several_keys_is_tried(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    keyfiles = [str(generate_key(tmp_path / name)) for name in ("one", "two")]
    assert_lets_in(ctx, options_for(openssh, keyfile=[*keyfiles, openssh.keyfile]), echo)


def test_a_password(ctx: TunneledContext, echo: Peer, tmp_path: Path) -> None:
    with EmbeddedServer(password="s3cret") as server:
        options = options_for(server, keyfile=None, password="s3cret")
        assert_lets_in(ctx, options, echo)
        wrong_key = str(generate_key(tmp_path / "wrong"))
        options = options_for(server, keyfile=wrong_key, password="s3cret")
        assert_lets_in(ctx, options, echo)


def test_a_key_in_the_agent(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, agent: str, home: Path
) -> None:
    keyfile = generate_key(tmp_path / "key")
    openssh.authorize(keyfile)
    options = options_for(openssh, keyfile=None, agent=True)
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHAuthenticationError):
        sock.connect(echo.address, ssh=options)
    subprocess.run(["ssh-add", "-q", keyfile], check=True, stdin=subprocess.DEVNULL)
    assert_lets_in(ctx, options, echo)
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHAuthenticationError):
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=None, agent=False))


def test_an_agent_that_is_gone_is_passed_over(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert_lets_in(ctx, options_for(openssh, agent=True), echo)


@pytest.mark.parametrize(
    ("name", "key_type"),
    [("id_ed25519", "ssh-ed25519"), ("id_ecdsa", "ecdsa-sha2-nistp256"), ("id_rsa", "ssh-rsa")],
)
def test_the_default_keys_and_known_hosts(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path, name: str, key_type: str
) -> None:
    openssh.authorize(generate_key(home / ".ssh" / name, key_type))
    (home / ".ssh" / "known_hosts").write_text(Path(openssh.known_hosts).read_text())
    assert_lets_in(ctx, openssh.server, echo)


def test_accept_new_writes_the_host_key_down(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    accept = options_for(
        openssh, known_hosts=str(known_hosts), strict_host_key_checking="accept-new"
    )
    check = options_for(openssh, known_hosts=str(known_hosts), strict_host_key_checking="yes")
    with ctx.socket(zmq.REQ) as sock, pytest.raises(UnknownHostKeyError):
        sock.connect(echo.address, ssh=check)
    for _ in range(2):
        assert_lets_in(ctx, accept, echo)
    [line] = known_hosts.read_text().splitlines()
    key = public_key(openssh.host_keys[0])
    assert line.split()[:3] == [f"[{openssh.host}]:{openssh.port}", *key.split()]
    assert HAS_NO_MODES or stat.S_IMODE(known_hosts.stat().st_mode) == 0o600
    assert_lets_in(ctx, check, echo)


def test_accept_new_starts_the_users_own_file(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    (home / ".ssh").rmdir()
    options = options_for(openssh, known_hosts=None, strict_host_key_checking="accept-new")
    assert_lets_in(ctx, options, echo)
    known_hosts = home / ".ssh" / "known_hosts"
    assert public_key(openssh.host_keys[0]) in known_hosts.read_text()
    assert HAS_NO_MODES or stat.S_IMODE(known_hosts.parent.stat().st_mode) == 0o700


def test_accept_new_keeps_what_known_hosts_has(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text("# mine\nbroken line\nother.example.com ssh-ed25519 AAAA")
    options = options_for(
        openssh, known_hosts=str(known_hosts), strict_host_key_checking="accept-new"
    )
    assert_lets_in(ctx, options, echo)
    lines = known_hosts.read_text().splitlines()
    assert lines[:3] == ["# mine", "broken line", "other.example.com ssh-ed25519 AAAA"]
    assert len(lines) == 4


@pytest.fixture
def changed_known_hosts(tmp_path: Path) -> Path:
    """A known_hosts file that has another key for every host."""
    path = tmp_path / "known_hosts"
    path.write_text(f"* {public_key(generate_key(tmp_path / 'other'))}\n")
    return path


def test_no_checking_warns_of_a_changed_key(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    changed_known_hosts: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = options_for(
        openssh, known_hosts=str(changed_known_hosts), strict_host_key_checking="no"
    )
    with caplog.at_level(logging.INFO, "tunneledzmq"):
        assert_lets_in(ctx, options, echo)
        wait_until(lambda: "changed" in caplog.text.lower())
    [record] = [record for record in caplog.records if "changed" in record.getMessage().lower()]
    assert record.name.startswith("tunneledzmq")
    assert record.levelno == logging.WARNING
    assert openssh.server in record.getMessage()


def test_no_password_is_sent_to_a_server_with_a_changed_key(
    ctx: TunneledContext, echo: Peer, changed_known_hosts: Path
) -> None:
    with EmbeddedServer(password="s3cret") as server:
        options = options_for(
            server,
            keyfile=None,
            password="s3cret",
            known_hosts=str(changed_known_hosts),
            strict_host_key_checking="no",
        )
        with ctx.socket(zmq.REQ) as sock, pytest.raises(TunnelError) as caught:
            sock.connect(echo.address, ssh=options)
        assert server.status().logins == 0
        assert "s3cret" not in str(caught.value)
