"""Forks of the program, in whatever thread, do not fall into the middle of what is done here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["undivided"]

# Seconds for which a fork and what is undivided wait for each other.
_PATIENCE = 5.0

# Held while something is undivided, and while a process forks. A signal's handler and a finalizer
# may fork in the middle of what is undivided.
_lock: Any = threading.RLock()

# What a thread that forks holds.
_forking = threading.local()


@contextmanager
def undivided() -> Iterator[None]:
    """Let no other thread fork in the middle of this.

    A forked child has copies of all descriptors; it can only close those that are noted somewhere.
    """
    lock = None
    try:
        lock = _take()
        yield
    finally:
        if lock is not None:
            lock.release()


def _take() -> Any:
    """Return the lock, held; `None` if it is not to be had."""
    global _lock
    lock = _lock
    if lock.acquire(timeout=_PATIENCE):
        return lock
    # Whoever has it waits for what this thread holds, or was interrupted before it let go.
    _lock = threading.RLock()
    return None


def _before_fork() -> None:
    _forking.lock = _take()


def _after_fork_in_parent() -> None:
    lock, _forking.lock = getattr(_forking, "lock", None), None
    if lock is not None:
        lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
