"""When a silent server is given up (ssh_config(5): ServerAliveInterval, ServerAliveCountMax)."""

from __future__ import annotations

from enum import Enum

__all__ = ["Alive", "Verdict"]

_NEVER = float("inf")

# A look that comes later than this part of a step tells nothing: we were not there to be answered.
_LATE = 0.5


class Verdict(Enum):
    """What to do about the server."""

    WAIT = "wait"
    ASK = "ask it for an answer"
    GIVE_UP = "give it up"


class Alive:
    """What was asked, and whether it was answered. No clock and no I/O: it is told the time.

    A server is asked `count` times, and given up after `interval` * `count` seconds of silence:
    so the questions come in steps of a little less than the interval, and the last one has a step
    for its answer as well.

    ==============================================  ==========================================
    at a look                                       verdict
    ==============================================  ==========================================
    something was heard less than a step ago        WAIT, a step from then
    it is late, and a question is unanswered        WAIT, another step: nobody was there to hear
    fewer than `count` questions are unanswered     ASK
    otherwise                                       GIVE_UP
    ==============================================  ==========================================

    Args:
        interval: seconds; 0 never asks.
        count: questions.
        now: the time, as in all methods (seconds, time.monotonic).
    """

    def __init__(self, interval: float, count: int, now: float) -> None:
        self._step = interval * count / (count + 1) if interval else _NEVER
        self._count = count
        self._unanswered = 0
        self._asked_at = now
        self.next_look = now + self._step
        """When to look again."""

    def look(self, now: float, heard: float) -> Verdict:
        """Say what to do.

        Args:
            now: the time.
            heard: when something came from the server last; `now` if something lies there unread.
        """
        if self._unanswered and heard >= self._asked_at:
            self._unanswered = 0
        if not self._unanswered:
            self.next_look = heard + self._step
        if now < self.next_look:
            return Verdict.WAIT
        late = now - self.next_look > _LATE * self._step
        self.next_look = now + self._step
        if self._unanswered and late:
            return Verdict.WAIT
        if self._unanswered < self._count:
            self._unanswered += 1
            self._asked_at = now
            return Verdict.ASK
        self.next_look = _NEVER
        return Verdict.GIVE_UP
