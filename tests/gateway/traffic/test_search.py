"""The server is asked about a peer at libzmq's pace, and at once when there is news."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq.gateway.traffic.search import Search, Sight
from tunneledzmq.shared.pace import Pace

PACES = st.builds(
    Pace, st.sampled_from([0.01, 0.1, 1.0]), st.sampled_from([0.0, 0.5, 3.0, 30.0]), st.booleans()
)


def questions(pace: Pace, seconds: float, chance: float) -> list[float]:
    """Return when the server is asked about a peer that is down."""
    search, times = Search(0.0), []
    while search.next_question <= seconds:
        times.append(search.next_question)
        search.asked(times[-1])
        search.refused(times[-1], pace, chance)
    return times


def test_a_peer_that_is_down_is_asked_for_as_often_as_libzmq_would_connect() -> None:
    assert 50 <= len(questions(Pace(0.1, 0.0), 10, 1.0)) <= 52
    assert 99 <= len(questions(Pace(0.1, 0.0), 10, 0.0)) <= 102
    assert len(questions(Pace(0.1, 3.0), 10, 0.5)) == 8


@given(PACES, st.floats(0, 1))
def test_the_pauses_are_those_of_libzmq(pace: Pace, chance: float) -> None:
    times = questions(pace, 300, chance)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    longest = pace.reconnect_ivl_max or 2 * pace.reconnect_ivl
    assert all(pace.first - 1e-9 <= gap <= longest + 1e-9 for gap in gaps)


@given(PACES, st.floats(0, 1), st.floats(0, 300))
def test_a_libzmq_that_is_refused_is_back_before_it_is_given_up(
    pace: Pace, chance: float, when: float
) -> None:
    # Its pauses are the same as ours; whenever the socket is closed, the next try comes in time.
    times = questions(pace, 400, chance)
    earlier = max(time for time in times if time <= when)
    following = min(time for time in times if time > earlier)
    assert following <= when + pace.longest(away=when) + 1e-6


def test_what_is_learned() -> None:
    pace = Pace(0.1, 0.0)
    search = Search(5.0)
    assert search.sight is Sight.UNKNOWN and search.next_question == 5.0
    search.asked(5.0)
    assert search.sight is Sight.ASKED and search.next_question == float("inf")
    search.found()
    assert search.sight is Sight.THERE and search.next_question == float("inf")
    search.lost(20.0, pace, 0.02)
    assert search.sight is Sight.UNKNOWN
    assert 20.07 < search.next_question < 20.08, "the answer is there when libzmq comes back"
    search.hurry(20.0, pace)
    assert search.next_question == 20.0, "for a new tunnel libzmq comes at once"
    search.asked(20.0)
    search.found()
    search.lost(20.02, pace, 3.0)
    assert search.next_question == 20.1, "a peer that hangs up at once is not asked without pause"
    search.asked(20.1)
    search.refused(20.2, Pace(0.1, 30.0), 0.0)
    assert search.sight is Sight.AWAY and search.next_question == 20.2 + 0.1
    for _ in range(9):
        search.refused(30.0, Pace(0.1, 30.0), 0.0)
    assert search.next_question == 60.0
    search.hurry(40.0, pace)
    assert search.next_question == 40.0
    search.restart(41.0)
    assert search.sight is Sight.UNKNOWN and search.next_question == 41.0


def test_a_peer_that_libzmq_has_left_is_asked_for_when_it_is_wanted_again() -> None:
    """Not sooner: that its tunnel closes is known a moment after its connection has ended."""
    pace = Pace(0.1, 0.0)
    search = Search(5.0)
    search.asked(5.0)
    search.found()
    search.left(5.01, pace, 0.004)
    assert search.sight is Sight.UNKNOWN and search.next_question == pytest.approx(5.103)
    search.hurry(5.02, pace)
    assert search.next_question == 5.02, "not after RECONNECT_IVL: that is for what was refused"
    search.refused(5.03, pace, 0.0)
    search.left(5.04, pace, 0.004)
    assert search.sight is Sight.AWAY and search.next_question == 5.13


def test_a_libzmq_that_does_not_retry_does_not_come_back() -> None:
    assert Pace(0.0).longest(100) == Pace(-0.001).longest(100) == 0
