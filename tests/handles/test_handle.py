"""What the program holds of a gateway, told by the gateway's words alone."""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest

from tests.stepping import interrupted_at_line
from tunneledzmq import GatewayError, SSHConnectionError, SSHOptions
from tunneledzmq.handles import home
from tunneledzmq.handles.handle import GatewayHandle, HandleEnded
from tunneledzmq.handles.reply import Reply
from tunneledzmq.shared.control import ControlChannel
from tunneledzmq.shared.system import fork
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


def test_whoever_hears_of_the_end_may_end_the_program(handle: Any) -> None:
    """There is nothing left to be removed by then."""
    reply = handle._opening[1] = Reply()
    heard = []
    handle._directory.remove = lambda: heard.append(reply.wait(0))
    handle._end(GatewayError(errno.EPIPE, "killed by signal 9"))
    assert heard == [False]
    with pytest.raises(GatewayError):
        reply.wait(0)


@pytest.mark.parametrize("closing", [False, True])
def test_a_tunnel_that_fails_ends_with_its_connect(handle: Any, closing: bool) -> None:
    """Not before: a program that sees the end would look for the error in vain."""
    tunnel = Tunnel("tcp://10.0.1.2:5555", SSHOptions("bastion"))
    tunnel._id, handle._tunnels[1], reply = 1, tunnel, Reply()
    handle._opening[1] = reply
    if closing:
        tunnel._cut()
    error = {"kind": "SSHConnectionError", "errno": 111, "message": "refused"}
    handle._handle({"type": "failed", "id": 1, "error": error})
    assert tunnel.state == ("closed" if closing else "connecting")
    assert not handle._tunnels
    with pytest.raises(SSHConnectionError):
        reply.wait(1)


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


def use_undivided() -> None:
    with fork.undivided():
        pass


class NoHops:
    def finish(self, tunnel: Tunnel, *, isolate: bool) -> None:
        raise AssertionError("nobody asks for one")


def starting(*, isolate: bool) -> GatewayHandle:
    options = SSHOptions("bastion", config_file=None, agent=False)
    return GatewayHandle(options, NoHops(), isolate=isolate)


@pytest.mark.parametrize("isolate", [True, False], ids=["in a process", "on a thread"])
@pytest.mark.parametrize(
    ("runs", "error", "raised"),
    [
        (False, RuntimeError("can't start new thread"), GatewayError),
        (False, KeyboardInterrupt(), KeyboardInterrupt),
        (True, KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["no thread left", "ctrl-c", "ctrl-c, late"],
)
def test_a_start_that_ends_with_its_thread_leaves_nothing(
    runs: bool,
    error: BaseException,
    raised: type[BaseException],
    isolate: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name != "tunneledzmq-control":
            real(self)
            return
        if runs:
            real(self)
        raise error

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(raised):
        starting(isolate=isolate)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestWarning")
def test_ctrl_c_at_any_moment_of_a_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "_PATIENCE", 0.1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    moment, made = 0, []
    while not made:
        with suppress(KeyboardInterrupt):
            interrupted_at_line(moment, lambda: made.append(starting(isolate=False)), interrupt)
        moment += 1
    made[0]._control.shutdown()
    assert moment > 100
    # Nor is anybody kept from a start, or a fork, for long.
    with ThreadPoolExecutor(1) as other:
        other.submit(use_undivided).result()
        monkeypatch.undo()
        start = time.monotonic()
        other.submit(use_undivided).result()
    assert time.monotonic() - start < 1
