"""When a server is dialled again whose session was lost, or cannot be had."""

from __future__ import annotations

__all__ = ["QUICK_TRIES", "Redial"]

QUICK_TRIES = 10
"""Tries for a server that is only being restarted: they come within some five seconds."""

# Seconds before them: doubling, up to the last.
_FIRST = 0.05
_LAST = 0.7

# Seconds before the tries after them, doubling up to this. A limiter that lets five tries pass in
# 30 s (as ufw's, which counts those that it stops as well) then lets us pass.
_LONGEST = 10.0

# The part of a delay that chance may take away, so that clients of one server spread.
_JITTER = 0.25

# A session that lasted so many seconds lets the tries begin anew.
_STABLE = 2.0

# Failures that count yet where a server lets us in, and soon drops us.
_SHORT = 4


class Redial:
    """The delays between tries. No clock and no I/O.

    ================================  ==================================================
    event                             delay before the next try
    ================================  ==================================================
    a session of 2 s was lost         0.05 s: the tries begin anew
    a shorter one that has carried    0.7 s at most
    something, or the first one
    since tries had failed
    any other session was lost        as for one more failure: the server drops them all
    a try failed                      doubles, up to 0.7 s for the first ten; then doubles
                                      further, up to 10 s
    ================================  ==================================================
    """

    def __init__(self) -> None:
        self._failures = 0
        # Whether a try has failed since the last session.
        self._away = False
        self._up_since = 0.0

    def up(self, now: float) -> None:
        """Note a session."""
        self._up_since = now
        if self._away:
            self._away = False
            self._failures = min(self._failures, _SHORT)

    def lost(self, now: float, chance: float, *, carried: bool) -> float:
        """Return the seconds to wait: the session was lost.

        Args:
            now: the time (seconds, time.monotonic).
            chance: a random number from 0 to 1.
            carried: whether the server had connected to a peer.
        """
        if now - self._up_since >= _STABLE:
            self._failures = 0
        elif carried:
            self._failures = min(self._failures, _SHORT)
        return self._delay(chance)

    def failed(self, chance: float) -> float:
        """Return the seconds to wait: a try failed.

        Args:
            chance: a random number from 0 to 1.
        """
        self._away = True
        return self._delay(chance)

    def _delay(self, chance: float) -> float:
        failures, self._failures = self._failures, self._failures + 1
        delay = min(_FIRST * (1 << min(failures, 10)), _LAST)
        if failures >= QUICK_TRIES:
            delay = min(_LAST * (1 << min(failures - QUICK_TRIES + 1, 10)), _LONGEST)
        return delay * (1 - _JITTER * chance)
