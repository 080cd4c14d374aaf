"""What the directed cases look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from tests.differential.run import error
from tests.polling import wait_until


def received(sock: zmq.Socket[bytes], at_most: int = 100_000, quiet: float = 0.5) -> list[bytes]:
    """Receive until nothing more comes for a while; return the last frames."""
    messages: list[bytes] = []
    while len(messages) < at_most and sock.poll(int(quiet * 1000)):
        messages.append(sock.recv_multipart()[-1])
    return messages


def events(
    monitor: zmq.Socket[bytes], quiet: float = 0.2, seconds: float = 10, at_most: int = 100_000
) -> list[zmq.Event]:
    """Return the events until none comes for a while, but not the sign that a connect takes time.

    Whether there is one depends on the transport.
    """
    found: list[zmq.Event] = []
    deadline = time.monotonic() + seconds
    while len(found) < at_most and time.monotonic() < deadline and monitor.poll(int(quiet * 1000)):
        event = recv_monitor_message(monitor)["event"]
        if event != zmq.Event.CONNECT_DELAYED:
            found.append(zmq.Event(event))
        if event == zmq.Event.MONITOR_STOPPED:
            break
    return found


def heard(peer: zmq.Socket[bytes], topics: int = 1, timeout: float = 3) -> bool:
    """Tell whether an XPUB is asked for as many topics in time."""
    deadline = time.monotonic() + timeout
    while topics and peer.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        topics -= peer.recv()[0]
    return not topics


def attempt(call: Callable[..., object], *args: Any) -> str:
    """Return what a program can tell of a call."""
    try:
        call(*args)
    except Exception as exc:
        return error(exc)
    return "ok"


def soon(condition: Callable[[], object], timeout: float = 5) -> bool:
    """Tell whether a condition comes to hold in time."""
    try:
        wait_until(condition, timeout)
    except AssertionError:
        return False
    return True
