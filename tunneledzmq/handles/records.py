"""Log records, which a thread of their own hands to the program's handlers."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["log", "settle"]

# Seconds for which the thread waits for further records before it ends.
_REST = 1.0

# Seconds for which somebody waits for what was logged before; a handler may be in need of what
# waits there.
_PATIENCE = 0.5


class Records:
    """Calls of logging's in order, on a thread that is there while there are some.

    Handlers are the program's code: they may raise, take their time, or wait for a connect. Whoever
    receives from a gateway must not run them.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # Mutex for the thread's beginning and end.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], None]) -> None:
        """Have something done after all that came before."""
        self._queue.put(call)
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="tunneledzmq-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are none left: the next record may be luckier
                return
            self._thread = thread

    def settle(self) -> None:
        """Wait until what is there has been handed out, unless that takes long."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        done = threading.Event()
        self.put(done.set)
        done.wait(_PATIENCE)

    def end(self) -> None:
        """Hand out what is there at the end of the program."""
        self.settle()
        if self._thread is None:
            while not self._queue.empty():
                _do(self._queue.get())

    def _run(self) -> None:
        while True:
            try:
                call = self._queue.get(timeout=_REST)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
            else:
                _do(call)


def _do(call: Callable[[], None]) -> None:
    try:
        call()
    except BaseException:
        # A handler's; it is told as of any other thread of the program.
        kind, error, trace = sys.exc_info()
        assert kind is not None
        threading.excepthook(
            threading.ExceptHookArgs((kind, error, trace, threading.current_thread()))
        )


_records = Records()


def log(name: str, level: int, message: str, extra: dict[str, Any] | None = None) -> None:
    """Log a message, soon and in order. Never waits, and never raises what a handler does."""
    _records.put(lambda: logging.getLogger(name).log(level, "%s", message, extra=extra))


def settle() -> None:
    """Wait until what was logged before has been handed out, unless that takes long."""
    _records.settle()


def _after_fork() -> None:
    # A forked child has neither the thread nor, maybe, the lock.
    global _records
    _records = Records()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

atexit.register(lambda: _records.end())
