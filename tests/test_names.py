"""What OpenSSH refuses in the name of a host or a user is refused, whatever the way it comes in."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.logins import entry_for, options_for
from tests.peers import Peer, round_trip
from tests.sshd import OpenSSHServer, generate_key, public_key
from tunneledzmq import (
    HostKeyChangedError,
    SSHOptions,
    TunneledContext,
    TunnelError,
    UnknownHostKeyError,
)
from tunneledzmq.check import main as check
from tunneledzmq.shared.names import (
    is_valid_host,
    is_valid_user,
    parse_server,
    split_host_port,
)

NAMES = ["a", "-a", "a-", "a -b", "a- b", "a b", "\\a", "a\\", "ü", "$(a)", "`a`", "::1%eth0"]
NAMES += [f"a{chr(code)}b" for code in range(1, 128)]


def is_taken_by_ssh(*arguments: str) -> bool:
    command = ["ssh", "-G", "-F", "none", *arguments]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if answer.returncode == 0:
        return True
    assert "contains invalid characters" in answer.stderr
    return False


def test_a_host_is_valid_where_it_is_for_ssh() -> None:
    taken = [name for name in NAMES if is_valid_host(name)]
    assert taken == [name for name in NAMES if is_taken_by_ssh("--", name)]
    assert "a$b" not in taken


def test_a_user_is_valid_where_it_is_for_ssh() -> None:
    taken = [name for name in NAMES if is_valid_user(name)]
    assert taken == [name for name in NAMES if is_taken_by_ssh("-l", name, "host")]
    assert "a$b" in taken


@pytest.mark.parametrize(
    ("text", "user", "host"),
    [
        ("a b@host", "a b", "host"),
        ("DOM\\first last@host", "DOM\\first last", "host"),
        ("ssh://a%20b@host:22", "a b", "host"),
        ("site/box", None, "site/box"),
        ("me@box#2", "me", "box#2"),
        ("a?*", None, "a?*"),
        ("::1", None, "::1"),
        ("me@fe80::1%eth0", "me", "fe80::1%eth0"),
    ],
)
def test_what_ssh_takes_is_taken(text: str, user: str | None, host: str) -> None:
    assert is_taken_by_ssh("--", text)
    assert parse_server(text)[:2] == (user, host)


def test_an_alias_may_be_a_path(
    ctx: TunneledContext,
    config: Callable[..., Path],
    openssh: OpenSSHServer,
    echo: Peer,
    backend: str,
) -> None:
    config(entry_for("site/box#2", openssh))
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=SSHOptions("site/box#2", backend=backend))
        round_trip(sock)


# What a shell would run

SHELL = "$(touch pwned)"

SERVERS = [
    f"[::1%h{SHELL}]",
    f"[fe80::1%{SHELL}]:22",
    "[::1%a;b]",
    "[::1%]",
    "[::1%a%b]",
    "[::1%-oProxyCommand=x y]",
    f"{SHELL}",
    "a`touch pwned`",
    "a;b",
    "a$b",
    "ü|b",
    "a;b@host",
    "a -b@host",
    "ssh://a%24(b)@host",
    "ssh://%2Da@host",
    "ssh://a%5C@host",
]


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_shell_would_run_is_no_name(
    server: str, ctx: TunneledContext, config: Callable[..., Path], home: Path, backend: str
) -> None:
    config('Match exec "true %h %n %r"\n', "ProxyCommand true %h %n %r\n")
    ways: list[Callable[[], Any]] = [
        lambda: SSHOptions(server, backend=backend),
        lambda: SSHOptions("host", jump=server, backend=backend),
        lambda: SSHOptions("host", jump=("a", server), backend=backend),
        lambda: ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=["host", server]),
        lambda: ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=server),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=r"(ssh|jump)="):
            way()


@pytest.mark.parametrize(
    "lines",
    [
        "HostName x;touch${IFS}pwned\nProxyCommand true %h",
        'HostName x|touch${IFS}pwned\nMatch exec "true %h"',
        "HostName -oProxyCommand=x\nProxyCommand true %h",
        'HostName $(touch${IFS}pwned)\nMatch !exec "true %k"',
        "HostKeyAlias `pwned`\nProxyCommand true %k",
        "User x;touch${IFS}pwned\nProxyCommand true %r",
        "User 'x & touch pwned'\nMatch exec \"true %r\"",
        "User 'x -oProxyCommand=y'\nProxyCommand true %r",
        "ProxyJump x;touch${IFS}pwned",
        "User x&y\nProxyJump %r@hop",
    ],
)
def test_the_config_file_puts_no_more_than_names_into_commands(
    lines: str,
    ctx: TunneledContext,
    config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = config(f"{lines}\n")
    with pytest.raises(TunnelError, match=r"contains invalid|no valid") as caught:
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh="name")
    assert f"{path}:" in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_name_that_no_command_sees_may_be_any(
    ctx: TunneledContext, config: Callable[..., Path]
) -> None:
    config("Host name\nHostName 127.0.0.1\nPort 1\nUser a;b\nHostKeyAlias 'c d'\n")
    with pytest.raises(TunnelError, match=r"a;b@127\.0\.0\.1:1: the connection was refused"):
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh="name")


# Advice


def advised(message: str) -> list[str]:
    """Return the words of the command that a message tells to run."""
    [command] = re.findall(r"(?:fingerprint|new key): (.*?)(?:, run where.*| \(or .*|$)", message)
    return shlex.split(command)


def test_advice_can_be_pasted(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, backend: str
) -> None:
    file = tmp_path / "a b'$(touch pwned)\"" / "known hosts"
    file.parent.mkdir()
    options = options_for(openssh, known_hosts=str(file))
    with ctx.socket(zmq.REQ) as sock, pytest.raises(UnknownHostKeyError) as unknown:
        sock.connect(echo.address, ssh=options)
    port = str(openssh.port)
    scan = ["ssh-keyscan", "-p", port, "-t", "ed25519", "127.0.0.1", ">>", str(file)]
    assert advised(str(unknown.value)) == scan
    other = public_key(generate_key(tmp_path / "other"))
    file.write_text(f"[127.0.0.1]:{port} {other}\n")
    with ctx.socket(zmq.REQ) as sock, pytest.raises(HostKeyChangedError) as changed:
        sock.connect(echo.address, ssh=options)
    words = advised(str(changed.value))
    assert words[-2:] == ["-R", f"[127.0.0.1]:{port}"]
    assert words[:-2] in (["ssh-keygen"], ["ssh-keygen", "-f", str(file)])


@pytest.mark.parametrize("directory", ["there", "not yet"])
def test_advice_about_a_host_key_works(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    backend: str,
    directory: str,
) -> None:
    file = tmp_path / directory / "known_hosts"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "other").touch()
    files = [str(file), str(tmp_path / "there" / "other")]
    options = options_for(openssh, known_hosts=files)
    with ctx.socket(zmq.REQ) as sock:
        with pytest.raises(UnknownHostKeyError) as caught:
            sock.connect(echo.address, ssh=options)
        text = str(caught.value)
        assert f"is not in {file} (which does not exist), {files[1]}. If" in text
        assert ("mkdir" in text) == (directory == "not yet")
        [command] = re.findall(r"fingerprint: (.*?) \(or ", text)
        subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
        assert file.parent.stat().st_mode & 0o077 == 0 or directory == "there"
        sock.connect(echo.address, ssh=options)


def test_a_default_that_nobody_has_is_not_missed(
    ctx: TunneledContext, openssh: OpenSSHServer, home: Path, backend: str
) -> None:
    options = options_for(openssh, known_hosts=None)
    with ctx.socket(zmq.REQ) as sock, pytest.raises(UnknownHostKeyError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=options)
    file = home / ".ssh" / "known_hosts"
    assert f"is not in {file} (which does not exist). If" in str(caught.value)


def test_advice_about_an_alias_can_be_pasted(
    ctx: TunneledContext, openssh: OpenSSHServer, config: Callable[..., Path], tmp_path: Path
) -> None:
    alias = "a/b&c';$(touch pwned)"
    lines = (f'HostKeyAlias "{alias}"', f"UserKnownHostsFile {tmp_path}/none")
    config(entry_for("name", openssh, *lines))
    with ctx.socket(zmq.REQ) as sock, pytest.raises(UnknownHostKeyError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh="name")
    words = advised(str(caught.value))
    pipe = words.index("|")
    printed = f"# comment\n127.0.0.1 {public_key(openssh.host_keys[0])}\n"
    command = words[pipe + 1 : words.index(">>")]
    answer = subprocess.run(command, input=printed, capture_output=True, text=True, check=True)
    assert answer.stdout == printed.replace("127.0.0.1", alias)


def test_advice_about_a_key_file_can_be_pasted(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path, backend: str
) -> None:
    keyfile = generate_key(tmp_path / "a b$(touch pwned)")
    keyfile.chmod(0o644)
    with ctx.socket(zmq.REQ) as sock, pytest.raises(TunnelError) as caught:
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=str(keyfile)))
    assert f"chmod 600 '{keyfile}'" in str(caught.value)


# Scopes


@pytest.mark.parametrize("scope", ["eth0", "wlan0.1", "br-lan", "veth_1", "3", "3a", "h"])
def test_a_scope_is_taken_as_it_is(scope: str) -> None:
    assert parse_server(f"me@[fe80::1%{scope}]:22") == ("me", f"fe80::1%{scope}", 22)
    assert split_host_port(f"[fe80::1%{scope}]:22") == (f"fe80::1%{scope}", 22)
    assert is_taken_by_ssh("--", f"fe80::1%{scope}")


# Who logs in


@pytest.fixture
def another_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the environment say that the user is somebody else; return the real name."""
    for variable in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "mallory")
    return pwd.getpwuid(os.getuid()).pw_name


