"""ProxyCommand: a process in place of the connection, which is ended and reaped."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.conftest import OwningContext
from tests.deadline import ending
from tests.faults.injection import stopped
from tests.hostile import Script, hostile_server
from tests.logins import entry_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer, generate_key
from tunneledzmq import SSHConnectionError, SSHOptions, TunneledContext
from tunneledzmq.shared.system.job import Job

Config = Callable[..., Path]

NETCAT = """
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    try:
        while data := os.read(0, 65536):
            s.sendall(data)
    finally:  # which may be a reset: whoever is killed leaves unread what has come
        s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


# Ends as soon as a file is there, which it takes away.
EXPIRING = """
import os, sys, threading, time
def expire():
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
    os.unlink(sys.argv[3])
    sys.stderr.write("Good bye\\nThe token has expired")
    sys.stderr.flush()
    os._exit(3)
threading.Thread(target=expire, daemon=True).start()
"""


@pytest.fixture
def sock(any_ctx: TunneledContext) -> Any:
    return any_ctx.socket(zmq.REQ)


@pytest.fixture
def netcat(tmp_path: Path) -> str:
    """A command that connects its input and output to a server."""
    (tmp_path / "netcat.py").write_text(NETCAT)
    return f'"{sys.executable}" -S "{tmp_path / "netcat.py"}" %h %p'


def commands(*words: str) -> list[psutil.Process]:
    """Return the processes that run a command with all of `words`."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        # On Windows no command takes the place of its shell.
        of_others = "tunneledzmq.gateway" in line or "cmd.exe" in line
        if all(word in line for word in words) and not of_others:
            found.append(process)
    return found


def test_messages_go_over_a_command(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, netcat: str
) -> None:
    config(entry_for("name", openssh, f"ProxyCommand {netcat}"))
    sock.connect(echo.address, ssh="name")
    for size in (1, 1_000_000):
        round_trip(sock, bytes(size))
    assert len(commands("netcat.py", str(openssh.port))) == 1
    sock.close()
    wait_until(lambda: not commands("netcat.py", str(openssh.port)))


def test_messages_go_over_ssh_itself(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    config(
        entry_for("name", openssh, f"ProxyCommand ssh -F {home}/.ssh/config -W %h:%p hop"),
        entry_for("hop", openssh),
    )
    sock.connect(echo.address, ssh="name")
    round_trip(sock)


def test_a_command_that_ends_is_started_anew(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, netcat: str
) -> None:
    config(entry_for("name", openssh, f"ProxyCommand {netcat}"))
    sock.connect(echo.address, ssh="name")
    round_trip(sock)
    [command] = commands("netcat.py", str(openssh.port))
    command.kill()
    wait_until(lambda: sock.tunnels[0].reconnects == 1 and sock.tunnels[0].state == "up")
    sock.close()
    wait_until(lambda: not command.is_running())  # neither as a zombie


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo no way >&2; exit 3", "(exit status 3: no way)"),
        ("no-such-command", "(exit status 127: "),
        ("true", "(exit status 0)"),
        ("kill -9 $$", "(killed by signal 9)"),
        ("echo junk; echo more junk", "no SSH server there"),
        ("yes", "no SSH server there"),
    ],
)
def test_a_command_that_fails_is_told(
    command: str, says: str, sock: Any, config: Config, openssh: OpenSSHServer
) -> None:
    config(entry_for("name", openssh, f"ProxyCommand sh -c {shlex.quote(command)}"))
    start = time.monotonic()
    with pytest.raises(SSHConnectionError, match="ProxyCommand") as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("name", connect_timeout=4))
    assert time.monotonic() - start < 6
    assert str(caught.value).startswith(openssh.server)
    assert says in str(caught.value)
    # Of a server nothing is known where the command has failed by itself.
    by_hand = says.startswith(("(exit status", "(killed")) and says != "(exit status 0)"
    assert str(caught.value).endswith(": run it by hand to see why") is by_hand
    assert ("MaxStartups" in str(caught.value)) is (says == "(exit status 0)")


@pytest.fixture
def expiring(netcat: str, tmp_path: Path) -> tuple[str, Path]:
    """A command that fails when a file is written, and that file."""
    (tmp_path / "netcat.py").write_text(EXPIRING + NETCAT)
    return f'{netcat} "{tmp_path / "end"}"', tmp_path / "end"


def test_a_command_that_fails_later_is_told(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, expiring: tuple[str, Path]
) -> None:
    command, end = expiring
    config(entry_for("name", openssh, f"ProxyCommand {command}"))
    sock.connect(echo.address, ssh="name")
    [tunnel] = sock.tunnels
    end.touch()
    wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up")
    assert "was lost: ProxyCommand" in tunnel.last_error
    assert "ended (exit status 3: Good bye; The token has expired)" in tunnel.last_error
    round_trip(sock)


def test_a_command_that_fails_in_the_login_is_told(
    sock: Any, config: Config, expiring: tuple[str, Path], tmp_path: Path
) -> None:
    command, end = expiring
    with hostile_server(Script(on_service=lambda transport: end.touch()), tmp_path) as options:
        file = config(f"Host 127.0.0.1\n  ProxyCommand {command}\n")
        with pytest.raises(SSHConnectionError, match=r"Good bye\nThe token has expired\)"):
            sock.connect("tcp://127.0.0.1:1", ssh=replace(options, config_file=str(file)))


def test_a_command_that_says_nothing_is_given_up(
    sock: Any, config: Config, openssh: OpenSSHServer
) -> None:
    config(
        entry_for("name", openssh, "ProxyCommand sh -c 'trap \"\" HUP; sleep 7654 & sleep 7654'")
    )
    start = time.monotonic()
    with pytest.raises(SSHConnectionError, match="over ProxyCommand") as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("name", connect_timeout=1))
    assert caught.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - start < 4
    wait_until(lambda: not commands("sleep", "7654"))


def test_a_command_that_we_may_not_kill_holds_nothing_up(
    config: Config,
    openssh: OpenSSHServer,
    echo: Peer,
    netcat: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network dies under one that sudo runs: it neither ends nor may be ended."""
    config(entry_for("name", openssh, f"ProxyCommand {netcat}"))
    options = SSHOptions("name", server_alive_interval=1, server_alive_count_max=1)
    with ending(OwningContext(isolate=False)) as ctx:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        [command] = commands("netcat.py", str(openssh.port))
        for signalling in ("hang_up", "kill"):
            monkeypatch.setattr(Job, signalling, lambda job: None)
        with stopped(command):
            wait_until(lambda: sock.tunnels[0].reconnects == 1 and sock.tunnels[0].state == "up")
            round_trip(sock)
            start = time.monotonic()
            sock.close()
            wait_until(lambda: len(commands("netcat.py", str(openssh.port))) == 1)
            assert time.monotonic() - start < 3
        monkeypatch.undo()
        with suppress(psutil.NoSuchProcess):  # it may have ended once it went on
            command.kill()


