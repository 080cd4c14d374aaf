"""The state of a tunnel follows from what is known of it, in whatever order that came."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq import SSHOptions
from tunneledzmq.shared.control import How
from tunneledzmq.tunnel import Closing, State, Tunnel, state_of

FACTS = st.fixed_dictionaries(
    {name: st.booleans() for name in ("ended", "closing", "opened", "working")}
)


@given(FACTS)
def test_an_end_is_final(facts: dict[str, bool]) -> None:
    assert state_of(**{**facts, "ended": True}) is State.CLOSED
    assert state_of(**{**facts, "ended": False, "closing": True}) is State.CLOSING


@given(FACTS)
def test_a_tunnel_is_up_only_if_it_works(facts: dict[str, bool]) -> None:
    if state_of(**facts) is State.UP:
        assert facts == {"ended": False, "closing": False, "opened": True, "working": True}


@pytest.mark.parametrize("order", list(permutations(["close", "failed", "opened"])))
def test_close_may_meet_any_word_of_the_gateway(order: tuple[str, ...]) -> None:
    tunnel = Tunnel("tcp://127.0.0.1:1", SSHOptions("me@bastion"))
    for event in order:
        if event == "close":
            tunnel._closing = Closing(0, How.CLOSED)
        elif event == "failed":
            tunnel._ended = True
        else:
            tunnel._opened = tunnel._has_session = True
    assert tunnel.state == "closed"


def test_what_a_tunnel_waits_for_is_seen() -> None:
    tunnel = Tunnel("tcp://127.0.0.1:1", SSHOptions("me@bastion"))
    assert repr(tunnel) == "<Tunnel tcp://127.0.0.1:1 via me@bastion [connecting]>"
    tunnel._opened = tunnel._has_session = True
    tunnel._trouble = tunnel._last_error = "the server cannot connect to it"
    way = "<Tunnel tcp://127.0.0.1:1 via me@bastion"
    assert repr(tunnel) == f"{way} [up: the server cannot connect to it]>"
    # What stands there already is not said twice.
    tunnel._trouble = "me@bastion: 127.0.0.1:1: the server cannot connect to it"
    assert repr(tunnel) == f"{way} [up: the server cannot connect to it]>"
    tunnel._trouble = None
    assert repr(tunnel) == f"{way} [up]>"
    tunnel._has_session = False
    assert repr(tunnel) == f"{way} [down: the server cannot connect to it]>"