def test_the_system_says_who_logs_in_and_no_variable(
    any_ctx: TunneledContext, another_name: str, backend: str
) -> None:
    options = SSHOptions("127.0.0.1:1", config_file=None, backend=backend)
    with pytest.raises(TunnelError, match=rf"{another_name}@127\.0\.0\.1:1: .*refused"):
        any_ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=options)


def test_conditions_and_tokens_have_the_systems_name(
    any_ctx: TunneledContext, another_name: str, config: Callable[..., Path], backend: str
) -> None:
    config(
        "Match localuser mallory\nPort 2\n",
        f'Match localuser {another_name} exec "test %u+%r = {another_name}+{another_name}"\n',
        "Port 1\n",
    )
    with pytest.raises(TunnelError, match=rf"{another_name}@127\.0\.0\.1:1: .*refused"):
        any_ctx.socket(zmq.REQ).connect(
            "tcp://127.0.0.1:1", ssh=SSHOptions("127.0.0.1", backend=backend)
        )


def test_a_number_without_a_name_is_who_the_environment_says(
    another_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with (
        TunneledContext(isolate=False) as ctx,
        ctx.socket(zmq.REQ) as sock,
        pytest.raises(TunnelError, match=r"mallory@127\.0\.0\.1:1: .*refused"),
    ):
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("127.0.0.1:1", config_file=None))