def test_ctrl_c_does_not_reach_the_command(
    ctx: TunneledContext, config: Config, openssh: OpenSSHServer, echo: Peer, netcat: str
) -> None:
    sock = ctx.socket(zmq.REQ)
    config(entry_for("name", openssh, f"ProxyCommand {netcat}"))
    sock.connect(echo.address, ssh="name")
    [command] = commands("netcat.py", str(openssh.port))
    assert os.getsid(command.pid) == command.pid
    # Signals that the gateway overhears are not lost on what it starts.
    status = Path(f"/proc/{command.pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert not ignored & (1 << (signal.SIGHUP - 1) | 1 << (signal.SIGTERM - 1))


def test_a_command_ends_with_a_gateway_that_is_killed(
    ctx: TunneledContext,
    config: Config,
    openssh: OpenSSHServer,
    echo: Peer,
    netcat: str,
    gateways: Callable[[], set[psutil.Process]],
) -> None:
    sock = ctx.socket(zmq.REQ)
    config(entry_for("name", openssh, f"ProxyCommand {netcat}"))
    sock.connect(echo.address, ssh="name")
    [command] = commands("netcat.py", str(openssh.port))
    [gateway] = gateways()
    gateway.kill()
    wait_until(lambda: not command.is_running())
    sock.close()


def test_the_command_runs_in_the_programs_directory(
    sock: Any,
    config: Config,
    openssh: OpenSSHServer,
    echo: Peer,
    netcat: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config(entry_for("name", openssh, f"ProxyCommand {netcat.replace(str(tmp_path), '.')}"))
    sock.connect(echo.address, ssh="name")
    round_trip(sock)


def test_an_ssh_that_cannot_ask_is_told_of_proxy_jump(
    sock: Any, openssh: OpenSSHServer, config: Callable[..., Path], tmp_path: Path
) -> None:
    locked = generate_key(tmp_path / "locked", passphrase="open sesame")
    openssh.authorize(locked)
    command = (
        f"ssh -F none -i {locked} -o IdentityAgent=none -o UserKnownHostsFile={openssh.known_hosts}"
        f" -p {openssh.port} -W %h:%p {openssh.user}@{openssh.host}"
    )
    config(entry_for("name", openssh, f"ProxyCommand {command}"))
    with pytest.raises(SSHConnectionError, match=r"Permission denied.*no terminal.*ProxyJump"):
        sock.connect("tcp://127.0.0.1:1", ssh="name")
