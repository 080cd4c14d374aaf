"""Ctrl-C at a bad moment leaves no tunnel without a socket."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import zmq

import tunneledzmq.asyncio
from tests.logins import options_for
from tests.peers import Peer
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import TunneledContext

CONTEXTS = [TunneledContext, tunneledzmq.asyncio.TunneledContext]


def interrupt_at(number: int) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function that raises at the n-th line of the package's sockets."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        file = frame.f_code.co_filename.replace("\\", "/")
        if not file.endswith(("/tunneledzmq/socket.py", "tunneledzmq/asyncio/socket.py")):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


@pytest.mark.parametrize("kind", CONTEXTS, ids=["blocking", "asyncio"])
def test_a_connect_may_be_interrupted_at_any_line(
    kind: Any, openssh: OpenSSHServer, echo: Peer
) -> None:
    with kind(ssh=options_for(openssh)) as ctx, ctx.socket(zmq.DEALER) as first:
        first.connect(echo.address)
        wait_until(lambda: first.tunnels[0].state == "up", what="there is a session")
        interrupted = True
        number = 0
        while interrupted:
            number += 1
            with ctx.socket(zmq.DEALER) as sock:
                sock.linger = 0
                before = sys.gettrace()
                sys.settrace(interrupt_at(number))
                try:
                    sock.connect(echo.address)
                    interrupted = False
                except KeyboardInterrupt:
                    pass
                finally:
                    sys.settrace(before)
        assert number > 20
        wait_until(lambda: ctx.tunnels == first.tunnels, what="no other tunnel is left")
        wait_until(lambda: not ctx._pool._begun, what="none is about to be opened")
