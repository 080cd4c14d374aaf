"""How libzmq connects, and comes back."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Pace"]


class Pace(NamedTuple):
    """How libzmq connects (zmq_setsockopt(3)); it takes these from the socket at the connect."""

    reconnect_ivl: float = 0.1
    """Seconds; 0 or less: it tries once."""

    reconnect_ivl_max: float = 0.0
    """Seconds up to which its intervals double; 0: they do not, but get a random part."""

    heartbeat: bool = True
    """Whether it may close a connection because the peer is silent (HEARTBEAT_IVL)."""

    @property
    def retries(self) -> bool:
        """Whether libzmq comes back after a connect that failed."""
        return self.reconnect_ivl > 0

    @property
    def first(self) -> float:
        """Seconds of its first interval."""
        longest = self.reconnect_ivl_max
        return self.reconnect_ivl if longest <= 0 else min(self.reconnect_ivl, longest)

    def longest(self, away: float) -> float:
        """Return the seconds after which libzmq has come back at the latest, if it does.

        Args:
            away: seconds for which it has been refused by now.
        """
        if not self.retries:
            return 0.0
        if self.reconnect_ivl_max <= 0:
            return 2 * self.reconnect_ivl
        # What has passed is at least all intervals but the present one, which is the next power.
        return min(self.reconnect_ivl_max, away + self.first)
