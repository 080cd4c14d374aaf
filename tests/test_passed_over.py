"""A key that cannot be used is passed over, as ssh does, and what comes after it is tried.

It is locked and nobody opens it, or others may read it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from tests.accounts import may_make_accounts, temporary_account
from tests.logins import entry_for, options_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer, generate_key, public_key
from tunneledzmq import SSHAuthenticationError, SSHOptions, TunneledContext

Prompt = Callable[[str, bool], str]

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def locked(openssh: OpenSSHServer, tmp_path: Path) -> str:
    """A key that the server would take."""
    keyfile = generate_key(tmp_path / "locked", passphrase="open sesame")
    openssh.authorize(keyfile)
    return str(keyfile)


def never_mind(text: str, echo: bool) -> str:
    return ""


def mistype(text: str, echo: bool) -> str:
    return "open barley"


def assert_lets_in(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)


@pytest.mark.parametrize("prompt", [None, never_mind, mistype])
def test_the_next_key_is_tried(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, locked: str, prompt: Prompt | None
) -> None:
    keys = [locked, openssh.keyfile]
    assert_lets_in(ctx, options_for(openssh, keyfile=keys, prompt=prompt), echo)
    assert_lets_in(ctx, options_for(openssh, keyfile=keys[::-1], prompt=prompt), echo)


@pytest.mark.parametrize("prompt", [None, never_mind])
def test_keys_of_the_config_file_are_too(
    ctx: TunneledContext,
    config: Callable[..., Path],
    openssh: OpenSSHServer,
    echo: Peer,
    locked: str,
    prompt: Prompt | None,
    backend: str,
) -> None:
    config(entry_for("name", openssh, f"IdentityFile {locked}"))
    assert_lets_in(ctx, SSHOptions("name", prompt=prompt, backend=backend), echo)


def test_nobody_is_asked_in_batch_mode(
    ctx: TunneledContext,
    config: Callable[..., Path],
    openssh: OpenSSHServer,
    echo: Peer,
    locked: str,
    backend: str,
) -> None:
    asked = []
    config(entry_for("name", openssh, "BatchMode yes"))
    options = SSHOptions(
        "name",
        keyfile=[locked, openssh.keyfile],
        prompt=lambda text, echo: str(asked.append(text)),
        backend=backend,
    )
    assert_lets_in(ctx, options, echo)
    assert asked == []


@pytest.mark.skipif(not may_make_accounts(), reason="only root can make an account")
def test_the_password_is_tried(ctx: TunneledContext, echo: Peer, locked: str) -> None:
    with temporary_account() as account:
        account.authorized_keys.write_text(public_key(locked))
        with OpenSSHServer(
            PasswordAuthentication="yes", AuthorizedKeysFile=str(account.authorized_keys)
        ) as server:
            server.user = account.user
            options = options_for(server, keyfile=locked, password=account.password)
            assert_lets_in(ctx, options, echo)


@pytest.mark.parametrize("prompt", [None, never_mind])
def test_what_was_passed_over_is_told_where_nothing_else_lets_in(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    locked: str,
    prompt: Prompt | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    stranger = str(generate_key(tmp_path / "stranger"))
    for keys in ([locked], [locked, stranger], [stranger, locked]):
        with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHAuthenticationError) as caught:
            sock.connect(echo.address, ssh=options_for(openssh, keyfile=keys, prompt=prompt))
        assert f"The key file {locked} is encrypted: pass passphrase= or prompt=" in str(
            caught.value
        )


def test_a_default_key_that_the_server_takes_and_nobody_opens_is_the_cause(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, locked: str, home: Path, backend: str
) -> None:
    keyfile = home / ".ssh" / "id_ed25519"
    keyfile.write_bytes(Path(locked).read_bytes())
    keyfile.chmod(0o600)
    options = options_for(openssh, keyfile=None, config_file=None)
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHAuthenticationError) as caught:
        sock.connect(echo.address, ssh=options)
    message = str(caught.value)
    assert f"The key file {keyfile} is encrypted: pass passphrase= or prompt=" in message
    assert "authorized_keys" not in message
    if backend == "sshtunnel":
        assert f"would let {openssh.user!r} in with {keyfile}" in message


def test_a_passphrase_of_the_programs_that_is_wrong_is_an_error(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, locked: str
) -> None:
    options = options_for(openssh, keyfile=[locked, openssh.keyfile], passphrase="open barley")
    with (
        ctx.socket(zmq.REQ) as sock,
        pytest.raises(
            SSHAuthenticationError, match=re.escape(f"passphrase for the key file {locked}")
        ),
    ):
        sock.connect(echo.address, ssh=options)


@pytest.mark.skipif(os.name == "nt", reason="files have no modes")
def test_a_key_file_that_others_may_read_is_told(
    ctx: TunneledContext, echo: Peer, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = "the key file {} can be read by others"
    keys = [home / ".ssh" / "id_rsa", home / ".ssh" / "id_ed25519"]
    with OpenSSHServer(PasswordAuthentication="yes", KbdInteractiveAuthentication="yes") as server:
        for key in keys:
            server.authorize(generate_key(key, "ssh-rsa" if "rsa" in key.name else "ssh-ed25519"))
            key.chmod(0o644)
        options = options_for(server, keyfile=None)
        with (
            caplog.at_level(logging.WARNING, "tunneledzmq"),
            ctx.socket(zmq.REQ) as sock,
            pytest.raises(SSHAuthenticationError) as caught,
        ):
            sock.connect(echo.address, ssh=options)
        for key in keys:
            wait_until(lambda key=key: told.format(key) in caplog.text)
        # To be copied: neither has a sentence after it.
        text = str(caught.value)
        assert "nobody to ask for" in text and "; the key file" in text
        assert re.search(r"\. The key file \S+ can be read by others", text)
        assert re.search(rf"chmod 600 {home}/.ssh/id_\w+; ", text)
        assert re.search(rf"chmod 600 {home}/.ssh/id_\w+$", text)


@pytest.mark.skipif(os.name == "nt", reason="files have no modes")
def test_a_key_file_that_others_may_read_is_told_where_another_one_lets_in(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    config: Callable[..., Path],
    backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = generate_key(tmp_path / "other")
    openssh.authorize(other)
    other.chmod(0o644)
    config(f"IdentityFile {other}\n", entry_for("name", openssh))
    with caplog.at_level(logging.WARNING, "tunneledzmq"):
        assert_lets_in(ctx, SSHOptions("name", backend=backend), echo)
        wait_until(lambda: f"chmod 600 {other}" in caplog.text)
    [record] = [record for record in caplog.records if "chmod" in record.getMessage()]
    assert record.levelno == logging.WARNING and openssh.server in record.getMessage()
