"""Seconds for which somebody has run, whoever was suspended."""

from __future__ import annotations

from tunneledzmq.gateway.clocks import TICK, OwnClock, ProgramClock


def ask_for(clock: ProgramClock, start: float, seconds: float, *, answer: bool = True) -> float:
    """Look for some seconds; return when it ended."""
    now = start
    while now < start + seconds:
        if clock.look(now) and answer:
            clock.answered(now + 0.001)
        now += 0.01
    return now


def test_a_program_that_runs() -> None:
    clock = ProgramClock()
    ask_for(clock, 100.0, 10)
    assert 9 <= clock.seconds <= 10


def test_a_program_that_is_suspended_stops_its_clock() -> None:
    clock = ProgramClock()
    now = ask_for(clock, 100.0, 1)
    before = clock.seconds
    now = ask_for(clock, now, 3600, answer=False)
    assert clock.seconds == before
    clock.answered(now)
    assert clock.seconds <= before + 1.5 * TICK
    ask_for(clock, now, 1)
    assert before + 0.8 <= clock.seconds <= before + 1.2


def test_what_was_not_asked_for_does_not_count() -> None:
    clock = ProgramClock()
    ask_for(clock, 100.0, 1)
    before = clock.seconds
    ask_for(clock, 10_000.0, 1)
    assert before + 0.8 <= clock.seconds <= before + 1.0


def test_our_own_clock_does_not_count_what_we_have_slept_through() -> None:
    clock = OwnClock(0.0)
    for second in range(1, 11):
        clock.read(float(second))
    assert clock.read(10.0) == 10
    assert clock.read(100_000.0) <= 12
