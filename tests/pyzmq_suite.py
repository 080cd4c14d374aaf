"""pyzmq's own tests of contexts and sockets, with this package's classes in the place of its own.

    python tests/pyzmq_suite.py [pytest arguments]

The tests come from the source distribution of the installed pyzmq, which pip downloads. They run
twice: as they are, and with `TunneledContext` and `TunneledSocket` as `zmq.Context` and
`zmq.Socket`. What fails in the first run is listed, and left out of the second, whose exit status
is that of this program. This module is also the pytest plugin that puts the classes there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import zmq

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("tests/test_context.py", "tests/test_socket.py")
PLUGIN = "pyzmq_suite"


def pytest_configure() -> None:
    """Put the classes in place before the tests import `zmq`'s."""
    from tunneledzmq import TunneledContext, TunneledSocket

    zmq.Context = TunneledContext  # type: ignore[misc]
    zmq.Socket = TunneledSocket  # type: ignore[misc]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Tell the tests of `repr` which name to expect."""
    names = {"zmq.Context": zmq.Context, "zmq.Socket": zmq.Socket}
    for item in items:
        test_case = getattr(item, "cls", None)
        cls = names.get(getattr(test_case, "_repr_cls", ""))
        if cls is not None:
            test_case._repr_cls = cls.__dict__.get("_repr_cls", f"{cls.__module__}.{cls.__name__}")


def download_sources(directory: Path) -> Path:
    """Return where the sources of the installed pyzmq are, unpacked in `directory`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    requirement = f"pyzmq=={zmq.__version__}"
    subprocess.run(
        [*command, "--no-binary", "pyzmq", "--dest", str(directory), requirement], check=True
    )
    [archive] = directory.glob("pyzmq-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


def run_tests(sources: Path, *arguments: str) -> int:
    """Run pyzmq's tests, and return pytest's exit status."""
    search = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--timeout=60", *MODULES, *arguments],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": search},
        check=False,
    ).returncode


def failures(sources: Path) -> list[str]:
    """Return the ids of the tests that failed in the last run."""
    cache = sources / ".pytest_cache" / "v" / "cache" / "lastfailed"
    return list(json.loads(cache.read_text())) if cache.exists() else []


def main(arguments: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as directory:
        sources = download_sources(Path(directory))
        # Not installed, it would hide the installed one: it has no compiled modules.
        (sources / "zmq").rename(sources / "zmq-sources")

        print(f"pyzmq {zmq.__version__} as it is:", flush=True)
        run_tests(sources, *arguments)
        failed = failures(sources)
        if failed:
            print("left out, as they fail without us:", *failed, sep="\n  ", flush=True)

        print(f"pyzmq {zmq.__version__} with tunneledzmq in its place:", flush=True)
        deselected = [f"--deselect={name}" for name in failed]
        return run_tests(sources, "-p", PLUGIN, *deselected, *arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
