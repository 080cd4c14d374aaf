"""Ctrl-C at a bad moment, or a close, leaves no tunnel without a socket."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest
import zmq

import tunneledzmq.asyncio
from tests.logins import arguments_for, options_for
from tests.peers import Peer
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import TunneledContext, TunneledSocket
from tunneledzmq.ssh import tunnel_connection

CONTEXTS = [TunneledContext, tunneledzmq.asyncio.TunneledContext]

FILES = tuple(f"tunneledzmq/{name}.py" for name in ("socket", "asyncio/socket", "ssh"))


def interrupt_at(number: int) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function that raises at the n-th line of `FILES`."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        file = frame.f_code.co_filename.replace("\\", "/")
        if not file.endswith(FILES):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


def is_interrupted(call: Callable[[], object], number: int) -> bool:
    """Press Ctrl-C at the n-th line of `FILES` in a call; tell whether there was one."""
    before = sys.gettrace()
    sys.settrace(interrupt_at(number))
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("way", ["connect", "tunnel_connection"])
@pytest.mark.parametrize("kind", CONTEXTS, ids=["blocking", "asyncio"])
def test_a_connect_may_be_interrupted_at_any_line(
    kind: Any, way: str, openssh: OpenSSHServer, echo: Peer
) -> None:
    def connect(sock: Any) -> None:
        if way == "connect":
            sock.connect(echo.address)
        else:
            tunnel_connection(sock, echo.address, **arguments_for(openssh))

    with kind(ssh=options_for(openssh)) as ctx, ctx.socket(zmq.DEALER) as first:
        first.connect(echo.address)
        wait_until(lambda: first.tunnels[0].state == "up", what="there is a session")
        for number in count(1):
            with ctx.socket(zmq.DEALER) as sock:
                sock.linger = 0
                if not is_interrupted(partial(connect, sock), number):
                    break
        assert number > 20
        wait_until(lambda: ctx.tunnels == first.tunnels, what="no other tunnel is left")
        wait_until(lambda: not ctx._tunnel_pool._begun, what="none is about to be opened")


@pytest.mark.parametrize("kind", CONTEXTS, ids=["blocking", "asyncio"])
def test_a_close_may_be_interrupted_at_any_line(
    kind: Any, openssh: OpenSSHServer, echo: Peer
) -> None:
    with kind(ssh=options_for(openssh)) as ctx, ctx.socket(zmq.DEALER) as first:
        first.connect(echo.address)
        wait_until(lambda: first.tunnels[0].state == "up", what="there is a session")
        for number in count(1):
            sock = ctx.socket(zmq.DEALER)
            sock.connect(echo.address)
            was_interrupted = is_interrupted(sock.close, number)
            sock.close()  # as what cleans up after an exception does
            wait_until(lambda: ctx.tunnels == first.tunnels, what="no other tunnel is left")
            if not was_interrupted:
                break
        assert number > 5


class ClosedMeanwhile(TunneledSocket[bytes]):
    """A socket that another thread closes when libzmq has just connected it."""

    def _connect_past_tunnels(self, addr: str) -> Any:
        manager = super()._connect_past_tunnels(addr)
        closing = threading.Thread(target=self.close)
        closing.start()
        closing.join()
        return manager


def test_another_thread_may_close_the_socket_in_the_middle_of_a_connect(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    with TunneledContext(ssh=options_for(openssh)) as ctx:
        sock = ctx.socket(zmq.DEALER, ClosedMeanwhile)
        sock.connect(echo.address)
        assert sock.closed
        wait_until(lambda: not ctx.tunnels, what="no tunnel is left")
