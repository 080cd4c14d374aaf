"""One attempt to log in, which may be given up, and left behind, at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .login import LoginError
from .questions import Questions

__all__ = ["Attempt"]


class Attempt:
    """What an attempt has set up so far, and how it is undone from another thread.

    The thread that logs in may be waiting where nothing wakes it: for a name server, or a disk.
    Nobody waits for it then. What it still does goes nowhere, and the next attempt has a thread,
    questions and sockets of its own.

    Args:
        questions: where the program is asked.
        given_up: makes the error for what goes on after :meth:`abort`.
    """

    def __init__(self, questions: Questions, given_up: Callable[[], LoginError]) -> None:
        self.questions = questions
        self._given_up = given_up
        # Mutex for the state below.
        self._lock = threading.Lock()
        self._aborted = False
        self._undo: list[Callable[[], None]] = []

    @property
    def aborted(self) -> bool:
        """Whether it has been given up."""
        return self._aborted

    def on_abort(
        self, undo: Callable[[], None], instead_of: Callable[[], None] | None = None
    ) -> None:
        """Have something undone when the attempt is given up; or now, if it has been.

        Args:
            undo: how.
            instead_of: what is not to be called any more, but `undo` in its place.

        Raises:
            LoginError: it has been given up.
        """
        with self._lock:
            if not self._aborted:
                if instead_of is not None:
                    self._undo.remove(instead_of)
                self._undo.append(undo)
                return
        undo()
        raise self._given_up()

    def check(self) -> None:
        """Go no further if the attempt has been given up.

        Raises:
            LoginError: it has been.
        """
        if self._aborted:
            raise self._given_up()

    def abort(self) -> None:
        """Give it up. Never waits."""
        with self._lock:
            self._aborted = True
            undo, self._undo = self._undo, []
        self.questions.give_up()
        for call in reversed(undo):
            call()
