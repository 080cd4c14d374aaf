"""Races made certain: a call stands still at a line of ours while something else happens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import tunneledzmq

PACKAGE = tunneledzmq.__name__


def interrupted_at_line(
    number: int, call: Callable[[], None], meanwhile: Callable[[], None]
) -> bool:
    """Make a call, and have something else happen just before it executes a line of the package.

    Args:
        number: which of the lines, counted as they are executed, from 0.
        call: what is called.
        meanwhile: what happens then.

    Returns:
        Whether the call executed so many lines.

    """
    left = number
    happened = False

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left, happened
        if not frame.f_globals.get("__name__", "").startswith(PACKAGE):
            return None
        if event == "line" and not happened:
            if left == 0:
                happened = True
                meanwhile()
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return happened
