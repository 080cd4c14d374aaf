"""A tunnel never ends while libzmq may come back with something, and always ends otherwise."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tunneledzmq.gateway.traffic.ending import Ending, Owes, is_given_up, really_owes
from tunneledzmq.shared.control import How
from tunneledzmq.shared.pace import Pace

FOR_EVER = float("inf")


class ClosedSocket(RuleBasedStateMachine):
    """A socket that was closed, as libzmq has it, and the gateway's decision about its tunnel.

    libzmq's timers run while its program does; the gateway's clock of the program may lag behind.
    The peer is down: libzmq is refused, until the gateway holds it.
    """

    @initialize(
        pace=st.builds(
            Pace,
            st.sampled_from([-0.001, 0.0, 0.01, 0.1, 3.0]),
            st.sampled_from([0.0, 0.5, 30.0]),
            st.booleans(),
        ),
        linger=st.sampled_from([-1, 0, 50, 2000, 60_000]),
        pending=st.booleans(),
        connected=st.booleans(),
        refused_for=st.floats(0, 100),
        chance=st.floats(0, 1),
    )
    def close(
        self,
        pace: Pace,
        linger: int,
        pending: bool,
        connected: bool,
        refused_for: float,
        chance: float,
    ) -> None:
        self.pace, self.linger = pace, FOR_EVER if linger < 0 else linger / 1000
        self.chance = chance
        self.program_time = self.clock = 0.0
        self.running = True
        self.pending = pending and linger != 0
        self.connected = connected
        self.comes_at = FOR_EVER
        self.settled_at = FOR_EVER
        self.refused_for = 0.0 if connected else refused_for
        self.ending = Ending(How.CLOSED, linger, pace, self.clock)
        if not connected:
            self._wait(self._pause_after(refused_for))

    def _pause_after(self, refused_for: float) -> float:
        """What is left of libzmq's present pause, at the most, after so many seconds of them."""
        if not self.pace.retries:
            return 0.0
        if self.pace.reconnect_ivl_max <= 0:
            return self.pace.reconnect_ivl * (1 + 0.999 * self.chance)
        pause, passed = self.pace.first, 0.0
        while passed + pause <= refused_for:
            passed += pause
            pause = min(2 * pause, self.pace.reconnect_ivl_max)
        return passed + pause - refused_for

    def _wait(self, pause: float) -> None:
        if self.pending and self.pace.retries:
            self.comes_at = self.program_time + pause
        else:
            # Nothing brings it back.
            self.pending = False
            self.comes_at = FOR_EVER

    @rule(seconds=st.floats(0.001, 100), lag=st.floats(0, 1))
    def time_passes(self, seconds: float, lag: float) -> None:
        if not self.running:
            return
        # From one of libzmq's timers to the next, so that nothing is passed over.
        end = self.program_time + seconds
        while self.program_time < end:
            timers = [at for at in (self.comes_at, self.linger) if at > self.program_time]
            until = min([end, *timers])
            passed = until - self.program_time
            self.clock += passed * lag
            self.refused_for += 0.0 if self.connected else passed
            self.program_time = until
            if not self.ending.holds and self.ending.may_hold(self.clock):
                self.ending.hold(self.clock, self.refused_for)
            if self.program_time >= self.linger and self.pending:
                self._drop()
            if self.program_time >= self.comes_at:
                self.comes_at = FOR_EVER
                assert not self._over(), "it had ended before libzmq came"
                self.connected = self.ending.holds
                if not self.connected:
                    self._wait(self._pause_after(self.refused_for))
            if self._over():
                return

    def _drop(self) -> None:
        """LINGER has run out."""
        self.pending = False
        self.comes_at = FOR_EVER
        if self.connected:
            self.connected = False
            self.ending.closed(self.clock, greeted=True)

    @rule()
    def suspend_or_continue(self) -> None:
        self.running = not self.running

    @precondition(lambda self: self.connected)
    @rule()
    def it_is_broken(self) -> None:
        """The session is lost, or the peer ends."""
        self.connected, self.refused_for = False, 0.0
        self.ending.broke(self.clock)
        self._wait(self._pause_after(0.0))

    @precondition(lambda self: self.connected and self.running)
    @rule()
    def all_is_written(self) -> None:
        self.pending = self.connected = False
        self.ending.closed(self.clock, greeted=True)

    @precondition(lambda self: self.connected and self.running and self.pace.heartbeat)
    @rule()
    def the_peer_is_silent_for_too_long(self) -> None:
        self.connected, self.refused_for = False, 0.0
        self.ending.closed(self.clock, greeted=True)
        self._wait(self._pause_after(0.0))

    def _over(self) -> bool:
        return self.ending.over(self.clock, int(self.connected), orphaned=False)

    @invariant()
    def not_while_something_may_come(self) -> None:
        if hasattr(self, "ending") and self._over():
            assert not self.pending

    def teardown(self) -> None:
        """In the end nothing is pending any more, and the program runs."""
        if not hasattr(self, "ending"):
            return
        if self.connected:
            self.ending.closed(self.clock, greeted=True)
        elif self.pending:
            return
        longest = max(2 * self.pace.reconnect_ivl, self.pace.reconnect_ivl_max, 0)
        if not self.ending.holds and self.ending.may_hold(self.clock + 1):
            self.clock += 1
            self.ending.hold(self.clock, self.refused_for)
        assert self.ending.over(self.clock + longest + 1, 0, orphaned=False)


