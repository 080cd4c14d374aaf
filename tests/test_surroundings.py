"""Odd surroundings: a locale without umlauts, no directory for temporary files, none to be in."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer
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
