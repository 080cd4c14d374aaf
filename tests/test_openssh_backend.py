"""What is particular to `backend="openssh"`: the system's ssh, its config file and its prompts.

The promises that both backends keep are tested where they are made, once for each.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests import leaks, logins
from tests.conftest import OwningContext
from tests.deadline import ending
from tests.faults.injection import (
    discard_answers,
    kill_gateway,
    stopped,
    time_to_heal,
    time_until_nothing_is_left,
)
from tests.logins import options_for
from tests.peers import Peer, numbered, round_trip
from tests.polling import wait_until
from tests.programs import Program
from tests.sshd import OpenSSHServer, generate_key
from tunneledzmq import (
    GatewayError,
    SSHAuthenticationError,
    SSHConnectionError,
    SSHOptions,
    TunneledContext,
    UnknownHostKeyError,
)
from tunneledzmq.demo.server import EmbeddedServer
from tunneledzmq.gateway.openssh.channel import Channel

Remote = Callable[..., Peer]


@pytest.fixture(autouse=True)
def openssh_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all options use the backend."""
    monkeypatch.setitem(logins.defaults, "backend", "openssh")


@pytest.fixture(scope="module")
def second() -> Iterator[OpenSSHServer]:
    """A second server, which is reached over the first one."""
    with OpenSSHServer() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, openssh: OpenSSHServer) -> Callable[..., SSHOptions]:
    """Writes a config file with an entry for `openssh`, and returns options that use it."""

    def write(*lines: str, **fields: Any) -> SSHOptions:
        path = tmp_path / "config"
        entry = [
            "Host box",
            f"  HostName {openssh.host}",
            f"  Port {openssh.port}",
            f"  User {openssh.user}",
            f"  IdentityFile {openssh.keyfile}",
            f"  UserKnownHostsFile {openssh.known_hosts}",
            *(f"  {line}" for line in lines),
        ]
        path.write_text("\n".join(entry) + "\n")
        return SSHOptions("box", config_file=str(path), backend="openssh", **fields)

    return write


def assert_works(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)


def the_ssh() -> psutil.Process:
    """Return the only master."""
    [process] = (p for p in leaks.masters() if p.name() == "ssh")
    return process


# The config file


def test_a_host_of_the_config_file(
    any_ctx: TunneledContext,
    config: Callable[..., SSHOptions],
    openssh: OpenSSHServer,
    echo: Peer,
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=config())
    round_trip(sock)
    assert sock.tunnels[0].server == openssh.server


def test_entries_for_other_uses_of_ssh_do_not_disturb(
    ctx: TunneledContext, config: Callable[..., SSHOptions], echo: Peer, tmp_path: Path
) -> None:
    options = config(
        f"LocalForward {tmp_path}/local 127.0.0.1:{echo.port}",
        f"RemoteForward {tmp_path}/remote 127.0.0.1:{echo.port}",
        "ExitOnForwardFailure yes",
        "RemoteCommand false",
        "RequestTTY force",
        "SessionType default",
        "StdinNull yes",
        "ForkAfterAuthentication yes",
        "PermitLocalCommand yes",
        f"LocalCommand touch {tmp_path}/command",
        "ControlMaster auto",
        f'ControlPath "{tmp_path}/no master"',
        "ControlPersist yes",
        "ForwardAgent yes",
        "ForwardX11 yes",
        "BatchMode yes",
        "LogLevel QUIET",
        "StrictHostKeyChecking ask",
    )
    before = set(tmp_path.iterdir())
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        assert set(tmp_path.iterdir()) == before


def test_an_entry_that_sends_ssh_to_the_background_does_not_disturb(
    ctx: TunneledContext, config: Callable[..., SSHOptions], echo: Peer
) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=config("ForkAfterAuthentication yes"))
        round_trip(sock)


