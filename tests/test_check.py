"""`python -m tunneledzmq check` finds the step that fails, and says what to do about it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.auth

import tunneledzmq
from tests.delay import Delay
from tests.peers import ROOT, Peer, free_port
from tests.polling import wait_until
from tests.programs import Program
from tests.sshd import OpenSSHServer, generate_key
from tests.strangers import SilentPort, talking_port
from tunneledzmq.check.show import PlainShow
from tunneledzmq.check.steps import Outcome

STEPS = [
    "resolve",
    "connect",
    "banner",
    "host key",
    "authenticate",
    "forward",
    "zmtp",
    "round trip",
]


def check(*arguments: str, columns: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    if columns is not None:
        environment["COLUMNS"] = str(columns)
    return subprocess.run(
        [sys.executable, "-m", "tunneledzmq", "check", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        start_new_session=True,
        env=environment,
    )


def login(server: OpenSSHServer) -> list[str]:
    return [
        *("--ssh", server.server, "-F", "none"),
        *("-i", server.keyfile, "--known-hosts", server.known_hosts),
    ]


def all_of(descriptor: int) -> bytes:
    """Read to the end of a pipe, or of a terminal, where that is an error."""
    output = b""
    with suppress(OSError):
        while piece := os.read(descriptor, 4096):
            output += piece
    return output


def failing_step(*arguments: str, begun: bool = True) -> tuple[str, str]:
    """Return the step that fails, and what is said of it; all before must be well, if `begun`."""
    result = check(*arguments, "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert not report["ok"]
    assert [step["name"] for step in report["steps"]] == STEPS
    number = STEPS.index(report["failed"])
    assert [step["ok"] for step in report["steps"]] == [
        *[True if begun else None] * number,
        False,
        *[None] * (len(STEPS) - number - 1),
    ]
    return report["failed"], report["steps"][number]["detail"]


@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
def test_all_is_well(openssh: OpenSSHServer, echo: Peer, backend: str) -> None:
    result = check(echo.address, *login(openssh), "--backend", backend)
    assert result.returncode == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()[1:]
    assert [line[8:20].strip() for line in lines] == STEPS
    assert all(line.startswith("ok") and " ms " in line for line in lines)
    assert "\033" not in result.stdout


def test_json(openssh: OpenSSHServer, echo: Peer) -> None:
    report = json.loads(check(echo.address, *login(openssh), "--json").stdout)
    assert report["ok"] is True
    assert report["failed"] is None
    assert [step["name"] for step in report["steps"]] == STEPS
    assert all(step["ok"] and 0 <= step["seconds"] < 10 for step in report["steps"])


def test_colours_on_a_terminal(openssh: OpenSSHServer, echo: Peer) -> None:
    ours, theirs = pty.openpty()
    with Program(
        [sys.executable, "-m", "tunneledzmq", "check", echo.address, *login(openssh)],
        stdin=theirs,
        stdout=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm"},
    ) as program:
        os.close(theirs)
        output = b""
        while True:
            try:
                output += os.read(ours, 4096)
            except OSError:  # the end of what the terminal's last user wrote
                break
        os.close(ours)
        assert program.wait(10) == 0
    assert b"\033[32m" in output
    assert "✓ round trip".encode() in output


@pytest.mark.parametrize("rich", [True, False])
def test_80_columns_hide_no_command(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, rich: bool
) -> None:
    known_hosts = tmp_path / "s" / "known_hosts"
    without = "" if rich else "import sys; sys.modules['rich'] = None; "
    source = f"{without}import sys; from tunneledzmq.check import main; main(sys.argv[1:])"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    with Program(
        [sys.executable, "-c", source, echo.address, *login(openssh)[:-1], str(known_hosts)],
        stdin=theirs,
        stdout=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"},
    ) as program:
        os.close(theirs)
        output = all_of(ours)
        os.close(ours)
        assert program.wait(10) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.decode())
    lines = text.splitlines()
    [command] = [line for line in lines if "ssh-keyscan" in line]
    assert command.strip() == (
        f"mkdir -p -m 700 {known_hosts.parent} && "
        f"ssh-keyscan -p {openssh.port} -t ed25519 127.0.0.1 >> {known_hosts}"
    )
    assert all(len(line) <= 80 for line in lines if line != command)
    assert "(or --accept-new)" in " ".join(text.split())


UNKNOWN = Outcome(
    "host key",
    False,
    None,
    "me@bastion:22: the host key ssh-ed25519 SHA256:P+iKCz5bdeGE6d7TnBt4NXxppMwXkPbON57a/y/CoGA is "
    "not in /home/me/.ssh/known_hosts. If that is the server's fingerprint: ssh-keyscan -p 22 -t "
    "ed25519 bastion >> /home/me/.ssh/known_hosts (or --accept-new)",
)
ON_WINDOWS = Outcome(
    "host key",
    False,
    None,
    r"me@bastion:22: the host key is not in C:\a b\known_hosts. If that is the server's "
    "fingerprint: powershell -c \"mkdir -Force 'C:\\a b'; ssh-keyscan -p 22 bastion | Add-Content "
    "-Encoding ascii -LiteralPath 'C:\\a b\\known_hosts'\", run where the server can be reached "
    "(or --accept-new)",
)
KNOWN = Outcome(
    "host key", True, 0.0142, "ssh-ed25519 SHA256:P+iKCz5bdeGE6d7TnBt4NXxppMwXkPbON57a/y/CoGA"
)


@pytest.mark.parametrize(
    ("columns", "outcome", "shown"),
    [
        (
            80,
            UNKNOWN,
            """\
