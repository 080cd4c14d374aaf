"""Programs that are no Python interpreter start no copies of themselves."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tunneledzmq.shared.interpreter import is_called_python

ROUND_TRIP = """
import logging, multiprocessing
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
exec(before)
from tunneledzmq.handles import home
home._PROOF_TIMEOUT = 1.0
with TunneledContext() as ctx:
    for persist in range(2):
        with ctx.socket(zmq.REQ) as sock:
            sock.connect(addr, ssh=SSHOptions(**arguments, connections=1 + persist))
            sock.send(b"hello")
            print(sock.recv().decode(), sock.tunnels[0]._handle.pid is not None)
"""


def run(openssh: OpenSSHServer, echo: Peer, before: str) -> list[str]:
    """Run a program with two gateways; return what it printed."""
    arguments = arguments_for(openssh)
    return run_program(ROUND_TRIP, arguments=arguments, addr=echo.address, before=before).split(
        "\n"
    )


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def assert_in_threads(output: list[str], why: str) -> None:
    warning, *others = output
    assert warning.startswith("WARNING gateways live in threads") and why in warning
    assert others == ["hello False", "hello False", ""]


@pytest.mark.parametrize("patience", ["exit 2", "sleep 60", "exec cat"])
def test_an_embedder_is_started_once_and_not_believed(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, patience: str
) -> None:
    program = script(tmp_path / "program", f"echo started >> {tmp_path}/log", patience)
    output = run(openssh, echo, f"sys.executable = {str(program)!r}")
    assert_in_threads(output, f"{program} does not run Python code")
    assert (tmp_path / "log").read_text() == "started\n"


def test_a_copy_of_the_program_starts_no_copies(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    # It does what the program does, whatever it is told.
    source = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
sys.executable = {str(tmp_path / "program")!r}
from tunneledzmq import SSHOptions, TunneledContext, TunnelError
import zmq
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    try:
        sock.connect({echo.address!r}, ssh=SSHOptions(**{arguments_for(openssh)!r}))
    except TunnelError as exc:
        open({str(tmp_path / "log")!r}, "a").write(str(exc) + "\\n")
"""
    (tmp_path / "source.py").write_text(source)
    program = script(
        tmp_path / "program",
        f"echo started >> {tmp_path}/log",
        f"exec {sys.executable} {tmp_path}/source.py",
    )
    output = run(openssh, echo, f"sys.executable = {str(program)!r}")
    assert_in_threads(output, "does not run Python code")
    log = (tmp_path / "log").read_text()
    assert log.splitlines().count("started") == 1
    assert log.count("is a copy of the program") <= 1


@pytest.mark.parametrize(
    "before", ["sys.frozen = True", "sys.executable = ''", "sys.executable = '/nowhere/python3'"]
)
def test_without_an_interpreter_gateways_live_in_threads(
    openssh: OpenSSHServer, echo: Peer, before: str
) -> None:
    assert_in_threads(run(openssh, echo, before), "")


@pytest.mark.parametrize("before", ["sys.frozen = True", "sys.executable = '/nowhere/python3'"])
def test_an_interpreter_that_multiprocessing_was_told_is_used(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, before: str
) -> None:
    launcher = script(
        tmp_path / "launcher", f"echo started >> {tmp_path}/log", f'exec {sys.executable} "$@"'
    )
    told = f"{before}; multiprocessing.set_executable({str(launcher)!r})"
    assert run(openssh, echo, told) == ["hello True", "hello True", ""]
    assert (tmp_path / "log").read_text() == "started\n" * 2


def test_names_of_interpreters() -> None:
    for name in ("python", "python3.12", "/usr/bin/python3.13t", "pypy3", "Python", "python3-dbg"):
        assert is_called_python(name)
    for name in ("uwsgi", "blender", "mypython", "python/app", "my app"):
        assert not is_called_python(name)