def test_a_hop_of_the_config_file(
    any_ctx: TunneledContext, config: Callable[..., SSHOptions], second: OpenSSHServer, echo: Peer
) -> None:
    options = config(
        "",
        "Host behind",
        "ProxyJump box",
        f"HostName {second.host}",
        f"Port {second.port}",
        f"IdentityFile {second.keyfile}",
        f"UserKnownHostsFile {second.known_hosts}",
    )
    options = SSHOptions("behind", config_file=options.config_file, backend="openssh")
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=options)
    round_trip(sock)
    assert sock.tunnels[0].server == second.server
    assert second.logins() >= 1


def test_a_proxy_command_ends_with_its_tunnel_whatever_it_does(
    ctx: TunneledContext,
    config: Callable[..., SSHOptions],
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
) -> None:
    script = tmp_path / "proxy.py"
    script.write_text(
        "import os, socket, sys, threading, time\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def carry(read, write):\n"
        "    while data := read(65536): write(data)\n"
        "down = lambda: carry(sock.recv, lambda data: os.write(1, data))\n"
        "threading.Thread(target=down, daemon=True).start()\n"
        "carry(lambda size: os.read(0, size), sock.sendall)\n"
        "time.sleep(1000)\n"  # whoever waits for it to end by itself waits long
    )
    options = config(f"ProxyCommand python3 {script} %h %p")
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        proxies = [p for p in leaks.processes(str(script)) if p.name().startswith("python")]
        assert proxies
    assert psutil.wait_procs(proxies, timeout=5)[1] == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo {boom} >&2; exit 3", "failed ({boom}): run it by hand to see why"),
        ("read -r line", "failed: run it by hand to see why. If it does connect, what listens"),
    ],
)
def test_a_proxy_command_that_fails_is_told(
    ctx: TunneledContext, config: Callable[..., SSHOptions], command: str, says: str
) -> None:
    options = config(f"ProxyCommand sh -c '{command}' %h")
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(SSHConnectionError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=options)
    assert f"ProxyCommand \"sh -c '{command}' 127.0.0.1\" {says}" in str(caught.value)
    assert ("MaxStartups" in str(caught.value)) is ("boom" not in command)


def test_a_condition_that_outlives_its_ssh_is_not_waited_for(
    ctx: TunneledContext, config: Callable[..., SSHOptions], tmp_path: Path
) -> None:
    """As one that sudo runs, which we may not kill: it has ssh's standard error."""
    script = tmp_path / "condition.sh"
    script.write_text("sleep 60")
    options = config(f'Match exec "setsid sh {script}"', connect_timeout=1)
    start = time.monotonic()
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHConnectionError, match="does not end"):
        sock.connect("tcp://127.0.0.1:1", ssh=options)
    assert time.monotonic() - start < 5
    conditions = [p for p in leaks.processes(str(script)) if p.name() == "sh"]
    assert conditions
    for process in conditions:
        for each in (*process.children(), process):
            each.kill()


@pytest.mark.parametrize(
    ("line", "told"),
    [("Frobnicate yes", "frobnicate"), ("Port many", "port"), ("Ciphers rot13", "rot13")],
)
def test_a_mistake_in_the_config_file_is_told_with_its_line(
    ctx: TunneledContext, config: Callable[..., SSHOptions], echo: Peer, line: str, told: str
) -> None:
    options = config(line)
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHConnectionError) as caught:
        sock.connect(echo.address, ssh=options)
    assert caught.value.errno == errno.EINVAL
    assert str(options.config_file) in str(caught.value)
    assert "line 7" in str(caught.value)
    assert told in str(caught.value).lower()


def test_a_config_file_that_is_missing(ctx: TunneledContext, echo: Peer, tmp_path: Path) -> None:
    options = SSHOptions("box", config_file=str(tmp_path / "none"), backend="openssh")
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHConnectionError, match=str(tmp_path)):
        sock.connect(echo.address, ssh=options)


