"""How much the server may send before we have to take it (RFC 4254, section 5.2)."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["FIRST_SIZE", "LARGEST_SIZE", "SHARED_SIZE", "Path", "ReceiveWindow"]

FIRST_SIZE = 1 << 21
"""Bytes of every window at first."""

LARGEST_SIZE = 1 << 26
"""Bytes to which a window may grow, and which a reader that stalls may cost at worst."""

SHARED_SIZE = 1 << 27
"""Bytes by which all windows of a session together may be larger than at first."""

# The server is told of new room in steps of this size.
_STEP = FIRST_SIZE // 8

# How much more than what is taken in a round trip, besides the first size.
_GAIN = 1.5

# Seconds over which a rate is measured at least: of less, a burst would look like a fast path.
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

    A window limits a channel to its size in each round trip. So it is a little larger than what
    libzmq takes in one: it grows as long as it is the limit, and shrinks when the server, the
    network or the reader is. What the network does not hold of it waits in sshd, which it slows
    down (see "How it works" in the README).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = FIRST_SIZE
        # What the server may send now, and what libzmq has taken that it does not know of.
        self._open = FIRST_SIZE
        self._taken = 0
        # What libzmq has taken lately: when, and how much.
        self._steps: deque[tuple[float, int]] = deque()
        self._recently = 0

    def receive(self, size: int) -> bool:
        """Count `size` bytes from the server; tell whether it was allowed to send them."""
        self._open -= size
        return self._open >= 0

    def take(self, size: int) -> int:
        """Count `size` bytes that libzmq has taken; return the room to tell the server of."""
        self._taken += size
        if self._taken < _STEP:
            return 0
        self._remember()
        # What is not given back makes the window smaller.
        change = max(self._wanted() - self.size, -self._taken)
        room, self._taken = self._taken + change, 0
        self.size += change
        self._path.spare -= change
        self._open += room
        return room

    def close(self) -> None:
        """Leave the room to others."""
        self._path.spare += self.size - FIRST_SIZE
        self.size = FIRST_SIZE

    def _remember(self) -> None:
        now = time.monotonic()
        self._steps.append((now, self._taken))
        self._recently += self._taken
        while self._steps[0][0] <= now - self._period:
            self._recently -= self._steps.popleft()[1]

    @property
    def _period(self) -> float:
        return max(self._path.round_trip, _SHORTEST_PERIOD)

    def _wanted(self) -> int:
        in_a_round_trip = self._recently * self._path.round_trip / self._period
        return min(
            FIRST_SIZE + int(_GAIN * in_a_round_trip), LARGEST_SIZE, self.size + self._path.spare
        )
