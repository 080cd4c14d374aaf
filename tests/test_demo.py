"""`python -m tunneledzmq demo`: the first impression."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.peers import ROOT
from tunneledzmq.demo import show
from tunneledzmq.demo.openssh import OpenSSHServer


@pytest.mark.parametrize("server", ["sshd", "embedded"])
def test_the_demo_fits_in_60_columns(need_sshd: None, tmp_path: Path, server: str) -> None:
    arguments = ["--embedded"] if server == "embedded" else []
    results = tmp_path / "results.json"
    demo = subprocess.run(
        [
            *(sys.executable, "-m", "tunneledzmq", "demo", "--seconds", "0.1"),
            *("--json", str(results), *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        text=True,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert max(map(len, demo.stdout.splitlines())) <= 60
    assert ("OpenSSH's sshd on this machine" in demo.stdout) == (server == "sshd")
    assert ("since\nit is Python" in demo.stdout) == (server == "embedded")
    for words in ("up: from here to the peer", "the median", "tunneledzmq check", "STILL"):
        assert (words in demo.stdout) == (words != "STILL")
    # No line is broken that is meant to be copied.
    [connect] = [line for line in demo.stdout.splitlines() if "sock.connect(" in line]
    assert connect.startswith('    sock.connect("tcp://') and connect.endswith('",')
    assert None not in json.loads(results.read_text())["gone"].values()


def test_an_sshd_that_does_not_start_is_not_waited_for(need_sshd: None, tmp_path: Path) -> None:
    sshd = tmp_path / "sshd"
    sshd.write_text("#!/bin/sh\necho Missing directory >&2\nexit 255\n")
    sshd.chmod(0o700)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="sshd does not start: Missing directory"):
        OpenSSHServer(str(sshd)).__enter__()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("python", "path", "command"),
    [
        ("bin/python", "bin", "tunneledzmq"),
        ("bin/python", "", os.path.join("bin", "tunneledzmq")),
        ("python", "", "python -m tunneledzmq"),
    ],
)
def test_the_next_command_is_one_that_the_shell_finds(
    python: str, path: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / ("tunneledzmq.exe" if sys.platform == "win32" else "tunneledzmq")
    script.parent.mkdir()
    script.touch(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(sys, "orig_argv", [python, "-m", "tunneledzmq", "demo"])
    assert show._command().removesuffix(script.suffix) == command


def test_a_file_that_cannot_be_written_is_found_out_before(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "results.json")
    demo = subprocess.run(
        [sys.executable, "-m", "tunneledzmq", "demo", "--json", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert demo.returncode == 1
    assert demo.stdout == ""
    assert demo.stderr == f"tunneledzmq demo: [Errno 2] {os.strerror(2)}: {path!r}\n"
