"""At once after a short drop; patient with a server that stays away, or counts our tries."""

from __future__ import annotations

import itertools
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq.gateway.redial import QUICK_TRIES, Redial

CHANCES = st.lists(st.floats(0, 1), min_size=60, max_size=60)


def tries(chances: list[float]) -> list[float]:
    """Return when a server is dialled that is lost at 0, after a session of an hour."""
    redial = Redial()
    redial.up(-3600.0)
    now = redial.lost(0.0, chances[0], carried=True)
    times = [now]
    for chance in chances[1:]:
        now += redial.failed(chance)
        times.append(now)
    return times


@given(CHANCES)
def test_a_server_that_is_restarted_is_dialled_at_once_and_soon_again(chances: list[float]) -> None:
    times = tries(chances)
    assert times[0] <= 0.05
    gaps = [b - a for a, b in itertools.pairwise(times[:QUICK_TRIES])]
    assert max(gaps) <= 0.7 + 1e-9


@given(CHANCES)
def test_a_server_that_stays_away_is_dialled_at_most_six_times_in_30_s(
    chances: list[float],
) -> None:
    later = tries(chances)[QUICK_TRIES:]
    for first in later:
        assert sum(first <= time < first + 30 for time in later) <= 6
    steady = later[4:]
    for first in steady:
        assert sum(first <= time < first + 30 for time in steady) <= 5


@given(CHANCES, st.floats(0.1, 20), st.booleans())
def test_a_limiter_that_counts_tries_lets_us_pass(
    chances: list[float], outage: float, strict: bool
) -> None:
    # As ufw's: who has tried six times in 30 s is refused; a strict one counts what it refuses.
    seen: deque[float] = deque()
    for time in tries(chances):
        while seen and seen[0] <= time - 30:
            seen.popleft()
        refused = len(seen) + 1 >= 6
        if strict or not refused:
            seen.append(time)
        if time >= outage and not refused:
            assert time <= outage + 60
            return
    raise AssertionError("never")


@given(CHANCES)
def test_a_session_that_does_not_last_is_no_success(chances: list[float]) -> None:
    redial, now = Redial(), 0.0
    delays = []
    for chance in chances:
        delay = redial.lost(now, chance, carried=False)
        delays.append(delay)
        now += delay
        redial.up(now)
        now += 1.0  # and is lost
    assert min(delays[QUICK_TRIES + 4 :]) >= 7.5


def test_a_session_that_lasted_lets_the_tries_begin_anew() -> None:
    redial = Redial()
    for _ in range(50):
        redial.failed(0)
    redial.up(1000.0)
    assert redial.lost(1010.0, 0, carried=False) == 0.05


@given(CHANCES)
def test_a_server_that_comes_and_goes_is_found_soon(chances: list[float]) -> None:
    redial = Redial()
    for chance in chances:
        for _ in range(4):
            assert redial.failed(chance) <= 0.7
        redial.up(0.0)
        assert redial.lost(1.0, chance, carried=False) <= 0.7


@given(CHANCES)
def test_a_link_that_drops_often_is_mended_soon(chances: list[float]) -> None:
    redial = Redial()
    for chance in chances:
        redial.up(0.0)
        assert redial.lost(1.0, chance, carried=True) <= 0.7
        redial.up(10.0)
        assert redial.lost(12.0, chance, carried=True) <= 0.05
