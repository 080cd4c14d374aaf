"""Nothing is left behind: checked after every test."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.polling import wait_until

GATEWAY_MODULE = "tunneledzmq.gateway"
MASTER_MARKS = ("ssh-of-tunneledzmq", "-oControlPath=")

test_failed = pytest.StashKey[bool]()
"""Whether the test itself failed: its traceback then keeps objects alive, which is no leak."""


def gateways() -> set[psutil.Process]:
    """Return the gateway processes of this test run, orphans included."""
    return processes(GATEWAY_MODULE)


def masters() -> set[psutil.Process]:
    """Return the processes of ``ssh`` that gateways of this test run have started, orphans too."""
    return processes(*MASTER_MARKS)


def processes(*marks: str) -> set[psutil.Process]:
    """Return this run's processes that have one of `marks` in their command line.

    The run's own temporary directory, which they inherit, tells them from those of other programs.
    """
    found = set()
    for process in psutil.process_iter():
        try:
            line = "\n".join(process.cmdline())
            if any(mark in line for mark in marks) and _is_ours(process):
                found.add(process)
        except psutil.Error:
            continue
    return found


def _is_ours(process: psutil.Process) -> bool:
    if sys.platform == "win32":  # the run has Wine for itself
        return process.pid != os.getpid()
    return process.environ().get("TMPDIR") == tempfile.gettempdir()


def children() -> set[psutil.Process]:
    """Return the processes that this one, or one of them, has started."""
    if sys.platform == "win32":  # Wine does not tell psutil
        return set()
    return set(psutil.Process().children(recursive=True))


def runtime_directories(owner: str = "gateway") -> set[Path]:
    """Return the package's directories on this machine; with `*`, those of the demo's too."""
    parents = {tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", tempfile.gettempdir())}
    return {path for parent in parents for path in Path(parent).glob(f"tunneledzmq-{owner}-*")}


def descriptors() -> dict[str, str]:
    """Return this process' open descriptors, and what each is; where that can be seen."""
    found: dict[str, str] = {}
    if sys.platform == "win32":
        return found
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the one that listed the directory
    return found


@dataclass
class Belongings:
    """What the test process holds at one moment."""

    processes: set[psutil.Process]
    threads: set[threading.Thread]
    descriptors: dict[str, str]
    directories: set[Path]

    @classmethod
    def now(cls) -> Belongings:
        return cls(
            children() | processes(GATEWAY_MODULE, *MASTER_MARKS),
            set(threading.enumerate()),
            descriptors(),
            runtime_directories("*"),
        )

    def beyond(self, before: Belongings) -> list[str]:
        """Return what is there now and was not there before, in words."""
        left = [f"process {_words(process)}" for process in self.processes - before.processes]
        left += [f"thread {thread}" for thread in self.threads - before.threads]
        left += [f"directory {_words_on(path)}" for path in self.directories - before.directories]
        if len(self.descriptors) > len(before.descriptors):
            new = dict(self.descriptors.items() - before.descriptors.items())
            left.append(f"{len(self.descriptors) - len(before.descriptors)} descriptors of {new}")
        return left


def _words(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error:  # a zombie has no command line
        return str(process)


def _words_on(directory: Path) -> str:
    try:
        return f"{directory} with {os.listdir(directory)}"
    except OSError:  # it has just gone
        return str(directory)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None, pytest.TestReport, pytest.TestReport]:  # type: ignore[type-arg]
    report = yield
    if report.when == "call":
        item.stash[test_failed] = report.failed
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Have collections of garbage pass over what the suite is made of.

    There are two or more for each test; otherwise they take longer than all else.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor or directory behind for 10 s."""
    gc.collect()
    before = Belongings.now()
    yield
    if request.node.stash.get(test_failed, False):
        return
    for _ in range(10):
        gc.collect()  # now and then: it takes long
        with suppress(AssertionError):
            wait_until(lambda: not Belongings.now().beyond(before), timeout=1)
            return
    left = Belongings.now().beyond(before)
    if left:
        pytest.fail("left behind 10 s after the test:\n" + "\n".join(left), pytrace=False)