TestClosedSocket = ClosedSocket.TestCase
TestClosedSocket.settings = settings(max_examples=400, stateful_step_count=20, deadline=None)


def test_a_tunnel_goes_with_its_socket() -> None:
    # The common end: no clock, whatever RECONNECT_IVL_MAX is.
    ending = Ending(How.CLOSED, -1, Pace(0.1, 30.0, False), 7.0)
    assert not ending.over(7.0, 1, orphaned=False)
    ending.closed(7.0, greeted=True)
    assert ending.over(7.0, 0, orphaned=False)


@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize("linger", [-1, 0, 1000])
def test_nothing_waits_for_a_program_that_has_ended(how: How, linger: int) -> None:
    ending = Ending(how, linger, Pace(), 0.0)
    assert ending.over(0.0, 0, orphaned=True)
    assert not ending.over(0.0, 1, orphaned=True)


@pytest.mark.parametrize(
    ("owes", "how", "linger", "ran", "program_ran", "given_up"),
    [
        # What libzmq has written is delivered as long as the kernel would try.
        (Owes.REST, How.CLOSED, -1, 599, 0, False),
        (Owes.REST, How.CLOSED, -1, 600, 0, True),
        (Owes.REST, How.CLOSED, 60_000, 59, 0, False),
        (Owes.REST, How.CLOSED, 60_000, 60, 0, True),
        (Owes.REST, How.CLOSED, 0, 4, 0, False),
        (Owes.REST, How.CLOSED, 0, 5, 0, True),
        # What libzmq holds open is its own to close, however long the program is suspended.
        (Owes.DATA, How.CLOSED, -1, 1e6, 1e6, False),
        (Owes.DATA, How.DISCONNECTED, -1, 1e6, 1e6, False),
        (Owes.NOTHING, How.CLOSED, -1, 1e6, 9, False),
        (Owes.NOTHING, How.DISCONNECTED, -1, 1e6, 9, False),
        (Owes.NOTHING, How.DISCONNECTED, -1, 10, 10, True),
        (Owes.NOTHING, How.CUT, 0, 0, 0, True),
        (Owes.DATA, How.CUT, 0, 4, 0, False),
        (Owes.DATA, How.CUT, 0, 5, 0, True),
    ],
)
def test_when_a_connection_is_given_up(
    owes: Owes, how: How, linger: int, ran: float, program_ran: float, given_up: bool
) -> None:
    ending = Ending(how, linger, Pace(), 0.0)
    verdict = is_given_up(
        owes, ending, ran=ran, program_ran=program_ran, orphaned=False, for_gateway=False
    )
    assert verdict is given_up


