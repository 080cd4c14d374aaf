"""What a gateway tells and asks the program while it logs in: its steps, a hop, a password."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from ..shared.control import Message
from .login import Login, LoginError

__all__ = ["Questions"]


class Questions:
    """The questions of one login, which the request loop sends and whose answers it gets.

    Args:
        send: sends a message to the program.
        serials: numbers for the questions.
    """

    def __init__(self, send: Callable[[Message], None], serials: Iterator[int]) -> None:
        self._send = send
        self._serials = serials
        self.stage = ""
        """The last step that is done, by its name in ``tunneledzmq check``."""

        # Mutex for the state below.
        self._lock = threading.Lock()
        self._serial = 0
        self._answered = threading.Event()
        self._answer: Message = {}
        self._nobody = False

        # Seconds that the program took for its answers.
        self._taken = 0.0
        self._asked_at: float | None = None
        self._began = time.monotonic()
        # When the last step was done.
        self._step_done_at = self._began
        self.declined = False
        """Whether the user was asked, and ended the input instead of an answer (Ctrl-D)."""
        self.hindrance = ""
        """Why the user could not be asked, where there is a way that failed."""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning, without those that the program took."""
        now = time.monotonic()
        with self._lock:
            waiting = 0.0 if self._asked_at is None else now - self._asked_at
            return now - self._began - self._taken - waiting

    @property
    def pending(self) -> bool:
        """Whether the program has a question to answer."""
        return self._asked_at is not None

    def tell(self, step: str, detail: str) -> None:
        """Tell the program of a step that is done, by its name in ``tunneledzmq check``."""
        self.stage = step
        before, self._step_done_at = self._step_done_at, time.monotonic()
        seconds = self._step_done_at - before
        self._send({"type": "step", "name": step, "seconds": seconds, "detail": detail})

    def prompt(self, text: str, *, echo: bool) -> str | None:
        """Ask the program's user for a secret.

        Returns:
            The answer; `None` if there is nobody to ask.

        Raises:
            LoginError: the program's ``prompt`` failed.
        """
        answer = self._ask({"what": "prompt", "text": text, "echo": echo})
        if "error" in answer:
            raise LoginError(**answer["error"])
        value: str | None = answer.get("value")
        self.declined = answer.get("declined", False)
        self.hindrance = answer.get("hindrance", "")
        return value

    def hop(self, login: Login) -> str:
        """Ask the program for the way to the server over its hop.

        Returns:
            The local endpoint that leads to the server.

        Raises:
            LoginError: there is no session with the hop.
        """
        answer = self._ask(
            {"what": "hop", "host": login.host, "port": login.port, "jump": login.proxy_jump}
        )
        if "error" in answer:
            error = LoginError(**answer["error"])
            raise LoginError(error.kind, error.errno, f"{login.server}: hop {error.message}")
        endpoint: str | None = answer.get("value")
        if endpoint is None:
            raise login.given_up()
        return endpoint

    def answer(self, serial: int, message: Message) -> None:
        """Hand an answer to the thread that asked."""
        with self._lock:
            if serial == self._serial and self._asked_at is not None:
                self._settle(message)

    def give_up(self) -> None:
        """Answer what is asked now, and whatever will be: nobody is there any more."""
        with self._lock:
            self._nobody = True
            if self._asked_at is not None:
                self._settle({})

    def _settle(self, answer: Message) -> None:
        # From here on the time is the server's again, whenever the thread that asked wakes up.
        assert self._asked_at is not None
        self._taken += time.monotonic() - self._asked_at
        self._asked_at = None
        self._answer = answer
        self._answered.set()

    def _ask(self, question: Message) -> Message:
        with self._lock:
            if self._nobody:
                return {}
            self._serial = next(self._serials)
            self._answered.clear()
            self._asked_at = time.monotonic()
            # With the lock: an answer finds the question asked.
            self._send({"type": "ask", "serial": self._serial, **question})
        self._answered.wait()
        return self._answer
