"""Everything is looked at when something happens to it, and when its time has come: never later."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tunneledzmq.gateway.traffic.looks import Look, Looks

NEVER = float("inf")
ITEMS = st.integers(0, 5)
TIMES = st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, 10.0, 1000.0, NEVER])


class Rounds(RuleBasedStateMachine):
    """Compared with somebody who asks each item whether its time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = Looks[int]()
        self.named: set[int] = set()
        self.arranged: dict[int, Look] = {}
        self.now = self.program = 0.0

    @rule(item=ITEMS)
    def something_happens(self, item: int) -> None:
        self.looks.name(item)
        self.named.add(item)

    @rule(item=ITEMS)
    def it_is_forgotten(self, item: int) -> None:
        self.looks.forget(item)
        self.named.discard(item)
        self.arranged.pop(item, None)

    @rule(item=ITEMS, after=TIMES, program_after=TIMES)
    def a_look_is_arranged(self, item: int, after: float, program_after: float) -> None:
        self.arranged[item] = Look(self.now + after, self.program + program_after)
        self.looks.arrange(item, self.arranged[item])

    @rule(
        seconds=st.sampled_from([0.0, 0.5, 1.0, 20.0]),
        ran=st.sampled_from([0.0, 0.5, 1.0, 20.0]),
        again=st.lists(st.tuples(st.booleans(), TIMES, TIMES), min_size=6, max_size=6),
    )
    def a_round(self, seconds: float, ran: float, again: list[tuple[bool, float, float]]) -> None:
        expected = self.named | {
            item
            for item, look in self.arranged.items()
            if look.at <= self.now + seconds or look.program_at <= self.program + ran
        }
        self.now += seconds
        self.program += ran
        assert self.looks.round(self.now, self.program) == expected
        self.named = set()
        for item in expected:
            happens, after, program_after = again[item]
            if happens:
                self.something_happens(item)
            self.a_look_is_arranged(item, after, program_after)

    @rule()
    def the_next_one(self) -> None:
        times = [look.at for look in self.arranged.values()]
        assert self.looks.next_round == (-NEVER if self.named else min(times, default=NEVER))
        waits = [look for look in self.arranged.values() if min(look) < NEVER]
        assert bool(self.looks) == bool(self.named or waits)


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_looks_that_are_put_off_again_and_again_take_no_room() -> None:
    looks = Looks[int]()
    for number in range(10_000):
        looks.arrange(number % 10, Look(1e6 + number, 1e6 + number))
    calendars = (looks._by_time, looks._by_program)
    assert all(len(calendar._heap) < 200 for calendar in calendars)
    assert looks.next_round == 1e6 + 9_990
    assert looks.round(0.0, 1e6 + 9_990) == {0}