@pytest.mark.parametrize(
    ("owes", "how", "linger", "clock", "orphaned", "really"),
    [
        # Over TCP, nobody sees that libzmq has closed while there is something to read before it.
        (Owes.DATA, How.CLOSED, 1000, 1.2, False, Owes.DATA),
        (Owes.DATA, How.CLOSED, 1000, 1.3, False, Owes.REST),
        (Owes.DATA, How.CLOSED, -1, 1e6, False, Owes.DATA),
        (Owes.DATA, How.CLOSED, -1, 0, True, Owes.REST),
        (Owes.NOTHING, How.CLOSED, 1000, 1e6, False, Owes.NOTHING),
        # It has not begun to linger before the program's next call.
        (Owes.DATA, How.DISCONNECTED, 1000, 1e6, False, Owes.DATA),
    ],
)
def test_what_the_kernel_does_not_see(
    owes: Owes, how: How, linger: int, clock: float, orphaned: bool, really: Owes
) -> None:
    ending = Ending(how, linger, Pace(), 0.0)
    found = really_owes(owes, ending, clock, orphaned=orphaned, for_gateway=False)
    assert found is really
    assert really_owes(owes, ending, clock, orphaned=orphaned, for_gateway=True) is owes


def test_the_clock_is_needed_until_linger_has_run_out() -> None:
    assert Ending(How.CLOSED, 1000, Pace(), 5.0).lingers(6.2)
    assert not Ending(How.CLOSED, 1000, Pace(), 5.0).lingers(6.3)
    assert not Ending(How.CLOSED, -1, Pace(), 5.0).lingers(6.2)


@pytest.mark.parametrize(
    ("how", "linger", "seconds"),
    [
        (How.CLOSED, 1000, 1.3),
        (How.CLOSED, -1, float("inf")),
        # libzmq may see it only at the program's next call.
        (How.DISCONNECTED, 1000, 10),
        (How.DISCONNECTED, 20_000, 20.3),
        (How.CUT, 0, 0),
    ],
)
def test_what_was_written_for_a_peer_that_is_away_is_kept_as_long_as_libzmq_would(
    how: How, linger: int, seconds: float
) -> None:
    ending = Ending(how, linger, Pace(), 5.0)
    assert ending.keeps(5.0 + min(seconds, 1e6) - 0.01) is (seconds > 0)
    assert not ending.keeps(5.0 + seconds)
    assert seconds in (0, float("inf")) or ending.next_moment(4.9 + seconds, ()) == 5.0 + seconds


def test_a_forked_child_that_holds_connections_does_not_keep_them_for_ever() -> None:
    def given_up(owes: Owes, ran: float) -> bool:
        return is_given_up(owes, None, ran=ran, program_ran=0, orphaned=True, for_gateway=False)

    assert not given_up(Owes.NOTHING, 0.9) and given_up(Owes.NOTHING, 1)
    assert not given_up(Owes.DATA, 599) and given_up(Owes.DATA, 600)
    assert not given_up(Owes.REST, 599) and given_up(Owes.REST, 600)


def test_that_libzmq_comes_tells_nothing_before_it_knows() -> None:
    ending = Ending(How.CLOSED, -1, Pace(0.1, 0.0), 5.0)
    assert not ending.may_hold(5.1) and not ending.over(100.0, 0, orphaned=False)
    assert ending.may_hold(5.2)
    ending.hold(5.2, away=40.0)
    assert not ending.over(6.2, 0, orphaned=False), "its thread may be busy"
    assert ending.over(6.5, 0, orphaned=False)
    assert not Ending(How.CLOSED, 0, Pace(), 5.0).may_hold(100.0), "nothing is owed"


def test_who_waits_for_a_peer_is_sent_away_now_and_then() -> None:
    ending = Ending(How.CLOSED, -1, Pace(), 30.0)
    assert not ending.sends_away(30.9, 30.0, greeted=False), "it may have data"
    assert not ending.sends_away(30.1, 20.0, greeted=True), "libzmq may not know of the close yet"
    assert ending.sends_away(30.2, 20.0, greeted=True), "it comes back if it has something to send"
    assert not ending.sends_away(31.1, 30.2, greeted=True)
    waits = []
    for _ in range(8):
        waited = 0.0
        while not ending.sends_away(50.0 + waited, 50.0, greeted=True):
            waited += 0.5
        waits.append(waited)
    assert waits == [1, 2, 4, 8, 16, 20, 20, 20]
