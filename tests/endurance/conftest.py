"""What the cases have in common: how long they last, and both backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from tests.sshd import OpenSSHServer

SPARE = 60
"""Seconds that a case may take beyond those for which it sleeps."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lasts(seconds): how long a case of endurance sleeps")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each case its time, and begin with those that last longest."""
    cases = {item: _lasts(item) for item in items if Path(__file__).parent in item.path.parents}
    for item, seconds in cases.items():
        item.add_marker(pytest.mark.timeout(seconds + SPARE))
    # With fewer cases than twice the workers, xdist deals them out one by one: those that share a
    # worker are then a long one and a short one.
    items.sort(key=lambda item: -cases.get(item, 0))


def _lasts(item: pytest.Item) -> int:
    marker = item.get_closest_marker("lasts")
    assert marker is not None, f"{item.nodeid} does not say how long it lasts"
    return int(marker.args[0])


@pytest.fixture(autouse=True)
def both_backends(backend: str) -> str:
    """All that is promised holds with each of them."""
    return backend


@pytest.fixture(scope="session")
def chain(need_sshd: None) -> Iterator[list[OpenSSHServer]]:
    """Three servers, one behind the other."""
    with ExitStack() as servers:
        yield [servers.enter_context(OpenSSHServer()) for _ in range(3)]


@pytest.fixture
def far() -> Iterator[Callable[[int], zmq.Socket[bytes]]]:
    """Makes the sockets of peers in this process, which are closed with the test."""
    ctx = zmq.Context()
    socks = []

    def make(kind: int) -> zmq.Socket[bytes]:
        sock = ctx.socket(kind)
        sock.rcvtimeo = 10_000
        socks.append(sock)
        return sock

    yield make
    ctx.destroy(linger=0)
