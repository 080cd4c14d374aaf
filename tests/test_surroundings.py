"""Odd surroundings: a locale without umlauts, no directory for temporary files, none to be in."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.hostile import HostileTransport, Script, hostile_server
from tests.logins import arguments_for, entry_for, options_for
from tests.peers import Peer
from tests.polling import wait_until
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tests.test_proxy_command import NETCAT
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.gateway.reach.shell import ShellCommand
from tunneledzmq.shared.interpreter import absolute_entries

ROUND_TRIP = """
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(addr, ssh=options)
        sock.send(b"hello")
        print(sock.recv().decode())
    """

C_LOCALE = ["env", "-u", "XDG_RUNTIME_DIR", "LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"]


def test_umlauts_in_the_path_for_sockets_in_a_locale_without(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    directory = tmp_path / "ümlaut"
    directory.mkdir()
    for prefix in ([*C_LOCALE, f"TMPDIR={directory}"], ["env", f"TMPDIR={directory}"]):
        output = run_program(
            ROUND_TRIP, prefix=prefix, options=arguments_for(openssh), addr=echo.address
        )
        assert output == "hello\n"


@contextmanager
def directory_with_a_path_of(size: int) -> Iterator[Path]:
    """A private directory, its path having `size` characters."""
    with tempfile.TemporaryDirectory(prefix="tz-", dir="/tmp") as base:
        path = Path(base, "x" * (size - len(base) - 1))
        path.mkdir(mode=0o700)
        yield path


# 49 is what $TMPDIR has on macOS, 127 what it may have in a batch system or a build.
@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
@pytest.mark.parametrize(("size", "fits"), [(49, True), (50, True), (51, False), (127, False)])
def test_a_path_for_temporary_files_of_any_length(
    size: int, fits: bool, backend: str, openssh: OpenSSHServer, echo: Peer
) -> None:
    with directory_with_a_path_of(size) as directory:
        output = run_program(
            """
            ctx = TunneledContext()
            sock = ctx.socket(zmq.REQ)
            sock.connect(addr, ssh=options)
            sock.send(b"hello")
            assert sock.recv() == b"hello"
            print(sock.tunnels[0].local)
            sock.close()
            ctx.term()
            """,
            prefix=["env", "-u", "XDG_RUNTIME_DIR", f"TMPDIR={directory}"],
            options=arguments_for(openssh, backend=backend),
            addr=echo.address,
        )
        assert output.startswith(f"ipc://{directory if fits else '/tmp'}/tunneledzmq-gateway-")
        wait_until(lambda: not list(directory.iterdir()), what="the end of what was in it")


def test_hops_and_commands_find_a_shorter_place(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    """The way to the second server is a leg, and a socket in that place, too."""
    config = tmp_path / "config"
    config.write_text(entry_for("first", openssh, "Ciphers aes128-ctr") + entry_for("lab", openssh))
    source = ROUND_TRIP.replace("ssh=options", "ssh=[replace(options, server='first'), options]")
    with directory_with_a_path_of(127) as directory:
        output = run_program(
            "from dataclasses import replace\n" + textwrap.dedent(source),
            prefix=["env", "-u", "XDG_RUNTIME_DIR", f"TMPDIR={directory}"],
            options={"server": "lab", "config_file": str(config)},
            addr=echo.address,
        )
    assert output == "hello\n"


def test_without_a_place_that_is_short_enough_the_variables_are_named(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    with directory_with_a_path_of(127) as directory:
        output = run_program(
            """
            from tunneledzmq.shared import directory
            fits = directory._is_fit
            directory._is_fit = lambda base: base != "/tmp" and fits(base)
            with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
                try:
                    sock.connect(addr, ssh=options)
                except GatewayError as exc:
                    print(exc)
            """,
            prefix=["env", f"TMPDIR={directory}", f"XDG_RUNTIME_DIR={directory}"],
            options=arguments_for(openssh),
            addr=echo.address,
        )
    assert "TMPDIR and XDG_RUNTIME_DIR" in output and "at most 50 bytes" in output


def test_a_clock_that_is_set_in_the_middle_of_a_login(
    echo: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_clock(transport: HostileTransport) -> None:
        time.sleep(0.3)  # the client waits for the server's identification by now
        later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: later)

    with (
        hostile_server(Script(prepare=set_clock), tmp_path) as options,
        TunneledContext(isolate=False) as ctx,
        ctx.socket(zmq.REQ) as sock,
    ):
        sock.connect(echo.address, ssh=options)


def test_a_working_directory_that_was_removed(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    leave = f"import os; os.mkdir({str(tmp_path / 'gone')!r}); os.chdir({str(tmp_path / 'gone')!r})"
    source = f"""
    {leave}; os.rmdir(os.getcwd()); sys.path.insert(0, "")
    {ROUND_TRIP}"""
    options = arguments_for(openssh)
    assert run_program(source, options=options, addr=echo.address) == "hello\n"


@pytest.mark.parametrize("start", ["", "~/", "{}/"], ids=["relative", "home", "absolute"])
def test_a_path_that_leads_back_from_behind_a_symbolic_link(
    start: str,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is what the system makes of it, as with ssh: such as ``current/../shared/id``."""
    (home / "releases" / "7").mkdir(parents=True)
    (home / "releases" / "shared").mkdir()
    (home / "current").symlink_to("releases/7")
    shutil.copy(openssh.keyfile, home / "releases" / "shared" / "id")
    monkeypatch.chdir(home)
    keyfile = f"{start.format(home)}current/../shared/id"
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=keyfile))
        sock.send(b"hello")
        assert sock.recv() == b"hello"
    assert [*absolute_entries(["current/../shared"])] == [f"{home}/current/../shared"]


