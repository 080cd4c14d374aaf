"""What type checkers and editors make of the package, as users see it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tunneledzmq
import tunneledzmq.asyncio
from tests.peers import ROOT

PROGRAMS = ROOT / "tests" / "typing"

Found = set[tuple[str, int]]
"""The lines in which a type checker finds mistakes, by the names of their files."""


def run_mypy(directory: Path) -> tuple[Found, str]:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
    ]
    files = sorted(map(str, PROGRAMS.glob("*.py")))
    done = subprocess.run(
        [*command, f"--cache-dir={directory}", *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    errors = re.findall(r"^(.*?):(\d+): error: ", done.stdout, re.MULTILINE)
    return {(Path(file).name, int(line)) for file, line in errors}, done.stdout


def run_pyright(directory: Path) -> tuple[Found, str]:
    # basedpyright is pyright with its Node.js in the wheel; these are pyright's own settings.
    settings = {"typeCheckingMode": "strict", "include": [str(PROGRAMS)], "extraPaths": [str(ROOT)]}
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable, "--project", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(list(PROGRAMS.glob("*.py")))
    found = report["generalDiagnostics"]
    lines = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found}
    return lines, "\n".join(f"{each['file']}: {each['message']} {each['range']}" for each in found)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("check", [run_mypy, run_pyright])
def test_programs_that_use_every_public_name(
    check: Callable[[Path], tuple[Found, str]], tmp_path: Path
) -> None:
    mistakes = (PROGRAMS / "mistakes.py").read_text().splitlines()
    expected = {
        ("mistakes.py", number)
        for number, line in enumerate(mistakes, 1)
        if line.endswith("# mistake")
    }
    found, report = check(tmp_path)
    assert found == expected, report


@pytest.mark.parametrize("module", [tunneledzmq, tunneledzmq.asyncio])
def test_the_programs_use_every_public_name(module: object) -> None:
    name = "awaiting" if module is tunneledzmq.asyncio else "blocking"
    text = (PROGRAMS / f"{name}.py").read_text()
    for public in module.__all__:  # type: ignore[attr-defined]
        assert re.search(rf"\b{public}\b", text), public


@pytest.mark.parametrize("module", [tunneledzmq, tunneledzmq.asyncio])
def test_connect_shows_its_arguments_in_an_editor(module: object) -> None:
    connect = module.TunneledSocket.connect  # type: ignore[attr-defined]
    assert list(inspect.signature(connect).parameters) == ["self", "addr", "ssh", "local"]
    for argument in ("addr", "ssh", "local"):
        assert f"    {argument}: " in inspect.getdoc(connect)
    assert "<the context's>" in str(inspect.signature(connect))
