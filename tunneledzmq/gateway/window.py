"""How much the server may send before we have to take it (RFC 4254, section 5.2)."""

from __future__ import annotations

import time

__all__ = ["FIRST_SIZE", "LARGEST_SIZE", "SHARED_SIZE", "Path", "ReceiveWindow"]

FIRST_SIZE = 1 << 21
"""Bytes of every window at first. A larger one makes an sshd that is near slow, see "How it works"
in the README."""

LARGEST_SIZE = 1 << 26
"""Bytes to which a window may grow, and which a reader that stalls may cost at worst."""

SHARED_SIZE = 1 << 27
"""Bytes by which all windows of a session together may be larger than at first."""

# The server is told of new room in steps of this size.
_STEP = FIRST_SIZE // 8

# Seconds over which the rate is measured at least; otherwise a burst would look like a fast path.
_SHORTEST_PERIOD = 0.05


class Path:
    """What the windows of a session share."""

    def __init__(self) -> None:
        # What windows may still grow by.
        self.spare = SHARED_SIZE
        # The shortest round trip seen, in seconds: what else delays an answer does not count.
        self._round_trip = 0.0

    @property
    def round_trip(self) -> float:
        """Return the shortest round trip to the server, in seconds; 0 while none is known."""
        return self._round_trip

    def answered(self, seconds: float) -> None:
        """Learn from an answer that came after `seconds`."""
        if not self._round_trip or seconds < self._round_trip:
            self._round_trip = seconds


class ReceiveWindow:
    """The window of one channel.

    A window limits a channel to its size in each round trip. So it grows, by a quarter more than
    what libzmq takes in one round trip, while that is more than three quarters of it; no faster,
    since what the network does not hold of a window piles up in sshd, which slows it down. It
    shrinks again where less than half of it is taken: the server, the network or the reader is
    the limit then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = FIRST_SIZE
        # What the server may send now, and what libzmq has taken that it does not know of.
        self._open = FIRST_SIZE
        self._taken = 0
        # What libzmq has taken since a time.
        self._since = time.monotonic()
        self._since_taken = 0
        self._too_large = False

    def receive(self, size: int) -> bool:
        """Count `size` bytes from the server; tell whether it was allowed to send them."""
        self._open -= size
        return self._open >= 0

    def take(self, size: int) -> int:
        """Count `size` bytes that libzmq has taken; return the room to tell the server of."""
        self._taken += size
        if self._taken < _STEP:
            return 0
        self._since_taken += self._taken
        self._resize()
        room, self._taken = self._taken, 0
        self._open += room
        return room

    def close(self) -> None:
        """Leave the room to others."""
        self._path.spare += self.size - FIRST_SIZE
        self.size = FIRST_SIZE

    def _resize(self) -> None:
        now = time.monotonic()
        elapsed = now - self._since
        change = 0
        if elapsed >= max(self._path.round_trip, _SHORTEST_PERIOD):
            in_a_round_trip = int(self._since_taken * self._path.round_trip / elapsed)
            self._since, self._since_taken = now, 0
            self._too_large = in_a_round_trip < self.size // 2
            if in_a_round_trip > 3 * self.size // 4:
                wanted = min(5 * in_a_round_trip // 4, 2 * self.size, LARGEST_SIZE)
                change = max(0, min(wanted - self.size, self._path.spare))
        if self._too_large:
            # Only what is not given back is ours again.
            change = -min(self._taken, self.size - FIRST_SIZE)
        self.size += change
        self._taken += change
        self._path.spare -= change
