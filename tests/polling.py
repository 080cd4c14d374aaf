"""Waiting, with a deadline."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 5 if sys.platform == "win32" else 1
"""By how much longer all may take: Windows is Wine here, and it is not about speed there."""


def wait_until(condition: Callable[[], T], timeout: float = 10, what: str = "") -> T:
    """Poll `condition` until it holds, and return what it returned.

    Args:
        condition: polled every 10 ms, less often where it takes long to tell; holds as soon as it
            returns something true.
        timeout: seconds until the wait fails, but for `PATIENCE`.
        what: what is waited for, for the message.

    Raises:
        AssertionError: it did not hold in time.

    """
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        start = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(max(0.01, 2 * (now - start)))


def wait_for_end(process: subprocess.Popen[Any], timeout: float = 5) -> None:
    """Wait for the end of a process that has been told to end; kill it when that takes long."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