def test_an_unknown_cipher(ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock, pytest.raises(SSHConnectionError, match="rot13") as caught:
        sock.connect(echo.address, ssh=options_for(openssh, ciphers="rot13"))
    assert caught.value.errno == errno.EINVAL


def test_a_server_without_a_common_cipher(ctx: TunneledContext, echo: Peer) -> None:
    with (
        OpenSSHServer(Ciphers="aes256-ctr") as server,
        ctx.socket(zmq.REQ) as sock,
        pytest.raises(SSHConnectionError, match="no common algorithms") as caught,
    ):
        sock.connect(echo.address, ssh=options_for(server, ciphers="aes128-ctr"))
    assert caught.value.errno == errno.EPROTO


def test_paths_that_ssh_would_take_apart(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    odd = tmp_path / 'a "b" %h #c'
    odd.mkdir()
    for path in (openssh.keyfile, openssh.known_hosts):
        shutil.copy(path, odd)
    options = options_for(
        openssh,
        keyfile=str(odd / Path(openssh.keyfile).name),
        known_hosts=[str(tmp_path / "none"), str(odd / "known_hosts")],
    )
    assert_works(ctx, options, echo)


# Which ssh


@contextmanager
def only_program(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a program in place of ssh."""
    directory.mkdir()
    if script:
        (directory / "ssh").write_text(f"#!/bin/sh\n{script}\n")
        (directory / "ssh").chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(directory))
        yield


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ("", errno.ENOENT, "openssh-client"),
        ("echo OpenSSH_6.6p1 >&2; exit 255", errno.ENOTSUP, "OpenSSH_6.6p1"),
        ("echo Dropbear v2022.83 >&2", errno.ENOTSUP, "Dropbear"),
    ],
    ids=["none", "too old", "another one"],
)
def test_an_ssh_that_cannot_be_used(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: int,
    told: str,
) -> None:
    with any_ctx.socket(zmq.REQ) as sock:
        with (
            only_program(tmp_path / "bin", script, monkeypatch),
            pytest.raises(GatewayError, match=told) as caught,
        ):
            sock.connect(echo.address, ssh=options_for(openssh))
        assert caught.value.errno == code
        assert "sshtunnel" in str(caught.value)
        # And it is found again as soon as it is there.
        sock.connect(echo.address, ssh=options_for(openssh))
        round_trip(sock)


def test_the_shells_startup_files_are_not_in_the_way(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (Path(os.environ["HOME"]) / ".bashrc").write_text("sleep 1000\n")
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.delenv("SHLVL", raising=False)
    assert_works(ctx, options_for(openssh), echo)


def test_an_account_without_a_shell(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/sbin/nologin")
    assert_works(ctx, options_for(openssh), echo)


@pytest.mark.parametrize("obstacle", ["a script", "a directory that a shell takes apart"])
def test_hops_that_cannot_be_told_the_options_are_not_gone_over(
    ctx: TunneledContext,
    config: Callable[..., SSHOptions],
    second: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
) -> None:
    options = config(
        "",
        "Host behind",
        "ProxyJump box",
        f"HostName {second.host}",
        f"Port {second.port}",
        f"IdentityFile {second.keyfile}",
        f"UserKnownHostsFile {second.known_hosts}",
    )
    behind = replace(options, server="behind")
    if obstacle == "a script":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} "$@"\n')
        (tmp_path / "bin" / "ssh").chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    else:
        odd = Path(tempfile.gettempdir()) / "a b"
        odd.mkdir(0o700, exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with ctx.socket(zmq.REQ) as sock:
        with pytest.raises(GatewayError, match="jump=") as caught:
            sock.connect(echo.address, ssh=replace(behind, known_hosts=second.known_hosts))
        assert caught.value.errno == errno.ENOTSUP
        # Without any, nothing is lost.
        sock.connect(echo.address, ssh=behind)
        round_trip(sock)


# Hops


def test_hops_that_the_program_names(
    any_ctx: TunneledContext, openssh: OpenSSHServer, second: OpenSSHServer, echo: Peer
) -> None:
    before = openssh.logins()
    hop = options_for(openssh)
    socks = [any_ctx.socket(zmq.REQ) for _ in range(2)]
    for sock in socks:
        sock.connect(echo.address, ssh=[hop, options_for(second)])
        round_trip(sock)
    assert socks[0].tunnels[0].server == second.server
    assert openssh.logins() - before == 1


@pytest.mark.parametrize("backends", [("sshtunnel", "openssh"), ("openssh", "sshtunnel")])
def test_hops_may_use_either_backend(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    second: OpenSSHServer,
    echo: Peer,
    backends: tuple[str, str],
) -> None:
    hops = [
        options_for(server, backend=backend)
        for server, backend in zip((openssh, second), backends, strict=True)
    ]
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=hops)
        round_trip(sock)


def test_the_host_key_behind_a_hop_is_verified(
    ctx: TunneledContext, openssh: OpenSSHServer, second: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    target = options_for(second, known_hosts=str(tmp_path / "empty"))
    with ctx.socket(zmq.REQ) as sock, pytest.raises(UnknownHostKeyError, match=str(second.port)):
        sock.connect(echo.address, ssh=[options_for(openssh), target])


# Secrets


def test_a_secret_is_in_no_command_line_and_no_environment(
    ctx: TunneledContext, echo: Peer
) -> None:
    asked = []

    def prompt(text: str, echo: bool) -> str:
        asked.append((text, echo))
        for process in psutil.process_iter():
            try:
                found = [*process.cmdline(), *process.environ().values()]
            except psutil.Error:
                continue
            assert not any("wr0ng-s3cret" in word for word in found), process
        return "right"

    with EmbeddedServer(password="right") as server:
        options = options_for(server, keyfile=None, password="wr0ng-s3cret", prompt=prompt)
        assert_works(ctx, options, echo)
        assert server.user in asked[0][0]
        assert [echo for _, echo in asked] == [False]


def test_a_prompt_that_fails_ends_the_login(ctx: TunneledContext, echo: Peer) -> None:
    def prompt(text: str, echo: bool) -> str:
        raise RuntimeError("no idea")

    with EmbeddedServer(password="right") as server, ctx.socket(zmq.REQ) as sock:
        with pytest.raises(SSHAuthenticationError, match="no idea"):
            sock.connect(echo.address, ssh=options_for(server, keyfile=None, prompt=prompt))
        wait_until(lambda: not leaks.gateways() and not leaks.masters())


def test_the_directory_of_the_prompts_is_closed_to_others(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    keyfile = generate_key(tmp_path / "locked", passphrase="open sesame")
    openssh.authorize(keyfile)
    modes = {}

    def prompt(text: str, echo: bool) -> str:
        assert str(keyfile) in text
        for directory in leaks.runtime_directories():
            for path in [directory, *directory.rglob("*")]:
                modes[path.name] = path.stat().st_mode & 0o077
        return "open sesame"

    assert_works(ctx, options_for(openssh, keyfile=str(keyfile), prompt=prompt), echo)
    assert {"ask", "askpass"} <= modes.keys()
    assert set(modes.values()) == {0}


# The master


@pytest.fixture
def users_master(
    openssh: OpenSSHServer, config: Callable[..., SSHOptions], tmp_path: Path
) -> Iterator[tuple[SSHOptions, subprocess.Popen[bytes]]]:
    """A master that the user runs, and options for its server."""
    path = tmp_path / "master"
    options = config("ControlMaster auto", f"ControlPath {path}")
    command = ["ssh", "-F", str(options.config_file), "-M", "-N", "box"]
    with Program(command, stdin=subprocess.DEVNULL) as process:
        wait_until(path.exists)
        yield options, process


def test_a_master_of_the_users_own_is_used_and_left_alone(
    any_ctx: TunneledContext,
    users_master: tuple[SSHOptions, subprocess.Popen[bytes]],
    openssh: OpenSSHServer,
    echo: Peer,
) -> None:
    options, process = users_master
    before = openssh.logins()
    for _ in range(2):
        with any_ctx.socket(zmq.REQ) as sock:
            sock.connect(echo.address, ssh=options)
            round_trip(sock)
    assert openssh.logins() == before
    assert process.poll() is None


def test_without_the_users_master_a_login_of_our_own_follows(
    ctx: TunneledContext,
    users_master: tuple[SSHOptions, subprocess.Popen[bytes]],
    openssh: OpenSSHServer,
    echo: Peer,
) -> None:
    options, process = users_master
    with Peer("router") as router, ctx.socket(zmq.DEALER) as sock:
        sock.connect(router.address, ssh=options)
        round_trip(sock)
        before = openssh.logins()
        process.kill()
        time_to_heal(sock)
        assert openssh.logins() - before == 1
        assert sock.tunnels[0].reconnects == 1


def test_a_master_that_is_killed_comes_back(
    any_ctx: TunneledContext, openssh: OpenSSHServer
) -> None:
    with Peer("router") as router, any_ctx.socket(zmq.DEALER) as sock:
        sock.connect(router.address, ssh=options_for(openssh))
        for tries in range(1, 4):
            round_trip(sock)
            the_ssh().kill()
            time_to_heal(sock)
            discard_answers(sock)
            assert sock.tunnels[0].reconnects == tries
        assert "ssh" in (sock.tunnels[0].last_error or "")


def test_no_ssh_stays_when_the_gateway_is_killed(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=options_for(openssh))
    round_trip(sock)
    [old] = [p for p in leaks.masters() if p.name() == "ssh"]
    kill_gateway()
    assert psutil.wait_procs([old], timeout=5)[1] == []
    sock.close(linger=0)
    ctx.term()
    time_until_nothing_is_left(openssh)


def test_no_ssh_stays_when_a_stopped_one_is_given_up(
    any_ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=options_for(openssh))
    round_trip(sock)
    master = the_ssh()
    with stopped(master):
        sock.close(linger=0)
        any_ctx.term()
        assert psutil.wait_procs([master], timeout=30)[1] == []


def test_a_hundred_sockets_connect_at_once(
    ctx: TunneledContext, openssh: OpenSSHServer, remote: Remote
) -> None:
    collector = remote("collector")
    socks = [ctx.socket(zmq.PUSH) for _ in range(100)]
    for sock in socks:
        sock.connect(collector.address, ssh=options_for(openssh))
        sock.send(numbered(0, 1000))
    for sock in socks:
        sock.close()
    collector.wait_for(messages=100)


def test_descriptors_that_are_missing_here_are_not_the_servers_fault(
    config: Callable[..., SSHOptions], echo: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_descriptors(channel: Channel) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with ending(OwningContext(isolate=False)) as ctx, ctx.socket(zmq.REQ) as sock:
        monkeypatch.setattr(Channel, "start", out_of_descriptors)
        sock.connect(echo.address, ssh=config())
        [tunnel] = sock.tunnels
        wait_until(lambda: tunnel.last_error is not None)
        assert "cannot ask ssh for a channel: Too many open files" in str(tunnel.last_error)
        assert "raise the limit of open files (ulimit -n)" in str(tunnel.last_error)
        assert "the server" not in str(tunnel.last_error)
        monkeypatch.undo()
        round_trip(sock)


def test_a_reader_that_stops_holds_up_its_own_direction_only(
    ctx: TunneledContext, openssh: OpenSSHServer, remote: Remote
) -> None:
    stalled, collector = remote("stalled"), remote("collector")
    for peer, count in ((stalled, 400), (collector, 100)):
        sock = ctx.socket(zmq.PUSH)
        sock.sndhwm = 0
        sock.linger = 0
        sock.connect(peer.address, ssh=options_for(openssh))
        for number in range(count):
            sock.send(numbered(number, 100_000))
    assert collector.wait_for(messages=100)["gaps"] == 0