FAILED  host key
    me@bastion:22: the host key ssh-ed25519
    SHA256:P+iKCz5bdeGE6d7TnBt4NXxppMwXkPbON57a/y/CoGA is not in
    /home/me/.ssh/known_hosts. If that is the server's fingerprint:
      ssh-keyscan -p 22 -t ed25519 bastion >> /home/me/.ssh/known_hosts
    (or --accept-new)""",
        ),
        (
            60,
            UNKNOWN,
            """\
FAILED  host key
    me@bastion:22: the host key ssh-ed25519
    SHA256:P+iKCz5bdeGE6d7TnBt4NXxppMwXkPbON57a/y/CoGA is
    not in /home/me/.ssh/known_hosts. If that is the
    server's fingerprint:
      ssh-keyscan -p 22 -t ed25519 bastion >> /home/me/.ssh/known_hosts
    (or --accept-new)""",
        ),
        (
            80,
            ON_WINDOWS,
            r"""FAILED  host key
    me@bastion:22: the host key is not in C:\a b\known_hosts. If that is the
    server's fingerprint:
      powershell -c "mkdir -Force 'C:\a b'; ssh-keyscan -p 22 bastion | Add-Content"""
            r""" -Encoding ascii -LiteralPath 'C:\a b\known_hosts'"
    , run where the server can be reached (or --accept-new)""",
        ),
        (
            84,
            KNOWN,
            """\
ok      host key         14.2 ms  ssh-ed25519
                                  SHA256:P+iKCz5bdeGE6d7TnBt4NXxppMwXkPbON57a/y/CoGA""",
        ),
        (
            60,
            KNOWN,
            """\
ok      host key         14.2 ms  ssh-ed25519
    SHA256:P+iKCz5bdeGE6d7TnBt4NXxppMwXkPbON57a/y/CoGA""",
        ),
    ],
)
def test_no_word_is_taken_apart(
    columns: int,
    outcome: Outcome,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor where the output is piped, and COLUMNS says how it is shown."""
    monkeypatch.setenv("COLUMNS", str(columns))
    PlainShow().step(outcome)
    assert capsys.readouterr().out == f"{shown}\n"


def test_commands_stand_alone(capsys: pytest.CaptureFixture[str]) -> None:
    detail = "No key. The key file a is open: chmod 600 a; the key file b is open: chmod 600 'b c'"
    PlainShow().step(Outcome("authenticate", False, 0.0, detail))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "    No key. The key file a is open:",
        "      chmod 600 a",
        "    the key file b is open:",
        "      chmod 600 'b c'",
    ]


def test_an_error_is_wrapped_too() -> None:
    errors = check("me@host", "--ssh", "tcp://127.0.0.1:1", columns=60).stderr
    assert errors.endswith(
        "tunneledzmq check: error: a tcp:// address is a ZeroMQ\n"
        "socket's, no SSH server: are the address and --ssh the wrong\n"
        "way round?\n"
    )


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["plain", "json"])
def test_a_reader_that_reads_no_more_ends_it_without_a_word(
    openssh: OpenSSHServer, echo: Peer, words: list[str]
) -> None:
    reader, writer = os.pipe()
    with Program(
        [sys.executable, "-m", "tunneledzmq", "check", echo.address, *login(openssh), *words],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as program:
        os.close(writer)
        if not words:
            assert os.read(reader, 1) == b"t"  # of the title; the rest comes from another thread
        os.close(reader)
        assert program.communicate(timeout=10) == (None, b"")
    assert program.returncode == 141


def test_a_full_disk_is_told(openssh: OpenSSHServer, echo: Peer) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tunneledzmq", "check", echo.address, *login(openssh)],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"tunneledzmq check: the outcome cannot be written: {os.strerror(errno.ENOSPC)}\n"
    )


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_letters_that_the_encoding_does_not_have(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, terminal: bool
) -> None:
    path = tmp_path / "schlüssel"
    words = ["--ssh", openssh.server, "-F", "none", "-i", str(path)]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with Program(
        [sys.executable, "-m", "tunneledzmq", "check", echo.address, *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "xterm", "COLUMNS": "200"},
    ) as program:
        os.close(theirs)
        output = all_of(ours)
        os.close(ours)
        assert program.wait(10) == 1
    assert b"FAILED  authenticate" in output
    assert rb"schl\xfcssel cannot be read" in output


def test_the_version() -> None:
    command = [sys.executable, "-m", "tunneledzmq", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert said.stdout.split() == ["tunneledzmq", tunneledzmq.__version__]


def test_over_a_hop(openssh: OpenSSHServer, echo: Peer) -> None:
    with OpenSSHServer() as inner:
        for server in (openssh, inner):
            server.authorize(openssh.keyfile)
            with open(openssh.known_hosts, "a") as known_hosts:
                known_hosts.write(Path(server.known_hosts).read_text())
        arguments = [*login(openssh), "-J", openssh.server, "--ssh", inner.server]
        assert check(echo.address, *arguments).returncode == 0
        step, text = failing_step(echo.address, *arguments, "-J", f"me@127.0.0.1:{free_port()}")
    assert step == "connect"
    assert "hop me@127.0.0.1" in text


def test_a_name_that_is_not_found(echo: Peer) -> None:
    step, text = failing_step(echo.address, "--ssh", "nowhere.invalid", "-F", "none")
    assert step == "resolve"
    assert "'nowhere.invalid' was not found" in text


@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
def test_a_key_that_is_missing(openssh: OpenSSHServer, echo: Peer, backend: str) -> None:
    login = ("--ssh", openssh.server, "-F", "none", "-i", "/no/key")
    step, text = failing_step(echo.address, *login, "--backend", backend, begun=False)
    assert step == "authenticate"
    assert text == f"{openssh.server}: the key file /no/key cannot be read: {os.strerror(2)}"


def test_a_config_file_that_is_missing(openssh: OpenSSHServer, echo: Peer) -> None:
    step, text = failing_step(echo.address, "--ssh", openssh.server, "-F", "/no/config")
    assert step == "resolve"
    assert "/no/config" in text


@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
def test_each_step_has_its_own_time(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, backend: str
) -> None:
    """Over a link with a round trip of 0.4 s, each of the last ones takes one."""
    link = Delay(openssh.port, 0.2)
    try:
        server = f"{openssh.user}@127.0.0.1:{link.port}"
        words = ["--ssh", server, "-F", "none", "-i", openssh.keyfile, "--backend", backend]
        words += ["--known-hosts", str(tmp_path / "known_hosts"), "--accept-new"]
        report = json.loads(check(echo.address, *words, "--json").stdout)
    finally:
        link.close()
    assert report["ok"]
    seconds = {step["name"]: step["seconds"] for step in report["steps"]}
    for name in ("forward", "zmtp", "round trip"):
        assert 0.39 <= seconds[name] < 0.75, seconds


def test_a_port_where_nobody_listens(echo: Peer) -> None:
    step, text = failing_step(echo.address, "--ssh", f"me@127.0.0.1:{free_port()}", "-F", "none")
    assert step == "connect"
    assert "refused" in text


def test_a_port_where_nobody_speaks_ssh(echo: Peer) -> None:
    with SilentPort() as silent:
        server = f"me@127.0.0.1:{silent.port}"
        step, text = failing_step(
            echo.address, "--ssh", server, "-F", "none", "--connect-timeout", "0.5"
        )
    assert step == "banner"
    assert "within 0.5 s (--connect-timeout)" in text


def test_an_unknown_host_key(openssh: OpenSSHServer, echo: Peer, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    arguments = [*login(openssh)[:-1], str(known_hosts)]
    step, text = failing_step(echo.address, *arguments)
    assert step == "host key"
    assert "SHA256:" in text
    assert f"ssh-keyscan -p {openssh.port}" in text
    assert check(echo.address, *arguments, "--accept-new").returncode == 0
    assert check(echo.address, *arguments).returncode == 0


def test_a_key_that_is_not_authorized(openssh: OpenSSHServer, echo: Peer, tmp_path: Path) -> None:
    key = str(generate_key(tmp_path / "id"))
    arguments = ["--ssh", openssh.server, "-F", "none", "--known-hosts", openssh.known_hosts]
    step, text = failing_step(echo.address, *arguments, "-i", key)
    assert step == "authenticate"
    assert key in text
    assert "authorized_keys" in text


def test_a_server_that_forbids_forwarding(echo: Peer) -> None:
    with OpenSSHServer(AllowTcpForwarding="no") as server:
        step, text = failing_step(echo.address, *login(server))
    assert step == "forward"
    assert "the server forbids forwarding to it" in text


def test_a_peer_that_is_not_there(openssh: OpenSSHServer) -> None:
    step, text = failing_step(f"tcp://127.0.0.1:{free_port()}", *login(openssh))
    assert step == "forward"
    assert "Connection refused" in text


def test_a_peer_that_says_nothing(openssh: OpenSSHServer) -> None:
    with SilentPort() as silent:
        step, text = failing_step(
            f"tcp://127.0.0.1:{silent.port}", *login(openssh), "--connect-timeout", "2"
        )
    assert step == "zmtp"
    assert "was not heard within 2 s: is the peer suspended" in text


def test_a_peer_that_hangs_up_without_a_word(openssh: OpenSSHServer) -> None:
    # So it looks, too, where a server confirms a connection before it has it.
    with talking_port(b"") as port:
        step, text = failing_step(f"tcp://127.0.0.1:{port}", *login(openssh))
    assert step == "zmtp"
    assert "closed before a word was said: does anything listen there?" in text


def test_a_peer_that_speaks_something_else(openssh: OpenSSHServer) -> None:
    step, text = failing_step(f"tcp://127.0.0.1:{openssh.port}", *login(openssh))
    assert step == "zmtp"
    assert "it does not speak ZMTP: it says b'SSH-2.0" in text


def test_a_peer_that_wants_curve(openssh: OpenSSHServer) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as sock:
        sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
        sock.curve_server = True
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        result = check(f"tcp://127.0.0.1:{port}", *login(openssh))
    assert result.returncode == 0
    assert "security CURVE" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tcp://127.0.0.1:1"],
        ["ipc:///peer", "--ssh", "me@host"],
        ["tcp://127.0.0.1", "--ssh", "me@host"],
        ["tcp://127.0.0.1:1", "--ssh", ""],
        ["tcp://127.0.0.1:1", "--ssh=-oProxyCommand=x"],
        ["tcp://127.0.0.1:1", "--ssh", "me@host", "--connect-timeout", "-1"],
        ["tcp://127.0.0.1:1", "--ssh", "me@host", "-J", ""],
        ["tcp://127.0.0.1:1", "--ssh", "me@host", "--backend", "telnet"],
    ],
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    result = check(*arguments)
    assert result.returncode == 2
    assert "usage: tunneledzmq check" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["me@host", "--ssh", "tcp://127.0.0.1:1"], "are the address and --ssh the wrong way"),
        (["me@host", "--ssh", "me@host"], "ADDR is tcp://HOST:PORT (ADDR 'me@host')"),
        (["tcp://h:1", "--ssh", ""], "--ssh is empty"),
        (["tcp://h:1", "--ssh", "me:x@h"], "it is asked for at the terminal, or by SSH_ASKPASS"),
        (["tcp://h:1", "--ssh", "h", "--connect-timeout", "0"], "--connect-timeout must be above"),
        (["tcp://h:1", "--ssh", "h", "-J", "a,,b"], "-J has an empty name in it"),
        (["tcp://h:1", "--ssh", "h", "-J", "a:b"], "(-J 'a:...')"),
        (["tcp://h:1", "--ssh", "h", "-J", "tcp://a:1"], "are the address and -J the wrong way"),
        (["tcp://h:1", "--ssh", "h", "-p", "22"], "the port stands in --ssh: HOST:PORT"),
        (["tcp://h:1", "--ssh", "h", "-oPort=22"], "it stands in a file that -F names"),
        (["tcp://h:1", "--ssh", "h", "-J", "a,none"], "-J names hops and none of them"),
    ],
)
def test_a_wrong_command_line_is_spoken_of_in_its_words(arguments: list[str], said: str) -> None:
    assert said in check(*arguments).stderr


def test_help_is_a_manual() -> None:
    text = check("--help").stdout
    for step in STEPS:
        assert f"\n  {step}" in text
    assert "exit status:" in text
    assert "examples:" in text


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("command", ["", "check", "run", "demo"])
def test_help_fits_the_terminal(command: str, columns: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunneledzmq", *command.split(), "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(columns)},
    )
    assert done.returncode == 0
    examples = [line for line in done.stdout.splitlines() if line.startswith("  tunneledzmq ")]
    others = [line for line in done.stdout.splitlines() if line not in examples]
    assert max(map(len, others)) <= columns
    assert all(len(line) <= 80 for line in examples)


def test_help_keeps_its_tables() -> None:
    text = check("--help", columns=60).stdout
    assert (
        "  connect       connect to it, over its hops if it has\n"
        "                some\n"
        "  banner        hear that it speaks SSH\n"
    ) in text


def test_nothing_is_left_behind(
    openssh: OpenSSHServer, echo: Peer, gateways: Callable[[], set[psutil.Process]]
) -> None:
    check(echo.address, *login(openssh))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check(f"tcp://127.0.0.1:{listener.getsockname()[1]}", "--connect-timeout=0.5")
    wait_until(lambda: not gateways(), timeout=3)
