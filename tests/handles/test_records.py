"""Handlers of log records are the program's code, and never run where a gateway is heard."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
import zmq

from tests.faults.injection import kill_session
from tests.logins import arguments_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.handles import records
from tunneledzmq.handles.handle import GatewayHandle
from tunneledzmq.handles.records import Records

logger = logging.getLogger("tunneledzmq")


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What threads raise."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    return found


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise zmq.ZMQError(zmq.ENOTSOCK)


def test_records_come_in_order_and_whoever_waits_has_seen_them() -> None:
    calls, seen = Records(), []
    for number in range(1000):
        calls.put(lambda number=number: seen.append(number))  # type: ignore[misc]
    calls.settle()
    assert seen == list(range(1000))
    wait_until(lambda: calls._thread is None)
    calls.put(lambda: seen.append(1000))
    calls.settle()
    assert seen[-1] == 1000


def test_a_handler_that_is_stuck_holds_nobody_up_for_long() -> None:
    calls, go_on, seen = Records(), threading.Event(), []
    calls.put(lambda: go_on.wait(10))  # type: ignore[arg-type,return-value]
    calls.put(lambda: seen.append("late"))
    start = time.monotonic()
    calls.settle()
    calls.end()
    assert time.monotonic() - start < 2
    assert not seen
    go_on.set()
    calls.settle()
    assert seen == ["late"]


def test_without_threads_the_end_of_the_program_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls, seen = Records(), []
    monkeypatch.setattr(threading.Thread, "start", none_left)
    calls.put(lambda: seen.append("first"))
    calls.settle()
    assert not seen
    calls.end()
    assert seen == ["first"]


def test_a_handler_that_raises_ends_nothing(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    raised: list[Any],
) -> None:
    """Such as pyzmq's PUBHandler, whose socket is closed."""
    handler = Raising()
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    logger.addHandler(handler)
    try:
        kill_session(openssh)
        wait_until(lambda: raised)
        wait_until(lambda: sock.tunnels[0].reconnects == 1 and sock.tunnels[0].state == "up")
    finally:
        logger.removeHandler(handler)
    round_trip(sock)
    start = time.monotonic()
    with ctx.socket(zmq.REQ) as other:
        other.connect(echo.address, ssh=openssh_options)
        round_trip(other)
    assert time.monotonic() - start < 2
    records.settle()
    assert all(isinstance(each.exc_value, zmq.ZMQError) for each in raised)


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_handler_may_connect_through_a_tunnel(
    level: int, openssh: OpenSSHServer, echo: Peer
) -> None:
    """Also in a record of the gateway's that is over for whoever connects."""
    output = run_program(
        """
        import logging, time
        ctx = TunneledContext()
        class Handler(logging.Handler):
            sock = None
            def emit(self, record):
                if self.sock is None:
                    self.sock = ctx.socket(zmq.REQ)
                    self.sock.linger = 0
                    self.sock.rcvtimeo = 5_000
                    self.sock.connect(addr, ssh=options)
                    self.sock.send(b"hello")
                    assert self.sock.recv() == b"hello"
        handler = Handler()
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(level)
        start = time.monotonic()
        logging.warning("first")
        assert time.monotonic() - start < 4
        handler.sock.close()
        ctx.term()
        print("fine")
        """,
        options=arguments_for(openssh),
        addr=echo.address,
        level=level,
        timeout=15,
    )
    assert output == "fine\n"


def test_what_was_logged_in_a_connect_is_logged_when_it_returns(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "tunneledzmq"):
        ctx.socket(zmq.REQ).connect(echo.address, ssh=openssh_options)
        steps = [record.step.name for record in caplog.records if hasattr(record, "step")]
    assert "authenticate" in steps


def test_a_fault_of_our_own_ends_the_gateway_and_the_next_one_serves(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    echo: Peer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    real = GatewayHandle._handle

    def faulty(self: GatewayHandle, message: Any) -> None:
        if message["type"] == "stats":
            monkeypatch.setattr(GatewayHandle, "_handle", real)
            raise KeyError("nonsense")
        real(self, message)

    monkeypatch.setattr(GatewayHandle, "_handle", faulty)
    sock.tunnels[0].stats()
    wait_until(lambda: sock.tunnels[0].reconnects == 1 and sock.tunnels[0].state == "up")
    round_trip(sock)
    records.settle()
    assert "the gateway was given up (KeyError: 'nonsense')" in caplog.text


def test_a_hop_that_is_asked_for_while_there_are_no_threads_is_had_later(
    openssh: OpenSSHServer, echo: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start
    refused = threading.Event()

    def start(self: threading.Thread) -> None:
        if self.name == "tunneledzmq-answer" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        real(self)

    fields = arguments_for(openssh)
    options = SSHOptions(**fields, jump=SSHOptions(**fields, connect_timeout=11))
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.linger, sock.rcvtimeo = 0, 10_000
        sock.connect(echo.address, ssh=options)
        monkeypatch.setattr(threading.Thread, "start", start)
        kill_session(openssh)
        assert refused.wait(10)
        round_trip(sock)
        with ctx.socket(zmq.REQ) as other:
            other.connect(echo.address, ssh=options)
            round_trip(other)
