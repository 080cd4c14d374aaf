"""The connection to a server, and what its errors say."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from tests.faults.injection import hostile_port
from tests.polling import wait_until
from tunneledzmq.gateway.attempt import Attempt
from tunneledzmq.gateway.login import HUNG_UP, Login, LoginError
from tunneledzmq.gateway.reach import connect as module
from tunneledzmq.gateway.reach.connect import connect
from tunneledzmq.shared.system.polling import look_at


@pytest.fixture
def connected() -> threading.Event:
    """Set as soon as the connection is there."""
    return threading.Event()


@pytest.fixture
def login(connected: threading.Event) -> Iterator[Login]:
    """Leads to a port where each connection is reset."""

    def reset(sock: socket.socket) -> None:
        connected.wait(5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    with hostile_port(reset) as port:
        yield Login(server=f"me@127.0.0.1:{port}", host="127.0.0.1", port=port, user="me")


@pytest.fixture
def attempt(login: Login) -> Attempt:
    return Attempt(Mock(), login.given_up)


def test_a_connection_may_be_reset_before_it_is_looked_at(
    login: Login, attempt: Attempt, connected: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_reset(sock: socket.socket, patience: float) -> None:
        connected.set()
        wait_until(lambda: look_at(sock)[0])

    monkeypatch.setattr(module, "watch_peer", wait_for_reset)
    with connect(login, attempt) as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    attempt.questions.tell.assert_called_with(  # type: ignore[attr-defined]
        "connect", f"127.0.0.1 port {login.port}"
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ECONNRESET, HUNG_UP),
        (errno.EMFILE, "; raise the limit of open files (ulimit -n)"),
        (errno.ENETUNREACH, f"cannot be reached: {os.strerror(errno.ENETUNREACH)}"),
    ],
    ids=["reset", "no descriptor", "unreachable"],
)
def test_a_connection_that_fails_says_what_to_do(
    code: int,
    text: str,
    login: Login,
    attempt: Attempt,
    connected: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(sock: socket.socket, *_: Any) -> None:
        connected.set()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, "watch_peer", fail)
    with pytest.raises(LoginError) as caught:
        connect(login, attempt)
    assert caught.value.message.endswith(text)
    assert caught.value.errno == code
