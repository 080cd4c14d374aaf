"""Odd surroundings: a locale without umlauts, no directory for temporary files, none to be in."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext
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
