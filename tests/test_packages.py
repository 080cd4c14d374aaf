"""What is published: the source distribution and the wheel.

Building them takes the network, `build` and `twine`: `pip install build twine`, as CI does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers import ROOT

pytest.importorskip("build", reason="to run these: pip install build twine")
pytest.importorskip("twine", reason="to run these: pip install build twine")

pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command as from a shell where nothing is set for us, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert program.returncode == 0, program.stdout + program.stderr
    return program.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution and the wheel that is built from it."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", directory)
    [source], [wheel] = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return {"source": source, "wheel": wheel}


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Installs a package in place of the one before; returns the directory of the programs."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=True)
    pip = directory / "bin" / "pip"

    def install(package: Path) -> Path:
        run(pip, "uninstall", "--quiet", "--yes", "tunneledzmq")
        run(pip, "install", "--quiet", "--no-compile", f"{package}[demo]")
        return directory / "bin"

    return install


def test_their_metadata_are_what_an_index_takes(packages: dict[str, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *packages.values())


def test_the_source_distribution_has_what_the_repository_has(packages: dict[str, Path]) -> None:
    with tarfile.open(packages["source"]) as source:
        files = {name.partition("/")[2] for name in source.getnames()}
    assert files == {*run("git", "ls-files").splitlines(), "PKG-INFO"}


def test_the_wheel_has_the_package_and_nothing_else(packages: dict[str, Path]) -> None:
    with zipfile.ZipFile(packages["wheel"]) as wheel:
        files = set(wheel.namelist())
    package = set(run("git", "ls-files", "tunneledzmq").splitlines())
    assert "tunneledzmq/py.typed" in package
    assert {name for name in files if ".dist-info/" not in name} == package
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_what_is_installed_from_it_carries_a_tunnel(
    packages: dict[str, Path], install: Callable[[Path], Path], kind: str, tmp_path: Path
) -> None:
    programs = install(packages[kind])
    where = "import tunneledzmq; print(tunneledzmq.__file__)"
    installed = Path(run(programs / "python", "-c", where, cwd=tmp_path).strip())
    assert installed.is_relative_to(programs.parent)
    results = tmp_path / "results.json"
    run(programs / "tunneledzmq", "demo", "--seconds", "0.1", "--json", results, cwd=tmp_path)
    assert results.exists()
