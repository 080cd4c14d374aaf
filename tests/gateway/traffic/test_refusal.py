"""Why a server opens no channel, in words."""

from __future__ import annotations

import pytest

from tunneledzmq.gateway.traffic.refusal import refusal


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 0xFFFFFFFF])
def test_refusals(code: int) -> None:
    said = refusal(code, "\x1b]0;title\x07\n" + "no! " * 100_000)
    assert said.isprintable()
    assert len(said) < 700


def test_an_empty_reason_leaves_no_colon() -> None:
    for code in range(5):
        assert not refusal(code, b" ").endswith((":", " ", "()"))
        assert refusal(code, b"why").endswith(": why")
