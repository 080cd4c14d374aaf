"""What the program holds of a gateway, told by the gateway's words alone."""

from __future__ import annotations

import errno
import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest

from tunneledzmq import GatewayError, SSHOptions
from tunneledzmq.handles import home
from tunneledzmq.handles.handle import GatewayHandle, HandleEnded
from tunneledzmq.handles.reply import Reply
from tunneledzmq.shared.control import ControlChannel
from tunneledzmq.shared.system.descriptors import socketpair
from tunneledzmq.tunnel import Tunnel


@pytest.fixture
def handle() -> Any:
    """One without a gateway."""
    made: Any = object.__new__(GatewayHandle)
    made._lock = threading.Lock()
    made._ended = made._said_bye = False
    made._tunnels, made._closing, made._opening, made._asking = {}, {}, {}, {}
    made._directory, made._answers = Mock(), Mock()
    made._lost_at = None
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


def test_a_gateway_that_speaks_before_it_listens_is_restarted(
    handle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more tunnels than the control pipe holds requests, and more words than it holds."""
    many = 3_000
    ours, theirs = map(ControlChannel, socketpair())
    for number in range(many):
        tunnel = Tunnel("tcp://10.0.1.2:5555", SSHOptions("bastion"), "ipc:///tmp/leg")
        tunnel._id, tunnel._opened = number, True
        handle._tunnels[number] = tunnel
    handle.server, handle._wakers = "bastion", None
    handle._deaths = handle._reconnects = handle._reconnects_before = 0
    monkeypatch.setattr(handle, "_start", lambda: (ours, Mock()))
    heard: list[dict[str, Any]] = []

    def gateway() -> None:
        for number in range(many):
            theirs.send({"type": "trouble", "id": number, "message": "x" * 300})
        while len(heard) < many:
            heard.extend(theirs.receive() or [])

    speaking = threading.Thread(target=gateway, daemon=True)
    speaking.start()
    start = time.monotonic()
    assert handle._restart("killed by signal 9")
    assert time.monotonic() - start < 5
    while not all(tunnel._trouble for tunnel in handle._tunnels.values()):
        for message in ours.receive() or []:
            handle._handle(message)
    speaking.join(5)
    assert [message["id"] for message in heard] == list(range(many))
    ours.close()
    theirs.close()
