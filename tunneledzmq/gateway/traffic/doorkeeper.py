"""Whose a connection is to a local leg that the system does not keep private by itself."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ...shared.system.owner import Connections, connections
from ...shared.system.polling import look_at

__all__ = ["Doorkeeper", "is_of"]

logger = logging.getLogger("tunneledzmq")

# Looks after which a connection that nobody is known to have is refused, and seconds between them:
# Wine does not know whose a socket is before something was sent or asked for through it.
_LOOKS = 20
_STEP = 0.05


class _Question(NamedTuple):
    sock: socket.socket
    ends: tuple[tuple[str, int], tuple[str, int]]
    """The addresses of the connection, the other end's first."""

    owner: int
    answer: Callable[[bool], None]
    looks: int = 1
    """The how manieth look is the next one."""


class Doorkeeper:
    """Asks the system whose connections are, for many at a time, before a byte of them is carried.

    It has a thread of its own, while there is something to ask: the more connections a machine has
    the longer it takes.

    Args:
        call: has something done on the gateway's thread, which calls all methods.
    """

    def __init__(self, call: Callable[[Callable[[], None]], None]) -> None:
        self._call = call
        # Mutex for the state below.
        self._lock = threading.Lock()
        self._questions: list[_Question] = []
        self._asks = False

    def ask(self, sock: socket.socket, owner: int, answer: Callable[[bool], None]) -> None:
        """Find out whether the other end of a connection belongs to a process.

        Args:
            sock: our end.
            owner: the process.
            answer: called on the gateway's thread.
        """
        try:
            ends = sock.getpeername()[:2], sock.getsockname()[:2]
        except OSError:  # it has gone again
            self._call(partial(answer, False))
            return
        with self._lock:
            self._questions.append(_Question(sock, ends, owner, answer))
            if self._asks:
                return
            self._asks = True
        try:
            threading.Thread(target=self._run, name="tunneledzmq-owners", daemon=True).start()
        except RuntimeError:  # there are too many
            self._run()

    def _run(self) -> None:
        while True:
            with self._lock:
                questions, self._questions = self._questions, []
                self._asks = bool(questions)
            if not questions:
                return
            try:
                found = connections()
            except OSError as exc:
                logger.info("the system does not tell whose connections are: %s", exc)
                found = {}
            unknown = []
            for question in questions:
                ours = is_of(question.owner, found, question.ends)
                # Of one that has gone again, the system tells nothing more.
                if ours is None and question.looks < _LOOKS and not look_at(question.sock)[0]:
                    unknown.append(question._replace(looks=question.looks + 1))
                else:
                    self._call(partial(question.answer, bool(ours)))
            if unknown:
                time.sleep(_STEP)
                with self._lock:
                    self._questions += unknown


def is_of(
    owner: int, found: Connections, ends: tuple[tuple[str, int], tuple[str, int]]
) -> bool | None:
    """Tell whether a connection belongs to a process; `None` if it is not known whose it is.

    Args:
        owner: the process.
        found: the connections of this machine.
        ends: the addresses of the connection, that of the process first.
    """
    pid = found.get(ends, 0)
    return None if pid == 0 else pid == owner
