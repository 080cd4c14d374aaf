"""A tunnel, as the program sees it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple, Protocol

from .options import SSHOptions
from .shared.control import How
from .shared.pace import Pace

__all__ = [
    "Closing",
    "GivenUp",
    "Handle",
    "Owner",
    "State",
    "Tunnel",
    "TunnelStats",
    "state_of",
]


class GivenUp(Exception):
    """A tunnel was closed before it was up."""


class Closing(NamedTuple):
    """How libzmq gives a tunnel up."""

    linger: int
    """Milliseconds for which libzmq may go on sending; -1 for ever."""

    how: How

    @property
    def at_once(self) -> bool:
        """Whether nothing is owed to the peer."""
        return self.how is How.CUT


@dataclass(frozen=True)
class TunnelStats:
    """What went through a tunnel so far."""

    bytes_sent: int = 0
    """Bytes that the server was sent for the peer."""

    bytes_received: int = 0
    """Bytes that came from the peer."""

    connections_open: int = 0
    """Connections of ZeroMQ that are open now."""

    connections_total: int = 0
    """Connections of ZeroMQ since the tunnel was opened."""


class State(Enum):
    """The states of a :class:`Tunnel`, by the names that :attr:`Tunnel.state` has for them."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    CLOSING = "closing"
    CLOSED = "closed"


def state_of(*, ended: bool, closing: bool, opened: bool, working: bool) -> State:
    """Return the state of a tunnel, by what is known of it.

    Each of these facts has one place that establishes it, and the first two are never taken back.
    So it does not matter which of several threads tells one of them first.

    ===================================================  ==========
    the first of these that holds                        state
    ===================================================  ==========
    the gateway has ended it, or failed to open it       CLOSED
    the program has given it up                          CLOSING
    the gateway has not opened it yet                    CONNECTING
    there is a session, and a local endpoint             UP
    otherwise                                            DOWN
    ===================================================  ==========
    """
    if ended:
        return State.CLOSED
    if closing:
        return State.CLOSING
    if not opened:
        return State.CONNECTING
    return State.UP if working else State.DOWN


class Handle(Protocol):
    """What the program holds of a gateway, as its tunnels see it."""

    options: SSHOptions
    server: str
    """``user@host:port``, or as it was written until the gateway knows."""

    @property
    def pid(self) -> int | None:
        """Process id of the gateway, if it has a process of its own."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the gateway takes no tunnels any more."""
        ...

    def close(self, tunnel: Tunnel, closing: Closing) -> None:
        """Close a tunnel as soon as libzmq is through with it. Never waits."""
        ...

    def stats(self, tunnel: Tunnel) -> TunnelStats:
        """Ask for a tunnel's counters."""
        ...

    def ping(self, timeout: float) -> float | None:
        """Ask the SSH server for an answer; return the seconds that it took, if it came."""
        ...


class Owner(Protocol):
    """Whose sockets use a tunnel: those of a context, or of none."""

    @property
    def terminated(self) -> bool:
        """Whether libzmq has closed all its sockets."""
        ...

    def refuses(self, tunnel: Tunnel) -> bool:
        """Tell whether a tunnel is opened no more: the context terminates."""
        ...


class Tunnel:
    """The way of one socket to one address, through an SSH server. Read-only.

    Its states:

        connecting -> up <-> down
             |         |      |
             +---------+------+-> closing -> closed
    """

    # Told of the tunnels of this process' sockets: that the peer is reached, or why it is not. May
    # be called on any thread.
    _on_news: ClassVar[Callable[[Tunnel, str | None], None] | None] = None

    def __init__(
        self,
        remote: str,
        options: SSHOptions,
        local: str = "",
        listener: socket.socket | None = None,
        user: Handle | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._remote = remote
        self._options = options
        # Whose session goes through it, where it is no socket's connections that do.
        self._user = user
        # Where there is none, nobody asks whether the server reaches the peer.
        self._pace = pace

        # Set by the pool that opens it, and by the handle when the owner's context has terminated.
        self._owner: Owner | None = None
        self._terminated = False

        # Set by the handle that takes it.
        self._handle: Handle | None = None
        self._id = 0

        # The process that alone may use the local leg, where the system does not see to that.
        self._process: int | None = None

        # What listens on the local endpoint before the gateway does.
        self._listener = listener

        # What its state follows from. Whoever gives it up sets the first, the handle the others,
        # as the gateway reports.
        self._closing: Closing | None = None
        self._ended = False
        self._opened = False
        self._has_session = False
        self._has_endpoint = True

        # Set by the handle as the gateway reports.
        self._local = local
        self._last_error: str | None = None
        # What keeps it from working now.
        self._trouble: str | None = None
        self._reconnects = 0
        self._stats = TunnelStats()

    @property
    def remote(self) -> str:
        """The peer's endpoint as the server sees it: ``tcp://10.0.1.2:5555``."""
        return self._remote

    @property
    def server(self) -> str:
        """The SSH server: ``me@bastion:22``."""
        return self._options.server if self._handle is None else self._handle.server

    @property
    def local(self) -> str:
        """The endpoint that ZeroMQ is connected to."""
        return self._local

    @property
    def state(self) -> str:
        """``"connecting"``, ``"up"``, ``"down"`` (reconnecting), ``"closing"`` or ``"closed"``."""
        return state_of(
            ended=self._ended,
            closing=self._closing is not None,
            opened=self._opened,
            working=self._has_session and self._has_endpoint,
        ).value

    @property
    def last_error(self) -> str | None:
        """What failed last; kept after the recovery."""
        return self._last_error

    @property
    def reconnects(self) -> int:
        """How often the SSH session was set up again."""
        return self._reconnects

    def stats(self) -> TunnelStats:
        """Ask the gateway for the counters; after the end, those of the end."""
        return self._stats if self._handle is None else self._handle.stats(self)

    def _note(self, trouble: str | None) -> None:
        """Tell that the server reaches the peer, or why not."""
        if Tunnel._on_news is not None and self._user is None:
            Tunnel._on_news(self, trouble)

    def _close(self, linger: int, how: How) -> None:
        """Close it as soon as libzmq is through with it (see `Closing`). Never waits."""
        self._closing = Closing(linger, how)
        # The thread that opens it sets the handle first, and looks for what was noted here then.
        if self._handle is not None:
            self._handle.close(self, self._closing)

    def _cut(self) -> None:
        """Close it at once: nothing is owed to anybody. Never waits."""
        self._close(0, How.CUT)

    def _cut_if_open(self) -> None:
        if self.state not in ("closing", "closed"):
            self._cut()

    def __repr__(self) -> str:
        state = self.state
        why = self._last_error if state == State.DOWN.value else self._trouble
        # Both stand there already.
        for known in (self.server, self.remote.removeprefix("tcp://")):
            why = why and why.removeprefix(f"{known}: ")
        return f"<Tunnel {self.remote} via {self.server} [{state}{f': {why}' if why else ''}]>"
