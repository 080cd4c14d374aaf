"""What ssh says on its standard error, and what of it is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq.gateway.openssh.said import Said

SERVICE = "debug1: SSH2_MSG_SERVICE_ACCEPT received"


def said_by(*lines: str) -> Said:
    said = Said()
    for line in lines:
        said.add(f"{line}\r\n".encode())
    return said


@pytest.mark.parametrize(("version", "believed"), [("8.4p1", False), ("8.5p1", True)])
def test_an_ssh_that_does_not_say_who_asks_is_not_believed_for_long(
    version: str, believed: bool
) -> None:
    begun = [f"debug1: Local version string SSH-2.0-OpenSSH_{version} Debian-5"]
    begun += ["debug1: SSH2_MSG_SERVICE_ACCEPT received"]
    publickey = "debug1: Next authentication method: publickey"
    questions = "debug1: Next authentication method: keyboard-interactive"
    assert not said_by(*begun).asks_for_passphrase
    assert said_by(*begun, publickey).asks_for_passphrase
    assert not said_by(*begun, publickey, questions).asks_for_passphrase
    # The last one may be the server's, in a banner.
    assert said_by(*begun, publickey, questions, publickey).asks_for_passphrase is believed
    forged = [*begun, questions, begun[0].replace(version, "9.9"), publickey]
    assert said_by(*forged).asks_for_passphrase is believed


def test_what_has_been_done_is_told_once() -> None:
    said = said_by(
        "debug1: Remote protocol version 2.0, remote software version OpenSSH_9.2",
        "debug1: Server host key: ssh-ed25519 SHA256:abc",
        "debug1: Host 'bastion' is known and matches the ED25519 host key.",
        SERVICE,
        'Authenticated to bastion ([10.0.0.1]:22) using "publickey".',
    )
    steps = said.steps()
    assert [name for name, _ in steps] == ["banner", "host key", "authenticate"]
    assert steps[1][1] == said.host_key == "ssh-ed25519 SHA256:abc"
    assert said.authenticated
    assert said.steps() == []


def test_an_ssh_for_hops_is_no_proxy_command_of_the_users() -> None:
    said = Said()
    said.add(b"debug1: Executing proxy command: exec nc box 22\r\n")
    assert said.proxy_command == "nc box 22"
    said = Said()
    said.add(b"debug1: Setting implicit ProxyCommand from ProxyJump: ssh -W '[%h]:%p' hop\r\n")
    said.add(b"debug1: Executing proxy command: exec ssh -W '[box]:22' hop\r\n")
    assert not said.proxy_command


def test_a_refusal_is_that_of_its_own_address() -> None:
    said = said_by("debug1: channel_connect_stdio_fwd: 10.0.0.1:5555")
    for line in (
        "debug1: channel 3: new stdio-forward [stdio-forward]",
        "channel 3: open failed: administratively prohibited: no",
    ):
        said.add(line.encode())
    assert "AllowTcpForwarding" in said.refusal("10.0.0.1", 5555)
    assert said.refusal("10.0.0.1", 5556) == ""


def test_no_more_refusals_are_kept_than_are_asked_for() -> None:
    said = Said()
    for port in (7, *range(1, 3001), 7):
        said.add(f"debug1: channel_connect_stdio_fwd: 10.0.0.1:{port}".encode())
        said.add(b"debug1: channel 3: new stdio-forward [stdio-forward]")
        said.add(b"channel 3: open failed: connect failed: no")
    assert len(said._refusals) == 1000
    assert said.refusal("10.0.0.1", 7) and said.refusal("10.0.0.1", 2002)
    assert not said.refusal("10.0.0.1", 8)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Timeout, server bastion not responding.", "does not answer any more"),
        ("Connection to bastion closed by remote host.", "closed the connection"),
        ("client_loop: send disconnect: Broken pipe", "closed the connection"),
        ("some other words", "ssh has ended (some other words)"),
    ],
)
def test_why_a_session_was_lost(line: str, why: str) -> None:
    assert why in said_by("Authenticated to bastion.", line, "channel 3: closed").why_lost()
    assert said_by().why_lost() == "ssh has ended"


@given(st.lists(st.text(), max_size=5), st.text())
def test_nothing_that_a_server_has_ssh_say_is_ssh_s_own(others: list[str], text: str) -> None:
    said = said_by("Warning: Permanently added 'x'.", SERVICE)
    before = list(said.own_lines)
    said.add("\n".join([text, *others]).encode(errors="replace"))
    assert list(said.own_lines) == before
    assert all(line.isprintable() for line in said.lines)
