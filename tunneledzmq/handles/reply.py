"""What a thread of the program waits for."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import Protocol

__all__ = ["Call", "Interrupted", "Reply"]

# Seconds that a wait takes at a time. A program that is suspended (Ctrl-Z) meanwhile loses no more:
# the answer may have come long since, and be read only now.
_SLICE = 1.0

# What this thread waits for already, while it does what a gateway has asked for.
_outer = threading.local()


class Interrupted(Exception):
    """The thread must go: that for which it waits in the first place has failed."""


class Call(Protocol):
    """What a gateway asks for."""

    def __call__(self) -> None:
        """Do it."""
        ...

    def refuse(self, why: str) -> None:
        """Say that it cannot be done."""
        ...


class Reply:
    """What a thread of the program waits for. The first answer counts.

    While it waits, it does what the gateway asks for: the user is asked for a password on the
    thread that calls connect, where Ctrl-C is heard.

    There are no locks: finalizers may answer, also one that interrupts the thread that waits.

    Args:
        within: whether it may be waited for in the middle of another one.
    """

    def __init__(self, *, within: bool = False) -> None:
        # What there is to be done, and at last the answer: an error or `None`.
        self._queue: queue.SimpleQueue[Call | Exception | None] = queue.SimpleQueue()
        self._left = False
        # What the waiting thread waits for in the middle of this.
        self._inner: Reply | None = None
        self._interrupted = False
        outer: Reply | None = getattr(_outer, "reply", None) if within else None
        if outer is not None:
            outer._inner = self
            if outer._interrupted:
                self.interrupt(Interrupted())

    def set(self) -> None:
        """Let the waiting thread go on."""
        self._queue.put(None)

    def fail(self, error: Exception) -> None:
        """Have the waiting thread raise `error`."""
        self._queue.put(error)

    def interrupt(self, error: Exception) -> None:
        """Have the waiting thread raise `error`, whatever it is doing for the gateway just now."""
        self._interrupted = True
        self.fail(error)
        if self._inner is not None:
            self._inner.interrupt(Interrupted())

    def wait(self, timeout: float) -> bool:
        """Wait for the answer; `False` if there is nothing to do for `timeout` seconds.

        Those for which the program is suspended do not count.
        """
        while True:
            try:
                item = self._next(timeout)
            except queue.Empty:
                return False
            if item is None:
                return True
            if isinstance(item, Exception):
                raise item
            outer, _outer.reply = getattr(_outer, "reply", None), self
            try:
                item()
            finally:
                _outer.reply, self._inner = outer, None

    def _next(self, timeout: float) -> Call | Exception | None:
        while timeout > _SLICE:
            timeout -= _SLICE
            with suppress(queue.Empty):
                return self._queue.get(timeout=_SLICE)
        return self._queue.get(timeout=timeout)

    def ask(self, call: Call) -> list[Call]:
        """Have the waiting thread do something; return what must be done by another one."""
        self._queue.put(call)
        return self.leave() if self._left else []

    def leave(self) -> list[Call]:
        """Wait no more; return what was left to be done."""
        self._left = True
        calls = []
        with suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None and not isinstance(item, Exception):
                    calls.append(item)
        return calls
