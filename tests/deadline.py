"""A test that fails must not hang: what it still does after that is bounded too.

pytest-timeout's clock strikes once, and stops when a test has failed. Yet whatever made it fail may
hold up the `__exit__` of a program that it runs, and the ends of its fixtures, one after the other.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import zmq

Context = TypeVar("Context", bound="zmq.Context[Any]")

TEARDOWN = 30.0
"""Seconds that the ends of a test's fixtures may take together."""

AGAIN = 10.0
"""Seconds for each further thing that hangs, after a first one did."""

_unended: list[zmq.Context[Any]] = []
"""Contexts that did not end: the garbage collector would blame a later test for them."""


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Interrupt and fail `what` the body does when it takes longer, with all threads' stacks.

    For the main thread only. It takes pytest-timeout's clock, and gives it back.
    """

    if sys.platform == "win32":  # pytest-timeout has a thread there, which ends the run
        yield
        return

    def interrupt(*_: object) -> None:
        pytest.fail(f"{what} took longer than {seconds:g} s; the other threads:\n{_stacks()}")

    handler = signal.signal(signal.SIGALRM, interrupt)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)


@contextmanager
def ending(context: Context, seconds: float = 10.0) -> Iterator[Context]:
    """Destroy a context after the body, and fail when that takes longer than `seconds`."""
    try:
        yield context
    finally:
        try:
            with within(seconds, "the end of a context"):
                context.destroy(linger=0)
        except BaseException:
            _unended.append(context)
            raise


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(settings: Any) -> Iterator[None]:
    """Let pytest-timeout's clock strike again and again."""
    done = yield
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    return done


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Let the fixtures end in bounded time, whether or not the test has failed."""
    with within(TEARDOWN, "the end of the fixtures"):
        return (yield)


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "".join(
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    )
