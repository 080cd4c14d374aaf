"""What messages advise on Windows, for PowerShell and for cmd: the latter takes it here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from tests.logins import entry_for, options_for
from tests.sshd import OpenSSHServer, generate_key, public_key
from tunneledzmq import (
    HostKeyChangedError,
    SSHConnectionError,
    SSHOptions,
    TunneledContext,
    UnknownHostKeyError,
)
from tunneledzmq.shared.system.advice import add_output, quote

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="it is about Windows")


@pytest.fixture
def echo_words(tmp_path: Path) -> str:
    """A command that prints its arguments, a line for each."""
    (tmp_path / "echo_words.py").write_text("import sys; print(*sys.argv[1:], sep='\\n')")
    return f"{sys.executable} {tmp_path / 'echo_words.py'}"


def run_by_cmd(command: str) -> list[str]:
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def advised(message: str) -> str:
    [command] = re.findall(r"(?:fingerprint|new key): (.*?)(?: \(or .*|$)", message)
    return str(command)


@pytest.mark.parametrize("directory", ["there", "not yet"])
def test_advice_about_a_host_key_can_be_pasted(
    ctx: TunneledContext, openssh: OpenSSHServer, tmp_path: Path, echo_words: str, directory: str
) -> None:
    file = tmp_path / "R&D's (own)" / "known_hosts"
    if directory == "there":
        file.parent.mkdir()
    options = options_for(openssh, known_hosts=str(file))
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(UnknownHostKeyError) as unknown:
        sock.connect("tcp://127.0.0.1:1", ssh=options)
    command = advised(str(unknown.value))
    assert command.startswith("powershell -c ")
    [script] = run_by_cmd(command.replace("powershell -c", echo_words))
    # PowerShell takes nothing in this for anything else than cmd does.
    assert not re.search('[$`"\u201c-\u201e]', script)
    make = "" if directory == "there" else f"mkdir -Force {in_single_quotes(file.parent)}; "
    scan = f"ssh-keyscan -p {openssh.port} -t ed25519 127.0.0.1"
    add = f"Add-Content -Encoding ascii -LiteralPath {in_single_quotes(file)}"
    assert script == f"{make}{scan} | {add}"


def in_single_quotes(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def test_advice_about_a_changed_key_can_be_pasted(
    ctx: TunneledContext, openssh: OpenSSHServer, tmp_path: Path, echo_words: str
) -> None:
    file = tmp_path / "R&D's (own)" / "known_hosts"
    file.parent.mkdir()
    other = public_key(generate_key(tmp_path / "other"))
    file.write_text(f"[127.0.0.1]:{openssh.port} {other}\n")
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(HostKeyChangedError) as changed:
        sock.connect("tcp://127.0.0.1:1", ssh=options_for(openssh, known_hosts=str(file)))
    command = advised(str(changed.value))
    words = run_by_cmd(command.replace("ssh-keygen", echo_words, 1))
    assert words == ["-f", str(file), "-R", f"[127.0.0.1]:{openssh.port}"]


def test_there_is_no_command_for_a_name_of_ones_own(
    ctx: TunneledContext, openssh: OpenSSHServer, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        entry_for("lab", openssh, "HostKeyAlias lab", f"UserKnownHostsFile {tmp_path}/empty")
    )
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(UnknownHostKeyError) as unknown:
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("lab", config_file=tmp_path / "config"))
    assert str(unknown.value).endswith("fingerprint: strict_host_key_checking='accept-new'")


@pytest.mark.parametrize("name", ["$(calc)", "`n", '" & calc & "', "\u201d; calc", "%PATH%"])
def test_what_a_shell_would_replace_is_in_no_command(name: str) -> None:
    assert add_output(["ssh-keyscan", "host"], rf"C:\{name}\known_hosts") is None
    assert add_output(["ssh-keyscan", name], r"C:\known_hosts") is None


@pytest.mark.parametrize("word", [r"C:\a b", r"C:\R&D", "C:\\it's", "[::1]:22", "a;b", "a,b", "@a"])
def test_a_word_stays_one(word: str, echo_words: str) -> None:
    assert quote(word) == f'"{word}"'
    assert run_by_cmd(f"{echo_words} {quote(word)}") == [word]


def test_the_other_backend_is_not_advised(ctx: TunneledContext) -> None:
    name = "chacha20-poly1305@openssh.com"
    sock = ctx.socket(zmq.REQ)
    with OpenSSHServer(Ciphers=name) as server, pytest.raises(SSHConnectionError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=options_for(server))
    assert f"of Ciphers, the server offers {name}: paramiko knows none" in str(caught.value)
    assert "openssh'" not in str(caught.value)


def test_what_takes_the_other_backend_has_another_way_out(
    ctx: TunneledContext, openssh: OpenSSHServer, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(entry_for("lab", openssh, "VerifyHostKeyDNS yes"))
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(Exception, match="take VerifyHostKeyDNS away for this host") as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("lab", config_file=config))
    assert "openssh'" not in str(caught.value)