# Passwords


@pytest.mark.parametrize(
    "ssh",
    [
        "me:s3cret@host",
        "me:s3cret@host:22",
        "me:s3cret@[::1]:22",
        "me:@s3cret@host",
        ":s3cret@host",
        "ssh://me:s3cret@host",
        "SSH://me:s3cret@host",
        "Ssh://me:s3cret@host:22/",
        "ssh:/me:s3cret@host",
        "https://me:s3cret@host",
        "ssh://me%3As3cret@host",
        "ssh://me%3as3cret@host",
        "ssh://me%253As3cret@host",
        "me%3As3cret@host",
        # Malformed besides
        "me:s3cret@",
        "me:s3cret",
        "me:s3cret@ho st",
        "me:s3cret@host:99999",
        "me:s3cret@[::1",
        "me:s3cret@host:22:23",
        "ssh://me:s3cret",
        "ssh://me%3As3cret",
        "ssh://me:s3cret@host/path",
        "me;:s3cret@host",
    ],
)
def test_a_password_before_the_host_is_refused_and_not_repeated(
    ssh: str, ctx: TunneledContext
) -> None:
    ways: list[Callable[[], Any]] = [
        lambda: SSHOptions(ssh),
        lambda: SSHOptions("host", jump=ssh),
        lambda: SSHOptions("host", jump=["a", ssh]),
        lambda: TunneledContext(ssh=ssh),
        lambda: TunneledContext(ssh=["a", ssh]),
        lambda: ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh=ssh),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=r"(ssh|jump)=") as caught:
            way()
        seen: BaseException | None = caught.value
        while seen is not None:
            assert "s3cret" not in str(seen) + repr(seen)
            seen = seen.__cause__ or seen.__context__


def test_a_password_on_the_command_line_is_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        check(["tcp://127.0.0.1:1", "--ssh", "me:s3cret@host"])
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert "password" in told.err
    assert "s3cret" not in told.out + told.err


@pytest.mark.parametrize("hop", ["me:s3cret@host", "me:s3cret@", "me%3As3cret@host"])
def test_a_password_in_the_config_file_is_not_repeated(
    hop: str, ctx: TunneledContext, config: Callable[..., Path]
) -> None:
    path = config(f"ProxyJump {hop}\n")
    with pytest.raises(TunnelError, match="invalid ProxyJump") as caught:
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:1", ssh="name")
    assert f"{path}:1: " in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_scheme_may_be_written_in_capitals() -> None:
    assert parse_server("SSH://me@host:23") == ("me", "host", 23)
