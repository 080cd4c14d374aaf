"""A locked key that nobody opens is passed over, as ssh does, and what comes after it is tried."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from tests.accounts import may_make_accounts, temporary_account
from tests.logins import entry_for, options_for
from tests.peers import Peer, round_trip
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
        assert f"the key file {locked} is encrypted: pass passphrase= or prompt=" in str(
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
    assert f"the key file {keyfile} is encrypted: pass passphrase= or prompt=" in message
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
