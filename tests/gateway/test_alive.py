"""A healthy session is never cut, a silent one always is, whoever was suspended meanwhile."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tunneledzmq.gateway.alive import Alive, Verdict

DAY = 86_400.0


class Link:
    """A server that answers after `round_trip` seconds, and a gateway that looks, mostly in time.

    What arrives while the gateway is suspended lies in the kernel until it runs again.
    """

    def __init__(self, interval: float, count: int, round_trip: float) -> None:
        self.now = 1000.0
        self.round_trip = round_trip
        self.silent = False
        self.alive = Alive(interval, count, self.now)
        self.asked = 0
        self.given_up_at = 0.0
        # When bytes arrive that nobody has seen yet, and when some were seen last.
        self._arriving: list[float] = []
        self.heard = self.now

    def receive(self, until: float) -> None:
        """The session's thread takes what has arrived."""
        arrived = [at for at in self._arriving if at <= until]
        self._arriving = [at for at in self._arriving if at > until]
        self.heard = max([self.heard, *arrived])

    def look(self, late: float = 0.0) -> None:
        """The gateway looks when it said that it would, or `late` seconds after."""
        if self.given_up_at:
            return
        due = max(self.now, self.alive.next_look)
        self.receive(due)
        self.now = due + late
        unread = any(at <= self.now for at in self._arriving)
        verdict = self.alive.look(self.now, self.now if unread else self.heard)
        self.receive(self.now)
        if verdict is Verdict.ASK:
            self.asked += 1
            if not self.silent:
                self._arriving.append(self.now + self.round_trip)
        elif verdict is Verdict.GIVE_UP:
            self.given_up_at = self.now

    def traffic(self) -> None:
        """The server says something of its own."""
        if not self.silent:
            self.heard = self.now


class AnyLife(RuleBasedStateMachine):
    """Idle hours, traffic, a busy machine, suspended gateways; at last a silent server."""

    @initialize(
        interval=st.sampled_from([1.0, 15.0, 60.0]),
        count=st.integers(1, 5),
        part=st.floats(1e-6, 0.9),
    )
    def begin(self, interval: float, count: int, part: float) -> None:
        self.interval, self.count = interval, count
        # The last question has a step for its answer.
        step = interval * count / (count + 1)
        self.link = Link(interval, count, round_trip=min(2.0, part * step))

    @rule(looks=st.integers(1, 500), seed=st.integers(0, 1 << 32))
    def idle(self, looks: int, seed: int) -> None:
        jitter = random.Random(seed)
        for _ in range(looks):
            self.link.look(late=jitter.expovariate(200))

    @rule(seconds=st.floats(0.5, DAY))
    def suspended(self, seconds: float) -> None:
        self.link.look(late=seconds)

    @rule(ahead=st.floats(0, 1))
    def spoken_to(self, ahead: float) -> None:
        self.link.now += ahead * max(0.0, self.link.alive.next_look - self.link.now)
        self.link.traffic()

    @invariant()
    def not_cut(self) -> None:
        assert not hasattr(self, "link") or not self.link.given_up_at

    def teardown(self) -> None:
        if not hasattr(self, "link"):
            return
        link = self.link
        link.receive(link.now)
        link.silent = True
        link._arriving.clear()
        began = max(link.heard, link.now - self.interval * self.count)
        for _ in range(2 * self.count + 3):
            link.look()
        assert link.given_up_at
        # A question that was under way when it was suspended may have had another step.
        assert link.given_up_at - began <= 2 * self.interval * self.count


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.floats(0.1, 60), st.integers(1, 10))
def test_a_silent_server_is_given_up_after_interval_times_count(
    interval: float, count: int
) -> None:
    link = Link(interval, count, round_trip=0.0)
    link.silent = True
    while not link.given_up_at:
        link.look()
    assert link.given_up_at - 1000 == pytest.approx(interval * count)
    assert link.asked == count


def test_days_of_silence_on_a_near_server() -> None:
    """The answer comes a microsecond after the question, and every look is a little late."""
    link = Link(15.0, 3, round_trip=1e-5)
    while link.now < 1000 + 5 * DAY:
        link.look(late=0.0002)
    assert not link.given_up_at
    assert link.asked > 5 * DAY / 15


def test_0_never_asks() -> None:
    alive = Alive(0.0, 3, 0.0)
    assert alive.next_look == float("inf")
    assert alive.look(1e9, 0.0) is Verdict.WAIT
