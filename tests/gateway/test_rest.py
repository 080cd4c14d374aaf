"""A session outlives its last tunnel as long as it was told to, and never the program."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq.gateway.rest import Rest

SECONDS = st.floats(0, 1000)


def look(rest: Rest, now: float, **facts: bool | int) -> float | None:
    usual = {"tunnels": 0, "used": True, "session": True, "orphaned": False}
    return rest.look(now, **{**usual, **facts})  # type: ignore[arg-type]


@given(persist=SECONDS, start=SECONDS, gaps=st.lists(SECONDS, max_size=20))
def test_it_ends_persist_seconds_after_its_last_tunnel(
    persist: float, start: float, gaps: list[float]
) -> None:
    rest, now = Rest(persist), start
    for gap in gaps:
        assert look(rest, now, tunnels=1) == float("inf")
        now += gap
        ends_at = now + persist
        if ends_at <= now:
            assert look(rest, now) is None
            continue
        assert look(rest, now) == ends_at
        assert look(rest, ends_at) is None


@given(persist=SECONDS, now=SECONDS)
def test_without_a_program_it_ends_at_once(persist: float, now: float) -> None:
    rest = Rest(persist)
    assert look(rest, now, orphaned=True) is None
    assert look(rest, now, orphaned=True, used=False) is None
    assert look(rest, now, orphaned=True, tunnels=1) is not None


@given(persist=SECONDS, now=SECONDS)
def test_what_is_no_session_is_not_kept(persist: float, now: float) -> None:
    assert look(Rest(persist), now, session=False) is None


@given(persist=SECONDS, now=SECONDS)
def test_the_first_tunnel_is_waited_for_but_not_for_ever(persist: float, now: float) -> None:
    """It does not come if the connect that started the gateway was interrupted."""
    rest = Rest(persist)
    assert look(rest, now, used=False, session=False) == now + 60
    assert look(rest, now + 59, used=False, session=False) == now + 60
    assert look(rest, now + 60, used=False, session=False) is None


@given(persist=SECONDS, now=SECONDS)
def test_the_first_tunnel_may_come_late(persist: float, now: float) -> None:
    rest = Rest(persist)
    look(rest, now, used=False, session=False)
    assert look(rest, now + 59, tunnels=1) == float("inf")
    assert look(rest, now + 100) == (
        now + 100 + persist if now + 100 + persist > now + 100 else None
    )
