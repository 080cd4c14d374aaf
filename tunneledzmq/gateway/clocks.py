"""Seconds that somebody has demonstrably run, whoever was suspended meanwhile."""

from __future__ import annotations

__all__ = ["TICK", "OwnClock", "ProgramClock"]

TICK = 0.1
"""Seconds between questions to the program."""

# What a gap counts at most: a longer one is not ours, or not the program's.
_LONGEST_OWN = 2.0
_LONGEST_PROGRAM = 1.5 * TICK

_NEVER = float("inf")


class OwnClock:
    """Seconds for which we have run, if it is read at least every two seconds."""

    def __init__(self, now: float) -> None:
        self._seconds = 0.0
        self._read_at = now

    def read(self, now: float) -> float:
        """Return the seconds up to `now`."""
        self._seconds += min(now - self._read_at, _LONGEST_OWN)
        self._read_at = now
        return self._seconds


class ProgramClock:
    """Seconds for which the program has run, by the questions that it has answered.

    It is asked again when it has answered. So a program that is suspended stops this clock.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._asked_at = -_NEVER
        self._answered_at = 0.0
        self._waiting = False

    def look(self, now: float) -> bool:
        """Tell whether to ask the program now."""
        if self._waiting or now < self._asked_at + TICK:
            return False
        if now > self._asked_at + 2 * TICK:
            self._answered_at = now  # it was not asked for a while: that does not count
        self._asked_at, self._waiting = now, True
        return True

    @property
    def next_look(self) -> float:
        """When to look again; the answer comes by itself."""
        return _NEVER if self._waiting else self._asked_at + TICK

    def answered(self, now: float) -> None:
        """Note that the program has answered."""
        self._waiting = False
        self.seconds += min(now - self._answered_at, _LONGEST_PROGRAM)
        self._answered_at = now
