"""Whose a connection is decides whether it is let in, where the system does not see to that."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from tunneledzmq.gateway.traffic import doorkeeper
from tunneledzmq.gateway.traffic.doorkeeper import Doorkeeper, is_of
from tunneledzmq.shared.system.owner import Connections

ENDS = (("127.0.0.1", 50_000), ("127.0.0.1", 6_000))


def test_only_the_owner_s_end_counts() -> None:
    there, here = ENDS
    assert is_of(7, {(there, here): 7}, ENDS) is True
    assert is_of(7, {(there, here): 8}, ENDS) is False
    # Our own end of it is ours, whoever has the other one.
    assert is_of(7, {(here, there): 7}, ENDS) is None


def test_nobody_is_no_owner() -> None:
    assert is_of(7, {}, ENDS) is None
    assert is_of(7, {ENDS: 0}, ENDS) is None


@pytest.fixture
def accepted() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
        with there, here:
            yield here


def ask(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch, *told: Callable[[], Connections]
) -> bool:
    """Ask whether process 7 has the other end, of a system that tells this, one after the other."""
    answers: SimpleQueue[bool] = SimpleQueue()
    tables = iter(told)
    monkeypatch.setattr(doorkeeper, "connections", lambda: next(tables, told[-1])())
    monkeypatch.setattr(doorkeeper, "_STEP", 0.001)
    Doorkeeper(lambda call: call()).ask(sock, 7, answers.put)
    answer = answers.get(timeout=10)
    for thread in threading.enumerate():
        if thread.name == "tunneledzmq-owners":
            thread.join(10)
    return answer


def test_an_owner_that_is_known_later_is_let_in(
    accepted: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = accepted.getpeername(), accepted.getsockname()

    def silent() -> Connections:
        raise OSError("busy")

    assert ask(accepted, monkeypatch, silent, dict, lambda: {ends: 0}, lambda: {ends: 7})
    assert not ask(accepted, monkeypatch, dict, lambda: {ends: 8})


def test_who_is_never_known_is_refused(
    accepted: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ask(accepted, monkeypatch, dict)


def test_who_has_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def count() -> Connections:
        looks.append(1)
        return {}

    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
        with here:
            there.close()
            assert not ask(here, monkeypatch, count)
    assert len(looks) == 1
