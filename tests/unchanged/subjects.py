"""What is run: the suites of four projects, and programs that use four others."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

PROGRAMS = Path(__file__).resolve().parent / "programs"

Results = dict[str, str]
"""How each part ended, by its name."""


@dataclass(frozen=True)
class Subject:
    """Something that others have written.

    Attributes:
        name: of the project.
        packages: what pip is to install.
        source: the project whose source distribution has the tests, where the installed one has
            none.
        options: for `run`.
        tests: arguments for pytest; none: a program of `programs` is run.
        timeout: seconds for the whole.

    """

    name: str
    packages: tuple[str, ...]
    source: str = ""
    options: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    timeout: int = 900

    def prepare(self, python: Path, directory: Path) -> Path:
        """Unpack what is needed, and return the directory to run it in."""
        if not self.source:
            return directory
        command = [str(python), "-m", "pip", "download", "-q", "--no-deps", "--no-binary"]
        command += [self.source, "--dest", str(directory), self.source]
        subprocess.run(command, check=True)
        [archive] = directory.glob("*.tar.gz")
        with tarfile.open(archive) as sources:
            sources.extractall(directory, filter="data")
        unpacked = directory / archive.name.removesuffix(".tar.gz")
        # The package itself is the installed one.
        for package in (unpacked / self.name, unpacked / "src"):
            if package.exists():
                package.rename(package.with_name(f"{package.name}-sources"))
        return unpacked

    def command(self, python: Path, results: Path, only: Sequence[str] = ()) -> list[str]:
        """Return the command that runs it, and writes its results."""
        if not self.tests:
            return [str(python), str(PROGRAMS / f"{self.name}_program.py"), str(results)]
        options = ("-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".")
        return [
            *(str(python), "-m", "pytest", *options, "--timeout=60", "-o", "asyncio_mode=auto"),
            *(f"--junitxml={results}", *(only or self.tests)),
        ]

    def read(self, results: Path) -> Results:
        """Return the results that it has written."""
        if not results.exists():
            return {}
        if not self.tests:
            found: Results = json.loads(results.read_text())
            return found
        ended: Results = {}
        for case in ElementTree.parse(results).iter("testcase"):
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            name = f"{case.get('classname')}::{case.get('name')}"
            ended[name] = (
                "failed" if kinds & {"failure", "error"} else kinds.pop() if kinds else "passed"
            )
        return ended


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "jupyter_client",
            ("jupyter_client", "ipykernel", "pytest-jupyter", "pytest-timeout", "msgpack", "mypy"),
            source="jupyter_client",
            tests=("tests",),
            timeout=1800,
        ),
        Subject(
            "ipyparallel",
            ("ipyparallel", "pytest-asyncio", "pytest-timeout", "testpath"),
            tests=("--pyargs", "ipyparallel.tests"),
            timeout=3600,
        ),
        Subject(
            "bluesky",
            ("bluesky", "multiprocess", "pytest-mock", "pytest-timeout", "matplotlib", "ophyd"),
            tests=("--pyargs", "bluesky.tests.test_zmq", "bluesky.tests.test_zmq_proxy_cli"),
        ),
        # The last release that comes with its tests.
        Subject(
            "circus",
            ("circus==0.18.0", "pytest-timeout", "pyyaml"),
            tests=("--pyargs", "circus.tests"),
            timeout=1800,
        ),
        Subject("imagezmq", ("imagezmq", "numpy")),
        Subject("locust", ("locust",)),
        Subject("zerorpc", ("zerorpc", "gevent")),
        # It takes Peer-Address for an IP address.
        Subject("zprocess", ("zprocess",), options=("--local", "tcp://127.0.0.1:*")),
    )
}
"""All of them, by their names."""
