"""What the program holds of a gateway, told by the gateway's words alone."""

from __future__ import annotations

import errno
import threading
from typing import Any
from unittest.mock import Mock

import pytest

from tunneledzmq import GatewayError, SSHOptions
from tunneledzmq.handles import home
from tunneledzmq.handles.handle import GatewayHandle, HandleEnded
from tunneledzmq.handles.reply import Reply
from tunneledzmq.tunnel import Tunnel


@pytest.fixture
def handle() -> Any:
    """One without a gateway."""
    made: Any = object.__new__(GatewayHandle)
    made._lock = threading.Lock()
    made._ended = made._said_bye = False
    made._tunnels, made._closing, made._opening, made._asking = {}, {}, {}, {}
    made._directory, made._answers = Mock(), Mock()
    return made


def test_a_gateway_that_ends_does_not_end_what_another_one_is_to_open(handle: Any) -> None:
    """Whichever thread is faster: the one that hears of the end, or the one that waits."""
    tunnel, last = (Tunnel("tcp://10.0.1.2:5555", SSHOptions("bastion")) for _ in range(2))
    handle._tunnels.update({1: last, 2: tunnel})
    reply = handle._opening[2] = Reply()
    handle._handle({"type": "bye"})
    handle._end(HandleEnded())
    with pytest.raises(HandleEnded):
        reply.wait(1)
    assert tunnel.state == "connecting"
    assert last.state == "closed"


def test_why_no_gateway_is_started_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(home._MARK, "1")
    with pytest.raises(GatewayError, match=r"^this process was started to be a gateway") as caught:
        GatewayHandle(SSHOptions("bastion"), (), isolate=True)
    assert caught.value.errno == errno.ELOOP
