"""What a thread of the program waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

__all__ = ["Reply"]


class Reply:
    """What a thread of the program waits for. The first answer counts.

    While it waits, it does what the gateway asks for: the user is asked for a password on the
    thread that calls connect, where Ctrl-C is heard.
    """

    def __init__(self) -> None:
        # Mutex serializing the answer and the end of waiting.
        self._lock = threading.Lock()
        # What there is to be done, and at last the answer.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._error: Exception | None = None
        self._done = False

    def set(self) -> None:
        """Let the waiting thread go on."""
        self._finish(None)

    def fail(self, error: Exception) -> None:
        """Have the waiting thread raise `error`."""
        self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        with self._lock:
            if not self._done:
                self._done = True
                self._error = error
                self._calls.put(None)

    def ask(self, call: Callable[[], None]) -> bool:
        """Have the waiting thread do something; tell whether it will."""
        with self._lock:
            if not self._done:
                self._calls.put(call)
            return not self._done

    def leave(self) -> list[Callable[[], None]]:
        """Wait no more; return what was left to be done."""
        with self._lock:
            self._done = True
        left = []
        with suppress(Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    left.append(call)
        return left

    def wait(self, timeout: float) -> bool:
        """Wait for the answer; `False` if there is nothing to do for `timeout` seconds."""
        try:
            while (call := self._calls.get(timeout=timeout)) is not None:
                call()
        except Empty:
            return False
        if self._error is not None:
            raise self._error
        return True
