"""When the server is asked whether it reaches a peer."""

from __future__ import annotations

from enum import Enum

from ...shared.pace import Pace

__all__ = ["Search", "Sight"]

# Seconds that an answer may come before it is needed.
_LEAD = 0.003

_NEVER = float("inf")


class Sight(Enum):
    """What is known of a peer."""

    UNKNOWN = "nobody has asked yet, or since it was seen last"
    ASKED = "the server has been asked"
    THERE = "the server reaches it"
    AWAY = "the server does not reach it"


class Search:
    """What is known of a peer, and when to ask. No clock and no I/O.

    ========  =============================  ========  ==================================
    from      on                             to        next question
    ========  =============================  ========  ==================================
    any       a new session                  UNKNOWN   at once
    UNKNOWN   the server is asked            ASKED     none
    AWAY      the server is asked            ASKED     none
    ASKED     it reaches the peer            THERE     none
    any       it refuses                     AWAY      after RECONNECT_IVL, which doubles up
                                                       to RECONNECT_IVL_MAX
    THERE     the peer ended a connection    UNKNOWN   so that the answer is there after
                                                       RECONNECT_IVL, when libzmq comes back
    THERE     libzmq ended the last one      UNKNOWN   the same
    UNKNOWN,  a new tunnel leads to it       the same  at once, but not sooner than after
    AWAY                                               RECONNECT_IVL since the last question,
                                                       unless libzmq has ended a connection since
    ========  =============================  ========  ==================================

    A peer that has just ended a connection may be on its way out, and still accept others: so it
    is not asked before libzmq would have come over TCP.
    """

    sight: Sight
    next_question: float
    """When to ask; infinity while there is nothing to be asked."""

    def __init__(self, now: float) -> None:
        self.restart(now)

    def restart(self, now: float) -> None:
        """Know nothing: the session is a new one."""
        self.sight, self.next_question = Sight.UNKNOWN, now
        self._asked_at, self._interval = -_NEVER, 0.0

    def asked(self, now: float) -> None:
        """Note that the server is asked."""
        self.sight, self.next_question = Sight.ASKED, _NEVER
        self._asked_at = now

    def found(self) -> None:
        """Note that the server reaches the peer."""
        self.sight, self.next_question = Sight.THERE, _NEVER
        self._interval = 0.0

    def refused(self, now: float, pace: Pace, chance: float) -> None:
        """Note that the server does not reach the peer.

        Args:
            now: the time.
            pace: that of the most eager tunnel.
            chance: a random number from 0 to 1.
        """
        self.sight = Sight.AWAY
        longest = max(pace.first, pace.reconnect_ivl_max)
        self._interval = min(max(2 * self._interval, pace.first), longest)
        jitter = pace.reconnect_ivl * chance if pace.reconnect_ivl_max <= 0 else 0.0
        self.next_question = now + self._interval + jitter

    def lost(self, now: float, pace: Pace, round_trip: float) -> None:
        """Note that the peer has ended its last connection: it may be gone, or wait for another.

        Args:
            now: the time.
            pace: that of the most eager tunnel.
            round_trip: seconds that the server takes to answer.
        """
        if self.sight is Sight.THERE:
            self.sight = Sight.UNKNOWN
            in_time = now + max(0.0, pace.first - round_trip - _LEAD)
            self.next_question = max(in_time, self._asked_at + pace.first)

    def left(self, now: float, pace: Pace, round_trip: float) -> None:
        """Note that libzmq has ended the last connection, as it does with a tunnel that it closes.

        Args:
            now: the time.
            pace: that of the most eager tunnel.
            round_trip: seconds that the server takes to answer.
        """
        if self.sight is Sight.THERE:
            self._asked_at = -_NEVER
            self.lost(now, pace, round_trip)

    def hurry(self, now: float, pace: Pace) -> None:
        """Ask soon: there is a new tunnel, for which libzmq connects at once."""
        if self.sight in (Sight.UNKNOWN, Sight.AWAY):
            soon = max(now, self._asked_at + pace.first)
            self.next_question = min(self.next_question, soon)
            self._interval = 0.0
