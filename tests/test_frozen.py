"""A program that PyInstaller has frozen.

To build one takes a minute and PyInstaller: `pip install pyinstaller`, as CI does.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.logins import arguments_for
from tests.peers import ROOT, Peer
from tests.programs import Program
from tests.sshd import OpenSSHServer
from tunneledzmq.pyinstaller import hook_directories

pytest.importorskip("PyInstaller", reason="to run this: pip install pyinstaller")

pytestmark = pytest.mark.timeout(600)

SOURCE = """
import json, logging, multiprocessing, sys
import zmq
from tunneledzmq import SSHOptions, TunneledContext

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
addr, arguments, python = json.loads(sys.argv[1])
if python:
    multiprocessing.set_executable(python)
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.connect(addr, ssh=SSHOptions(**arguments))
    sock.send(b"hello")
    print(sock.recv().decode(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, as it is given to users."""
    directory = tmp_path_factory.mktemp("frozen")
    (directory / "app.py").write_text(SOURCE)
    built = subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--onefile", "--log-level", "WARN"),
            *("--paths", ROOT, "--name", "app", "app.py"),
            # Where the package is installed, they are found by themselves.
            *itertools.chain(*(("--additional-hooks-dir", path) for path in hook_directories())),
        ],
        cwd=directory,
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(directory / "cache")},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return directory / "dist" / "app"


@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
@pytest.mark.parametrize("python", [None, sys.executable], ids=["alone", "beside an interpreter"])
def test_a_frozen_program_is_started_once(
    program: Path,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    backend: str,
    python: str | None,
) -> None:
    # What it starts for itself has the system's libraries.
    config = tmp_path / "config"
    config.write_text(f'Match exec "echo [$LD_LIBRARY_PATH] > {tmp_path}/told"\n')
    arguments = {**arguments_for(openssh), "backend": backend, "config_file": str(config)}
    with Program(
        [program, json.dumps([echo.address, arguments, python])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin and running.stdout
        warning = running.stdout.readline()
        assert warning.startswith("WARNING gateways live in threads of this program")
        assert running.stdout.readline() == "hello\n"
        # The one that was started has unpacked the program, and waits for it.
        own = [process.exe() for process in psutil.Process(running.pid).children(recursive=True)]
        assert own.count(str(program)) == 1
        assert (tmp_path / "told").read_text() == f"[{os.environ.get('LD_LIBRARY_PATH', '')}]\n"
        output, errors = running.communicate(timeout=30)
        assert (running.returncode, output, errors) == (0, "", "")
