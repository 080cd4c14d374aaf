"""The steps of a check."""

from __future__ import annotations

import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ..endpoints import parse_remote
from ..exceptions import HostKeyError, SSHAuthenticationError, TunnelError
from ..handles.handle import Step
from ..handles.pool import GatewayPool
from ..options import SSHOptions
from ..shared.system.leg import connect_to
from ..tunnel import Tunnel
from .zmtp import NotZMTP, greet

__all__ = ["STEPS", "Check", "Outcome"]

LOGIN_STEPS = ("resolve", "connect", "banner", "host key", "authenticate")
STEPS = (*LOGIN_STEPS, "forward", "zmtp", "round trip")

_ROUND_TRIPS = 5

# Seconds for what has no timeout of its own.
_TIMEOUT = 10.0

# Seconds between looks at what the gateway says of a tunnel.
_LOOK = 0.01

_logger = logging.getLogger("tunneledzmq")


@dataclass(frozen=True)
class Outcome:
    """How a step went."""

    name: str
    ok: bool
    seconds: float | None
    detail: str
    """What was found; or what is wrong, and what to do."""


class _Failed(Exception):
    """A step failed; the message says what to do."""


class Check(logging.Handler):
    """A check of the way to an address.

    It is the gateway's own login, whose steps come as log records, and a connection of our own
    through the tunnel.

    Args:
        addr: the peer's, as the server sees it.
        options: how to log in to the server.
        tell: called with the outcome of each step, in order; the last one may have failed.

    Raises:
        ValueError: `addr` is malformed.
    """

    def __init__(self, addr: str, options: SSHOptions, tell: Callable[[Outcome], None]) -> None:
        super().__init__(logging.DEBUG)
        self._remote = parse_remote(addr)
        self._options = options
        self._timeout = options.connect_timeout or _TIMEOUT
        self._tell = tell
        self._pool = GatewayPool()

        # What the gateway has done.
        self._done: list[str] = []
        self._forwarded = threading.Event()
        # The connection through the tunnel, and what closes it.
        self._sock: socket.socket
        self._ends = ExitStack()

    def run(self) -> bool:
        """Do one step after the other; tell whether all went well."""
        level = _logger.level
        _logger.setLevel(logging.DEBUG)
        _logger.addHandler(self)
        try:
            return self._run()
        finally:
            _logger.removeHandler(self)
            _logger.setLevel(level)
            self._ends.close()
            self._pool.shutdown()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a step of the gateway from its log record (logging's seam)."""
        step = getattr(record, "step", None)
        if not isinstance(step, Step) or getattr(record, "options", None) != self._options:
            return  # of a hop, perhaps
        if step.name in LOGIN_STEPS:
            self._done.append(step.name)
            # Whoever cannot be told is not, and the gateway's thread goes on: the next outcome that
            # is told by the thread that checks raises it.
            with suppress(OSError):
                self._tell(Outcome(step.name, True, step.seconds, step.detail))
        else:
            self._forwarded.set()

    def _run(self) -> bool:
        try:
            tunnel = Tunnel(str(self._remote), self._options)
            self._pool.open(tunnel)
        except TunnelError as exc:
            self._tell(Outcome(self._culprit(exc), False, None, str(exc.strerror)))
            return False
        for name, step in (
            ("forward", self._forward),
            ("zmtp", self._greet),
            ("round trip", self._round_trip),
        ):
            start = time.monotonic()
            try:
                seconds, detail = step(tunnel)
            except (_Failed, NotZMTP, OSError) as exc:
                self._tell(Outcome(name, False, time.monotonic() - start, str(exc)))
                return False
            self._tell(Outcome(name, True, seconds, detail))
        return True

    def _culprit(self, error: TunnelError) -> str:
        """Name the step that `error` belongs to."""
        if isinstance(error, HostKeyError):
            return "host key"
        if isinstance(error, SSHAuthenticationError):
            return "authenticate"
        return next((name for name in LOGIN_STEPS if name not in self._done), LOGIN_STEPS[-1])

    def _connect(self, tunnel: Tunnel) -> socket.socket:
        return connect_to(tunnel.local, self._timeout)

    def _forward(self, tunnel: Tunnel) -> tuple[float, str]:
        start = time.monotonic()
        self._sock = self._ends.enter_context(self._connect(tunnel))
        while not self._forwarded.wait(_LOOK):
            if tunnel.last_error is not None:
                raise _Failed(tunnel.last_error)
            if time.monotonic() - start > self._timeout:
                raise _Failed(
                    f"{tunnel.server}: {self._remote.host}:{self._remote.port}: the server "
                    f"did not get there within {self._timeout:g} s: is that host up, and does "
                    "a firewall let the server through?"
                )
        return time.monotonic() - start, str(self._remote)

    def _greet(self, tunnel: Tunnel) -> tuple[float, str]:
        start = time.monotonic()
        detail = greet(self._sock, self._timeout).speaks
        self._ends.close()
        return time.monotonic() - start, detail

    def _round_trip(self, tunnel: Tunnel) -> tuple[float, str]:
        ping = self._ping_peer if self._options.backend == "openssh" else self._ping
        times = [ping(tunnel) for _ in range(_ROUND_TRIPS)]
        answered = [seconds for seconds in times if seconds is not None]
        if len(answered) < _ROUND_TRIPS:
            raise _Failed(f"{tunnel.server}: the server does not answer any more")
        whither = ", to the peer and back" if self._options.backend == "openssh" else ""
        return statistics.median(answered), f"median of {_ROUND_TRIPS}{whither}"

    def _ping(self, tunnel: Tunnel) -> float | None:
        handle = tunnel._handle
        assert handle is not None
        return handle.ping(self._timeout)

    def _ping_peer(self, tunnel: Tunnel) -> float | None:
        """Time the peer's part of the greeting: ssh does not tell how long an answer takes."""
        with self._connect(tunnel) as sock:
            try:
                return greet(sock, self._timeout).round_trip
            except NotZMTP:
                return None