@pytest.mark.parametrize("isolate", [True, False], ids=["in a process", "on a thread"])
@pytest.mark.parametrize("closed", [(0,), (0, 1), (0, 1, 2)], ids=str)
def test_a_program_that_has_closed_its_standard_streams(
    closed: tuple[int, ...], isolate: bool, openssh: OpenSSHServer, echo: Peer
) -> None:
    """Whatever is opened next has their numbers, which mean something else in a gateway."""
    output = run_program(
        """
        import os
        with TunneledContext(isolate=isolate) as ctx, ctx.socket(zmq.REQ) as sock:
            output = os.dup(1)
            for number in closed:
                os.close(number)
            sock.connect(addr, ssh=options)
            sock.send(b"hello")
            os.write(output, sock.recv())
        """,
        options=arguments_for(openssh),
        addr=echo.address,
        closed=closed,
        isolate=isolate,
    )
    assert output == "hello"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of the signals")
@pytest.mark.parametrize("isolate", [True, False], ids=["in a process", "on a thread"])
def test_a_program_that_ignores_and_blocks_signals(
    isolate: bool, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    """What it has chosen for itself is not for the commands of the config file."""
    tell = f"import shutil; shutil.copy('/proc/self/status', {str(tmp_path)!r})\n"
    (tmp_path / "netcat.py").write_text(tell + NETCAT)
    command = shlex.join([sys.executable, "-S", str(tmp_path / "netcat.py")])
    (tmp_path / "config").write_text(
        f"Match exec false\n  HostName 127.0.0.9\nMatch all\n  ProxyCommand {command} %h %p\n"
    )
    output = run_program(
        """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGTERM])
        with TunneledContext(isolate=isolate) as ctx, ctx.socket(zmq.REQ) as sock:
            try:
                sock.connect(addr, ssh=options)
                sock.send(b"hello")
                print(sock.recv().decode())
            except TunnelError as exc:
                print(exc)
        """,
        options=arguments_for(openssh, config_file=str(tmp_path / "config")),
        addr=echo.address,
        isolate=isolate,
    )
    if not isolate:
        assert "exit status is not to be had, since the program ignores SIGCHLD" in output
        return
    assert output == "hello\n"
    assert re.search(r"^SigBlk:\s+0+$", (tmp_path / "status").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["calendar", "email", "hmac"])
def test_a_program_with_a_module_that_has_the_name_of_pythons(
    name: str, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('this is no module for others')")
    source = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    {ROUND_TRIP}"""
    options = arguments_for(openssh)
    assert run_program(source, options=options, addr=echo.address) == "hello\n"


def test_a_list_of_processes_says_whose_a_gateway_is(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    echo: Peer,
    gateways: Callable[[], set[psutil.Process]],
) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=openssh_options)
        [gateway] = gateways()
        listed = subprocess.run(
            ["ps", "-o", "args=", "-p", str(gateway.pid)],
            env={**os.environ, "COLUMNS": "80"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    # After the path of the interpreter, which may be long.
    assert listed.partition(" -c ")[2].startswith("'tunneledzmq gateway'")


def test_a_command_needs_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tempfile.TemporaryFile

    def only_elsewhere(dir: str | None = None) -> Any:
        if dir is None:
            raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
        return made(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", only_elsewhere)
    command = ShellCommand("echo said >&2; exit 3", "/")
    assert command.wait(10) == 3
    command.end()
    assert command.describe() == "exit status 3: said"


@pytest.mark.parametrize("isolate", [True, False], ids=["in a process", "on a thread"])
@pytest.mark.parametrize("means", ["sshtunnel", "openssh"])
@pytest.mark.parametrize("over", ["directly", "a hop", "a command"])
def test_a_program_with_a_default_timeout_for_its_sockets(
    over: str, means: str, isolate: bool, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    """Which is theirs alone: ours are silent for as long as there is nothing to say."""
    fields = arguments_for(openssh, backend=means)
    if over == "a command":
        (tmp_path / "netcat.py").write_text(NETCAT)
        command = shlex.join([sys.executable, "-S", str(tmp_path / "netcat.py")])
        (tmp_path / "config").write_text(f"Host *\n  ProxyCommand {command} %h %p\n")
        fields["config_file"] = str(tmp_path / "config")
    output = run_program(
        """
        import socket, time
        from dataclasses import replace
        socket.setdefaulttimeout(0.3)
        if over == "a hop":
            options = replace(options, jump=(options,))
        with TunneledContext(isolate=isolate) as ctx, ctx.socket(zmq.REQ) as sock:
            sock.rcvtimeo = 5_000
            sock.connect(addr, ssh=options)
            for _ in range(3):
                time.sleep(0.7)
                sock.send(b"hello")
                assert sock.recv() == b"hello"
            start = time.monotonic()
            with ctx.socket(zmq.REQ) as other:
                other.connect(addr, ssh=options)
            assert time.monotonic() - start < 2
            print(sock.tunnels[0].state, sock.tunnels[0].reconnects)
        """,
        options=fields,
        over=over,
        isolate=isolate,
        addr=echo.address,
    )
    assert output == "up 0\n"


FROZEN = """
    import os
    sys._MEIPASS, theirs = "/bundle", ["/bundle", "/theirs"][:entries]
    os.environ["LD_LIBRARY_PATH"] = ":".join(theirs)
    if entries > 1:
        os.environ["LD_LIBRARY_PATH_ORIG"] = "/theirs"
"""

STARTS = {
    "SSH_ASKPASS": """
    from tunneledzmq.handles.prompt import ask_user
    os.environ.update(SSH_ASKPASS=tell, SSH_ASKPASS_REQUIRE="force")
    ask_user("Password: ", False)
    """,
    "a command of the config file": """
    from tunneledzmq.gateway.reach.shell import ShellCommand
    command = ShellCommand(tell, "/")
    command.wait(10)
    command.end()
    """,
    "ssh": """
    import dataclasses
    options = dataclasses.replace(options, backend="openssh", config_file=config)
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(addr, ssh=options)
    """,
    "a gateway": """
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(addr, ssh=options)
        [tunnel] = sock.tunnels
        with open(f"/proc/{tunnel._handle.pid}/environ") as environ:
            of_gateway = dict(entry.split("=", 1) for entry in environ.read().split("\\0")[:-1])
        with open(told, "w") as file:
            names = ("LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG")
            print(*[of_gateway.get(name, "none") for name in names], file=file)
    """,
}


@pytest.mark.parametrize("entries", [1, 2], ids=["none before", "one before"])
@pytest.mark.parametrize("what", STARTS)
def test_what_a_frozen_program_starts_does_not_find_its_libraries(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, entries: int, what: str
) -> None:
    told = tmp_path / "told"
    tell = tmp_path / "tell"
    say = f'echo "${{LD_LIBRARY_PATH-none}} ${{LD_LIBRARY_PATH_ORIG-none}}" > {told}'
    tell.write_text(f"#!/bin/sh\n{say}\n")
    tell.chmod(0o700)
    config = tmp_path / "config"
    config.write_text(f"Match exec {tell}\n")
    output = run_program(
        f"{FROZEN}{STARTS[what].rstrip()}\n    print(os.environ['LD_LIBRARY_PATH'])",
        options=arguments_for(openssh),
        addr=echo.address,
        entries=entries,
        **{"tell": str(tell), "told": str(told), "config": str(config)},
    )
    assert told.read_text() == ["none none\n", "/theirs none\n"][entries - 1]
    assert output == ["/bundle\n", "/bundle:/theirs\n"][entries - 1], "the program's own stays"
