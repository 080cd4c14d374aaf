"""A tunnel, as the program sees it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .handle import GatewayHandle

__all__ = ["Closing", "GivenUp", "Tunnel", "TunnelStats"]


class GivenUp(Exception):
    """A tunnel was closed before it was up."""


class Closing(NamedTuple):
    """How libzmq gives a tunnel up."""

    linger: int
    """Milliseconds for which libzmq may go on sending; -1 for ever."""

    grace: float
    """Seconds without a connection after which libzmq will not come back."""

    @property
    def at_once(self) -> bool:
        """Whether nothing is owed to the peer."""
        return not self.linger and not self.grace


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


class Tunnel:
    """The way of one socket to one address, through an SSH server. Read-only.

    ::

        connecting -> up <-> down
             |         |      |
             +---------+------+-> closing -> closed
    """

    def __init__(
        self,
        remote: str,
        server: str,
        local: str = "",
        listener: socket.socket | None = None,
        user: GatewayHandle | None = None,
    ) -> None:
        self._remote = remote
        self._server = server
        # Whose session goes through it, where it is no socket's connections that do.
        self._user = user

        # Set by the handle that takes it.
        self._handle: GatewayHandle | None = None
        self._id = 0

        # What listens on the local endpoint before the gateway does.
        self._listener = listener
        # Set by close() before there is a handle.
        self._closing: Closing | None = None

        # Set by the handle as the gateway reports.
        self._local = local
        self._state = "connecting"
        self._last_error: str | None = None
        self._reconnects = 0
        self._stats = TunnelStats()

    @property
    def remote(self) -> str:
        """The peer's endpoint as the server sees it: ``tcp://10.0.1.2:5555``."""
        return self._remote

    @property
    def server(self) -> str:
        """The SSH server: ``me@bastion:22``."""
        return self._server if self._handle is None else self._handle.server

    @property
    def local(self) -> str:
        """The endpoint that ZeroMQ is connected to."""
        return self._local

    @property
    def state(self) -> str:
        """``"connecting"``, ``"up"``, ``"down"`` (reconnecting), ``"closing"`` or ``"closed"``."""
        return self._state

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

    def _close(self, *, linger: int, grace: float) -> None:
        """Close it as soon as libzmq is through with it (see `Closing`). Never waits."""
        self._closing = Closing(linger, grace)
        # The thread that opens it sets the handle first, and looks for what was noted here then.
        if self._handle is not None:
            self._handle.close(self, linger=linger, grace=grace)
        elif self._state == "connecting":
            self._state = "closing"

    def __repr__(self) -> str:
        return f"<Tunnel {self.remote} via {self.server} [{self.state}]>"
