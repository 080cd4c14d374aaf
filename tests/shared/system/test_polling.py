"""Gateways whose selector does not see what another thread registers while it waits."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.conftest import use_selector
from tests.peers import Peer, numbered, round_trip
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.gateway.traffic.pump import READ, Pump

Remote = Callable[..., Peer]

KINDS = [name for name in ("PollSelector", "SelectSelector") if hasattr(selectors, name)]


@pytest.fixture(params=KINDS)
def selector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    use_selector(name, monkeypatch)
    return name


@pytest.mark.usefixtures("selector")
def test_the_second_tunnel_of_a_gateway_has_traffic(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    for _ in range(5):
        sock = any_ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=openssh_options)
        round_trip(sock)


@pytest.mark.usefixtures("selector")
def test_both_directions_flow_at_once(
    any_ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    collector, source = remote("collector"), remote("source")
    push, pull = any_ctx.socket(zmq.PUSH), any_ctx.socket(zmq.PULL)
    push.connect(collector.address, ssh=openssh_options)
    pull.connect(source.address, ssh=openssh_options)
    source.send(500, size=100_000)
    for number in range(500):
        push.send(numbered(number, 100_000))
        assert pull.recv() == numbered(number, 100_000)
    assert collector.wait_for(messages=500)["gaps"] == 0


@pytest.mark.usefixtures("selector")
def test_a_session_that_was_killed_heals(
    any_ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.req_relaxed = sock.req_correlate = True
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    openssh.kill_sessions()
    sock.rcvtimeo = 500
    for _ in range(20):
        sock.send(b"again")
        if sock.poll(500):
            assert sock.recv() == b"again"
            return
    pytest.fail("no answer over a new session")


class Far:
    """One end of a pair of sockets, in a pump."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.heard = threading.Event()

    def fileno(self) -> int:
        return self.near.fileno()

    def ready(self, events: int) -> None:
        self.near.recv(100)
        self.heard.set()

    def close(self) -> None:
        self.near.close()
        self.far.close()


def test_what_select_is_about_to_wait_for_may_be_closed() -> None:
    """It takes the descriptors first, and then the kernel looks at them."""
    pump, source = Pump(), Far()

    class Late(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> Any:
            if source.fileno() >= 0:
                source.near.close()
                return super().select(timeout)
            return []

    pump.watch(source, READ)
    late = Late()
    late.register(source, READ)
    pump._selector.close()
    pump._selector = late
    assert not pump.run_once(1)
    source.close()
    pump.close()


def test_a_pump_hears_what_is_watched_while_it_waits(selector: str) -> None:
    pump = Pump()
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            pump.run_once(10)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            source = Far()
            time.sleep(0.01)  # the pump waits by then, mostly
            with pump.lock:
                pump.watch(source, READ)
            source.far.send(b"x")
            assert source.heard.wait(5)
            with pump.lock:
                pump.forget(source)
            source.close()
    finally:
        ended.set()
        last = Far()
        with pump.lock:
            pump.watch(last, READ)
        last.far.send(b"x")
        thread.join(20)
        last.close()
        pump.close()
    assert not thread.is_alive()
