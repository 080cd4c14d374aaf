"""What a socket's monitor tells."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

TOKENS: dict[int, str] = {
    zmq.EVENT_CONNECTED: "C",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "H",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "F",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "P",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "A",
    zmq.EVENT_DISCONNECTED: "D",
    zmq.EVENT_ACCEPTED: "a",
}
"""Those whose order is compared. CONNECT_RETRIED is counted; CLOSED goes with it, and
CONNECT_DELAYED says only that the answer to a connect took time."""

UP = {zmq.EVENT_HANDSHAKE_SUCCEEDED}
UP_RAW = {zmq.EVENT_CONNECTED, zmq.EVENT_ACCEPTED}
"""Where there is no handshake."""

FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
}


_numbers = itertools.count()


def listen(sock: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Return the monitor of a socket.

    By itself pyzmq names it by the socket's descriptor, which another socket may have by now.
    """
    monitor = sock.get_monitor_socket(addr=f"inproc://differential-{next(_numbers)}")
    monitor.linger = 0
    return monitor


@dataclass
class EventLog:
    """What was seen of one address."""

    order: str = ""
    retries: int = 0
    live: int = 0
    """Connections that are up now."""
    reached: int = 0
    """Connections that are there now, whether the other side has greeted or not."""
    connected: bool = False
    """Whether there is to be one."""
    down: float = 0
    """Seconds without one that is to be."""


class Monitor:
    """Reads the events of a socket.

    Args:
        sock: the socket.
        raw: whether it speaks no ZMTP, so that there is no handshake.
    """

    def __init__(self, sock: zmq.Socket[bytes], raw: bool) -> None:
        self._events = listen(sock)
        self._up = UP_RAW if raw else UP
        self._names: dict[str, str] = {}
        # Endpoints that are given up, and those of them to which libzmq has connected even so, as
        # it had something left to send. While the peer is down a tunnel lets it, which plain TCP
        # does not: that alone tells the gateway that libzmq is not through. What comes of it is not
        # compared.
        self._left: set[str] = set()
        self._late: set[str] = set()
        self.logs: dict[str, EventLog] = {}
        self.stopped = False
        self._read = time.monotonic()

    def name(self, endpoint: str, name: str) -> None:
        """Call the endpoint that was connected last by a name.

        Where libzmq took the connect for an earlier one, it may still be another peer's.
        """
        self._let_time_pass()
        self.logs.setdefault(name, EventLog()).connected = True
        if self._names.setdefault(endpoint, name) == name:
            self._left.discard(endpoint)
            self._late.discard(endpoint)

    def read(self) -> None:
        """Note what happened since the last call."""
        if self._events.closed:
            return
        self._let_time_pass()
        while not self.stopped:
            try:
                event = recv_monitor_message(self._events, zmq.DONTWAIT)
            except zmq.Again:
                return
            self._note(event["event"], event["endpoint"].decode().rstrip("\0"))

    def _let_time_pass(self) -> None:
        passed = time.monotonic() - self._read
        self._read += passed
        for log in self.logs.values():
            if log.connected and not log.live:
                log.down += passed

    def live(self) -> Counter[str]:
        """Return how many connections each address has."""
        return Counter({name: log.live for name, log in self.logs.items() if log.live})

    def reaches(self, name: str) -> bool:
        """Tell whether there is a connection to an address, if only one without a greeting."""
        return name in self.logs and self.logs[name].reached > 0

    def forget(self, name: str) -> None:
        """Have it that there is to be no connection to an address any more."""
        self._left |= {endpoint for endpoint, known in self._names.items() if known == name}
        if name in self.logs:
            log = self.logs[name]
            log.connected, log.live, log.reached = False, 0, 0

    def close(self) -> None:
        self._events.close(0)

    def _note(self, event: int, endpoint: str) -> None:
        if event == zmq.EVENT_MONITOR_STOPPED:
            self.stopped = True
            return
        log = self.logs.setdefault(self._names.get(endpoint, endpoint), EventLog())
        if event == zmq.EVENT_CONNECT_RETRIED and log.connected:
            log.retries += 1
        if event not in TOKENS:
            return
        if event == zmq.EVENT_CONNECTED and endpoint in self._left:
            self._late.add(endpoint)
        if endpoint in self._late:
            return
        log.order += TOKENS[event]
        if event == zmq.EVENT_CONNECTED:
            log.reached += 1
        elif event == zmq.EVENT_DISCONNECTED or event in FAILED:
            log.reached = max(0, log.reached - 1)
        if event == zmq.EVENT_DISCONNECTED:
            log.live = max(0, log.live - 1)
        elif event in self._up:
            log.live += 1
