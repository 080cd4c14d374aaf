"""A tunnel, as the program sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .handle import GatewayHandle

__all__ = ["Tunnel", "TunnelStats"]


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
        self, handle: GatewayHandle, id: int, remote: str, local: str, *, for_gateway: bool
    ) -> None:
        self._handle = handle
        self._id = id
        self._remote = remote
        # The session of another gateway goes through it, not the connections of a socket.
        self._for_gateway = for_gateway

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
        return self._handle.server

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
        return self._handle.stats(self)

    def __repr__(self) -> str:
        return f"<Tunnel {self.remote} via {self.server} [{self.state}]>"
