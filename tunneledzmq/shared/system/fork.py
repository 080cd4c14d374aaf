"""Forks of the program, in whatever thread, do not fall into the middle of what is done here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["undivided"]

# Seconds for which a fork and what is undivided wait for each other: each may be called by a
# program that holds what the other one waits for.
_PATIENCE = 5.0

# Held while something is undivided, and while a process forks. A signal's handler and a finalizer
# may fork in the middle of what is undivided.
_lock = threading.RLock()


@contextmanager
def undivided() -> Iterator[None]:
    """Let no other thread fork in the middle of this.

    A forked child has copies of all descriptors; it can only close those that are noted somewhere.
    """
    lock = _lock  # a child has another one
    held = lock.acquire(timeout=_PATIENCE)
    try:
        yield
    finally:
        if held:
            lock.release()


def _before_fork() -> None:
    _lock.acquire(timeout=_PATIENCE)


def _after_fork_in_parent() -> None:
    with suppress(RuntimeError):  # it was not to be had
        _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
