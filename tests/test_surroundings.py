"""Odd surroundings: a locale without umlauts, no directory for temporary files, none to be in."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tests.test_proxy_command import NETCAT
from tunneledzmq.gateway.reach.shell import ShellCommand

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


def test_a_working_directory_that_was_removed(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    leave = f"import os; os.mkdir({str(tmp_path / 'gone')!r}); os.chdir({str(tmp_path / 'gone')!r})"
    source = f"""
    {leave}; os.rmdir(os.getcwd()); sys.path.insert(0, "")
    {ROUND_TRIP}"""
    options = arguments_for(openssh)
    assert run_program(source, options=options, addr=echo.address) == "hello\n"


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
