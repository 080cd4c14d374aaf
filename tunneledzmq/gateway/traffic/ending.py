"""When a tunnel that libzmq gives up may end.

No clock decides whether libzmq comes back: the program may be suspended for as long as it likes.
What decides is what the kernel says of its connections, and, where there is none, for how long the
program has demonstrably run without making one. So there are two clocks here, and neither is the
time of day: seconds for which the program has run, and seconds for which we have.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ...shared.control import How
from ...shared.pace import Pace

__all__ = ["STALL_TIMEOUT", "Ending", "Owes", "is_given_up", "really_owes"]

# Seconds of the program's by which a clock of libzmq's may be late.
_MARGIN = 0.3

# The same for its coming, which nothing but that shows: its thread may be busy, as with a large
# message that is to be encrypted.
_COMING_MARGIN = 1.0

# Seconds of the program's until libzmq is sure to have seen that it is to end. Before that, it may
# come though it has nothing to send, and a broken connection has XSUB throw away what it has.
_UNAWARE = 0.2

# Seconds of the program's for which connections wait before they are sent away: hardly any for the
# first, then doubling.
_FIRST_HOLD = 1.0
_LONGEST_HOLD = 20.0

STALL_TIMEOUT = 600.0
"""Seconds of ours for which a connection that libzmq has closed may stand still: the kernel tries
for some minutes, too, to deliver what a program left in a TCP socket."""

# The same where LINGER has run out: no more is owed, but what was written may yet arrive.
LINGER_STALL_TIMEOUT = 5.0

# Seconds of the program's for which a connection may lie idle that libzmq has no more use for:
# after disconnect() it closes it only when the program next calls into the socket.
IDLE_TIMEOUT = 10.0

# Seconds of ours for connections that are held open when the program itself has ended.
ORPHAN_TIMEOUT = 1.0


class Owes(Enum):
    """What is left to do for a connection whose tunnel is being given up."""

    REST = "libzmq has closed it; the peer may not have all of it yet"
    DATA = "libzmq holds it open, and may have something to send"
    NOTHING = "libzmq holds it open, and has nothing to send"


class Ending:
    """The end of one tunnel. No I/O: it is told the program's clock.

    ======================================================  =======================================
    libzmq                                                  the tunnel may end
    ======================================================  =======================================
    has a connection, carried or held                       no
    has closed the last one by itself                       now: it does not come back
    the same, but it may have been for the peer's silence   as for the next
    has none: it was broken, or there has been none         when the program has run for as long as
                                                            libzmq takes to come back, at the most
    the same, with LINGER                                   or for so long: then nothing is left
    ======================================================  =======================================

    With LINGER 0, or a tunnel that is cut, nothing is owed: it ends with its last connection. It
    does so too when the program has ended.

    Where there is no way to the peer, it is refused at first: until it is sure to have seen that it
    is to end, its coming tells nothing. From then on it is held, since it comes only if it has
    something to send.

    A libzmq that has nothing to send closes no connection on which the peer has not greeted it yet;
    it does not come back when such a one is broken. So who waits for a way to the peer is sent away
    now and then: only those come back who have something to send.

    A STREAM waits for no greeting: it writes what it has, and closes. That is kept for the peer for
    as long as libzmq would have kept it.

    Args:
        how: how it is given up.
        linger: milliseconds for which libzmq may go on sending; -1 for ever.
        pace: how libzmq connects.
        clock: the program's clock, as in all methods.
    """

    def __init__(self, how: How, linger: int, pace: Pace, clock: float) -> None:
        self.how = how
        self.linger = linger / 1000 if linger >= 0 else float("inf")
        self._pace = pace
        self._closed_at = self._without_since = clock
        self._patience = pace.longest(0.0) + _COMING_MARGIN
        self.holds = False
        """Whether libzmq is held where there is no way to the peer, and not refused."""
        self._final = False
        self._hold = _UNAWARE

    @property
    def owing(self) -> bool:
        """Whether libzmq may still have something for the peer that it has not written yet."""
        return self.how is not How.CUT and self.linger > 0 and not self._final

    def may_hold(self, clock: float) -> bool:
        """Tell whether libzmq is sure to have seen that it is to end."""
        return self.owing and clock >= self._aware_at

    def hold(self, clock: float, away: float) -> None:
        """Note that from now on libzmq is held.

        Args:
            clock: the program's.
            away: seconds for which it has been refused by now; 0 if it has a connection.
        """
        self.holds = True
        self.broke(clock, away)

    def closed(self, clock: float, *, greeted: bool) -> None:
        """Note that libzmq has closed a connection that nobody else had ended.

        Args:
            clock: the program's.
            greeted: whether the peer had greeted it: before that, it may have lost patience.
        """
        self._final = greeted and not self._pace.heartbeat
        self.broke(clock)

    def broke(self, clock: float, away: float = 0.0) -> None:
        """Note that a connection was ended, by us or by the peer.

        Args:
            clock: the program's.
            away: seconds for which libzmq has been refused, where it was that.
        """
        self._without_since = clock
        self._patience = self._pace.longest(away) + _COMING_MARGIN

    def sends_away(self, clock: float, since: float, *, greeted: bool) -> bool:
        """Tell whether a connection is broken that waits for a way to the peer.

        Args:
            clock: the program's.
            since: of that clock, when it came.
            greeted: whether libzmq has greeted, so that it is known what it sends.
        """
        if clock < self._held_until(since, greeted=greeted) or not self._pace.retries:
            return False
        self._hold = min(max(2 * self._hold, _FIRST_HOLD), _LONGEST_HOLD)
        return True

    def keeps(self, clock: float) -> bool:
        """Tell whether what libzmq has written for a peer that is away is kept for it."""
        return self.how is not How.CUT and clock < self._kept_until

    def lingered(self, clock: float) -> bool:
        """Tell whether LINGER has run out, so that libzmq has closed, whatever it had."""
        return self.how is How.CLOSED and clock >= self._lingers_until

    def lingers(self, clock: float) -> bool:
        """Tell whether LINGER is yet to run out."""
        return self.how is How.CLOSED and clock < self._lingers_until < float("inf")

    @property
    def _lingers_until(self) -> float:
        return self._closed_at + self.linger + _MARGIN

    def over(self, clock: float, connections: int, *, orphaned: bool) -> bool:
        """Tell whether the tunnel may end.

        Args:
            clock: the program's.
            connections: how many libzmq has.
            orphaned: whether the program has ended, or its context.
        """
        if connections:
            return False
        if orphaned or not self.owing:
            return True
        return clock >= self._lingers_until or (self.holds and clock >= self._comes_until)

    def next_moment(self, clock: float, waiting: Iterable[tuple[float, bool]]) -> float:
        """Return when, of the program's clock, these methods may tell something else than now.

        Until then they do not, unless one of them is told something.

        Args:
            clock: the program's.
            waiting: of each connection that waits for a way to the peer when it came, and whether
                libzmq has greeted, as for :meth:`sends_away`.
        """
        moments = [self._aware_at, self._lingers_until, self._comes_until, self._kept_until]
        moments += [self._held_until(since, greeted=greeted) for since, greeted in waiting]
        return min((moment for moment in moments if moment > clock), default=float("inf"))

    @property
    def _aware_at(self) -> float:
        return self._closed_at + _UNAWARE

    @property
    def _kept_until(self) -> float:
        if self.how is not How.DISCONNECTED:
            return self._lingers_until
        return max(self._lingers_until, self._closed_at + IDLE_TIMEOUT)  # it may not know yet

    @property
    def _comes_until(self) -> float:
        return self._without_since + self._patience

    def _held_until(self, since: float, *, greeted: bool) -> float:
        hold = self._hold if greeted else max(self._hold, _FIRST_HOLD)
        return max(since, self._closed_at) + hold


def really_owes(
    owes: Owes,
    ending: Ending | None,
    clock: float,
    *,
    orphaned: bool,
    for_gateway: bool,
) -> Owes:
    """Return what is left to do for a connection, where the kernel does not see all of it.

    Over TCP, the end of what libzmq has written is known only when all before it has been read,
    which takes a peer that reads.

    Args:
        owes: what is left to do, by what the kernel says.
        ending: how the tunnel ends; `None` where only the program has.
        clock: the program's.
        orphaned: whether the program has ended, or its context.
        for_gateway: whether the session of another gateway goes through it.
    """
    if owes is not Owes.DATA or for_gateway:
        return owes
    has_closed = orphaned or (ending is not None and ending.lingered(clock))
    return Owes.REST if has_closed else owes


def is_given_up(
    owes: Owes,
    ending: Ending | None,
    *,
    ran: float,
    program_ran: float,
    orphaned: bool,
    for_gateway: bool,
) -> bool:
    """Tell whether a connection of a tunnel that ends is given up, on which nothing moves.

    Args:
        owes: what is left to do for it.
        ending: how the tunnel ends; `None` where only the program has.
        ran: seconds of ours since something moved.
        program_ran: seconds of the program's since something moved.
        orphaned: whether the program has ended, or its context.
        for_gateway: whether the session of another gateway goes through it.
    """
    cut = ending is not None and ending.how is How.CUT
    if owes is Owes.REST:
        if ending is None or (not cut and ending.linger == float("inf")):
            return ran >= STALL_TIMEOUT
        linger = 0.0 if cut else ending.linger
        return ran >= max(linger, LINGER_STALL_TIMEOUT)
    if for_gateway:
        return False  # that gateway ends it, when it has delivered what it holds
    if cut:
        return owes is Owes.NOTHING or ran >= LINGER_STALL_TIMEOUT
    if orphaned:
        return ran >= (STALL_TIMEOUT if owes is Owes.DATA else ORPHAN_TIMEOUT)
    return owes is Owes.NOTHING and program_ran >= IDLE_TIMEOUT
