"""pyzmq's own test suite, with this package's classes in the place of its own.

    python -m tests.pyzmq_suite [pytest arguments]

It runs twice: as it is, and with a context default that sends every connect to a tcp:// address
through OpenSSH's server. Every test that passes without us must pass both times, but those that
`pyzmq_suite_exceptions` lists with the reason. The second time only tests that connect to a
tcp:// address run, as the first run finds. A test that fails is run once more by itself, and then
without us.

The tests are those of the installed pyzmq: from its source distribution, which pip downloads.
Releases before 26 have them installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import zmq

from tests.logins import arguments_for
from tests.polling import wait_until
from tests.pyzmq_suite_exceptions import DIFFERENT, RACES, RACES_ANYWAY
from tests.sshd import OpenSSHServer

ROOT = Path(__file__).resolve().parent.parent

INI = """\
[pytest]
asyncio_mode = auto
markers =
    large
    new_console
    wheel
"""
"""What releases before 26 do not install with their tests."""

PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "--timeout=60"),
    *("-p", "no:cacheprovider", "-p", "pyzmq_suite_plugin", "--disable-warnings"),
    *("-o", "addopts=--import-mode=importlib"),
    # It runs mypy on pyzmq's examples, with pyzmq's classes.
    *("tests", "--ignore=tests/test_mypy.py"),
)
# Some tests of one file use the same port.
TWO_AT_A_TIME = ("-n2", "--dist=loadfile")

Results = dict[str, list[str]]
"""How each test ended (`passed`, `skipped`, `failed`), and how it connected (`tcp`, `tunnel`)."""


def unpack_tests(directory: Path) -> Path:
    """Return a directory that holds pyzmq's tests and their settings, made in `directory`."""
    installed = Path(zmq.__file__).parent / "tests"
    if (installed / "test_socket.py").exists():
        shutil.copytree(installed, directory / "pyzmq" / "tests")
        (directory / "pyzmq" / "pytest.ini").write_text(INI)
        return directory / "pyzmq"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    requirement = f"pyzmq=={zmq.__version__}"
    subprocess.run(
        [*command, "--no-binary", "pyzmq", "--dest", str(directory), requirement], check=True
    )
    [archive] = directory.glob("pyzmq-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(directory, filter="data")
    unpacked = directory / archive.name.removesuffix(".tar.gz")
    # It would hide the installed one, and has no compiled modules.
    (unpacked / "zmq").rename(unpacked / "zmq-sources")
    return unpacked


class Suite:
    """pyzmq's tests, and how to run them.

    Args:
        directory: an empty one, for the tests and what they leave behind.
        arguments: further ones for pytest.

    """

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        self._directory = directory
        self._tests = unpack_tests(directory)
        self._arguments = arguments
        self.run_directory = directory / "run"
        self.run_directory.mkdir(mode=0o700)

    def run(
        self,
        *arguments: str,
        ours: bool = True,
        ssh: dict[str, Any] | None = None,
        only: Iterable[str] | None = None,
        timeout: int = 45,
        quiet: bool = False,
    ) -> Results:
        """Run tests, and return how they ended.

        Args:
            arguments: further ones for pytest.
            ours: puts this package's classes in place.
            ssh: fields of `SSHOptions`, the contexts' default.
            only: which tests to run. Default: all of them.
            timeout: seconds after which most of the tests fail.
            quiet: shows nothing.

        Raises:
            RuntimeError: no test ran.

        """
        only = None if only is None else sorted(only)
        if only == []:
            return {}
        results = self._directory / f"{uuid4()}.json"
        settings = {
            "ours": ours,
            "ssh": ssh,
            "only": only,
            "timeout": timeout,
            "results": str(results),
        }
        subprocess.run(
            [*PYTEST, *arguments, *self._arguments],
            cwd=self._tests,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                "PYZMQ_SUITE": json.dumps(settings),
                "XDG_RUNTIME_DIR": str(self.run_directory),
            },
            stdout=subprocess.DEVNULL if quiet else None,
            check=False,
        )
        ended: Results = json.loads(results.read_text()) if results.exists() else {}
        if not which(ended, "passed", "failed"):
            raise RuntimeError("no test ran")
        return ended

    def failures(self, results: Results, **settings: Any) -> set[str]:
        """Return which tests failed, fail by themselves as well, and pass without us."""
        failed = which(results, "failed") - set(RACES_ANYWAY)
        if failed:
            say("what failed, once more:", *failed)
            failed = which(self.run(only=failed, **settings), "failed")
        if failed:
            say("what failed again, without us:", *failed)
            failed -= which(self.run(only=failed, ours=False), "failed")
        return failed


def which(results: Results, *wanted: str) -> set[str]:
    """Return the tests of which any of these is noted; none that failed counts as passed."""
    return {
        test
        for test, notes in results.items()
        if set(wanted) & (set(notes) - {"passed"} if "failed" in notes else set(notes))
    }


def say(title: str, *lines: str) -> None:
    """Print something at once."""
    print("", title, *(f"  {line}" for line in sorted(lines)), sep="\n", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the suite, and return the exit status."""
    with (
        TemporaryDirectory(prefix="tz-") as directory,
        OpenSSHServer() as server,
        ThreadPoolExecutor() as executor,
    ):
        suite = Suite(Path(directory), arguments)
        say(f"pyzmq {zmq.__version__} with tunneledzmq in its place:")
        direct = suite.run(*TWO_AT_A_TIME)
        failed = suite.failures(direct)

        ssh = arguments_for(server)
        connecting = which(direct, "tcp")
        listed = connecting & {*DIFFERENT, *RACES, *RACES_ANYWAY}
        say("the same through an SSH server, what connects to tcp:// addresses:")
        exceptions = executor.submit(suite.run, ssh=ssh, only=listed, timeout=5, quiet=True)
        tunnelled = suite.run(*TWO_AT_A_TIME, ssh=ssh, only=connecting - listed)
        failed |= suite.failures(tunnelled, ssh=ssh)
        passed = which(tunnelled, "passed")
        untunnelled = passed - which(tunnelled, "tunnel")
        unexpected = which(exceptions.result(), "passed")

        wait_until(lambda: not list(suite.run_directory.iterdir()), what="the gateways are gone")

    say(f"{len(which(direct, 'passed'))} passed, {len(passed)} of them through an SSH server too")
    stale = unexpected & set(DIFFERENT)
    for title, tests in (
        ("exceptions that passed this time:", unexpected - stale),
        ("listed as exceptions, and passed:", stale),
        ("passed without a tunnel:", untunnelled),
        ("failed, and pass without us:", failed),
    ):
        if tests:
            say(title, *tests)
    return 1 if failed or untunnelled or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
