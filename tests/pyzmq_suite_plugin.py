"""The pytest plugin of `pyzmq_suite`: puts this package's classes in the place of pyzmq's.

It acts when it is imported, which is before any conftest. It imports nothing of this directory,
since pyzmq's is called `tests`, too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import zmq

SETTINGS = json.loads(os.environ["PYZMQ_SUITE"])
"""See `Suite.run` of `pyzmq_suite`."""

connected: set[str] = set()
"""How the current test has connected to tcp:// addresses: `tcp`, and `tunnel` if through one."""


def put_in_place() -> None:
    """Make this package's classes those of pyzmq."""
    import tunneledzmq
    from tunneledzmq import SSHOptions, asyncio

    ssh = SETTINGS["ssh"]
    tunneledzmq.install(SSHOptions(**ssh) if ssh else None)
    note_connects(tunneledzmq.TunneledSocket)
    note_connects(asyncio.TunneledSocket)


def note_connects(cls: Any) -> None:
    """Have the sockets of a class note how they connect."""
    connect = cls.connect

    @wraps(connect)
    def noting_connect(self: Any, addr: Any, *args: Any, **kwargs: Any) -> Any:
        result = connect(self, addr, *args, **kwargs)
        if str(addr).removeprefix("b'").startswith("tcp://"):
            connected.update(["tcp", "tunnel"] if self.tunnels else ["tcp"])
            wait_for_logins(self)
        return result

    cls.connect = noting_connect


def wait_for_logins(sock: Any) -> None:
    """Wait until no tunnel of an asyncio socket is connecting, whose connect does not wait.

    The tests give messages a second or less to arrive, and a busy machine takes that for a login.
    """
    deadline = time.monotonic() + 10
    while any(tunnel.state == "connecting" for tunnel in sock.tunnels):
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)


if SETTINGS["ours"]:
    put_in_place()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave only the tests that are to run, and tell their classes what to expect."""
    if SETTINGS["only"] is not None:
        # A module is named where it could not be collected.
        only = set(SETTINGS["only"])
        items[:] = [item for item in items if {item.nodeid, item.nodeid.split("::")[0]} & only]
    names: dict[str, Any] = {"zmq.Context": zmq.Context, "zmq.Socket": zmq.Socket}
    green = sys.modules.get("zmq.green")  # where there is gevent
    if green is not None:
        names |= {"zmq.green.Context": green.Context, "zmq.green.Socket": green.Socket}
    test_cases: set[Any] = {getattr(item, "cls", None) for item in items}
    for test_case in test_cases:
        if getattr(test_case, "_repr_cls", None) in names:
            test_case._repr_cls = names[test_case._repr_cls]._repr_cls
        if hasattr(test_case, "test_timeout_seconds"):
            test_case.test_timeout_seconds = SETTINGS["timeout"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Any:
    """Let each test start afresh."""
    connected.clear()
    result = yield
    # A test of test_log that fails leaves its handler there, and the next ones fail with it.
    logging.getLogger("zmqtest").handlers.clear()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """Add to the report of each test how it connected."""
    report = yield
    report.user_properties += [(kind, True) for kind in connected]
    return report


class Results:
    """Writes down how each test ended and connected, once they have all run."""

    def __init__(self) -> None:
        self.notes: defaultdict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.notes[report.nodeid].update(name for name, _ in report.user_properties)
        if report.when == "call" or report.outcome != "passed":
            self.notes[report.nodeid].add(report.outcome)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.notes[report.nodeid].add("failed")

    def pytest_sessionfinish(self) -> None:
        notes = {test: sorted(noted) for test, noted in self.notes.items()}
        Path(SETTINGS["results"]).write_text(json.dumps(notes))


def pytest_configure(config: pytest.Config) -> None:
    """Have one process write the results."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results())
