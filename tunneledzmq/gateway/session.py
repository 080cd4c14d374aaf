"""The life of a gateway's SSH session: it is dialled, watched, and dialled again."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from itertools import count
from typing import Protocol

from ..shared.control import Message
from .alive import Alive, Verdict
from .attempt import Attempt
from .login import Login, LoginError
from .questions import Questions
from .redial import Redial
from .traffic.transport import Transport

__all__ = ["Dialler", "Session", "SessionOwner", "State"]

logger = logging.getLogger("tunneledzmq")

# Threads of attempts that were left behind, at most, when another one is begun.
_MAX_LEFT = 3

# Seconds to wait for the thread of a session that was told to end.
_END_TIMEOUT = 5.0

_NEVER = float("inf")


class State(Enum):
    """The SSH session.

    =========  ==========================================  ==========================
    from       on                                          to
    =========  ==========================================  ==========================
    OFF        a tunnel is wanted                          DIALING
    DIALING    logged in                                   UP
    DIALING    failed, or connect_timeout is over          WAITING
    DIALING    refused for good (key, host key)            REFUSED
    DIALING    a program waits, who may help with a hop    DIALING (anew)
    UP         lost                                        WAITING
    WAITING    the delay is over, or a tunnel is wanted    DIALING
    REFUSED    a tunnel is wanted                          DIALING
    =========  ==========================================  ==========================
    """

    OFF = "off"
    DIALING = "dialing"
    UP = "up"
    WAITING = "waiting"
    REFUSED = "refused"


class Dialler(Protocol):
    """A way to a server."""

    @property
    def login(self) -> Login:
        """Where and how it logs in."""
        ...

    def dial(self, attempt: Attempt) -> Transport:
        """Set up an SSH session.

        Raises:
            LoginError: it cannot be had.
        """
        ...


class SessionOwner(Protocol):
    """The gateway, as its session sees it."""

    def on_up(self) -> None:
        """There is a session."""
        ...

    def on_down(self, error: LoginError) -> None:
        """There is none (any more); unless it is refused, it is dialled again."""
        ...


class Session:
    """All of it belongs to the gateway's thread.

    Args:
        owner: who is told.
        call: has something done on the gateway's thread.
        send: sends a message to the program.
    """

    def __init__(
        self,
        owner: SessionOwner,
        call: Callable[[Callable[[], None]], None],
        send: Callable[[Message], None],
    ) -> None:
        self.state = State.OFF
        self.transport: Transport | None = None
        """The session, if there is one."""

        self.reconnects = 0
        self._dialler: Dialler
        self._owner = owner
        self._call = call
        self._send = send
        self._serials = count(1)
        self._redial = Redial()
        self._dial_at = _NEVER
        # What is being dialled, and whether a program waited for it when that began.
        self._attempt: Attempt | None = None
        self._for_program = False
        # The threads of attempts, the present one's and those that were left behind.
        self._diallers: list[threading.Thread] = []
        self._alive: Alive | None = None
        # Why we have ended the session, if we have.
        self._gave_up = ""
        self._orphaned = False

    def use(self, dialler: Dialler) -> None:
        """Log in this way, when a tunnel is wanted."""
        self._dialler = dialler

    def want(self) -> None:
        """Have a session, now: the program waits for it."""
        if self.state is State.DIALING:
            if self._dialler.login.behind_hop and not self._for_program:
                # The hop may have to be asked once more to let us in.
                self._leave_attempt()
                self._dial(for_program=True)
        elif self.state is not State.UP:
            self._dial(for_program=True)

    def answer(self, message: Message) -> None:
        """Hand an answer of the program's to whoever asked."""
        if self._attempt is not None:
            self._attempt.questions.answer(message["serial"], message)

    def tell(self, step: str, detail: str) -> None:
        """Tell the program of a step that is done after the login."""
        self._send({"type": "step", "name": step, "seconds": 0.0, "detail": detail})

    def orphan(self) -> None:
        """Ask the program nothing more."""
        self._orphaned = True
        if self._attempt is not None:
            self._attempt.questions.give_up()

    def close(self) -> None:
        """End the session in order."""
        self._leave_attempt()
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.disconnect()
            transport.join(_END_TIMEOUT)

    def check(self, now: float) -> float:
        """Do what is due.

        Returns:
            When to look again (time.monotonic).
        """
        if self.state is State.DIALING:
            return self._check_attempt(now)
        if self.state is State.WAITING:
            if now < self._dial_at:
                return self._dial_at
            self._dial(for_program=False)
            return self._check_attempt(now)
        if self.state is State.UP:
            return self._check_alive(now)
        return _NEVER

    # Dialling

    def _dial(self, *, for_program: bool) -> None:
        self.state = State.DIALING
        self._for_program = for_program
        questions = Questions(self._send, self._serials)
        if self._orphaned:
            questions.give_up()
        attempt = self._attempt = Attempt(questions, self._dialler.login.given_up)
        self._diallers = [thread for thread in self._diallers if thread.is_alive()]
        if len(self._diallers) > _MAX_LEFT:
            text = (
                f"{len(self._diallers)} logins that were given up have not ended yet: a disk (with "
                "known_hosts, keys or a command on it), or a name server, does not answer"
            )
            self._fail_later(attempt, text)
            return
        thread = threading.Thread(
            target=self._log_in, args=(attempt,), name="tunneledzmq-dial", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # there are too many
            self._fail_later(attempt, f"cannot start a thread to log in: {exc}")
        else:
            self._diallers.append(thread)

    def _fail_later(self, attempt: Attempt, text: str) -> None:
        error = self._dialler.login.no_connection(errno.EAGAIN, text)
        self._call(lambda: self._on_failed(attempt, error))

    def _log_in(self, attempt: Attempt) -> None:
        try:
            transport = self._dialler.dial(attempt)
        except LoginError as exc:
            error = exc
        except Exception as exc:
            logger.debug("unexpected", exc_info=True)
            login = self._dialler.login
            error = login.no_connection(errno.EPROTO, f"{type(exc).__name__}: {exc}")
        else:
            self._call(lambda: self._on_logged_in(attempt, transport))
            return
        self._call(lambda: self._on_failed(attempt, error))

    def _check_attempt(self, now: float) -> float:
        attempt = self._attempt
        assert attempt is not None
        if attempt.questions.pending:
            return _NEVER  # the answer wakes us
        left = self._dialler.login.connect_timeout - attempt.questions.elapsed
        if left > 0:
            return now + left
        # Whatever its thread waits for, nobody waits for it.
        self._leave_attempt()
        self._fail(self._dialler.login.timed_out(attempt.questions.stage))
        return now

    def _leave_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abort()

    def _on_failed(self, attempt: Attempt, error: LoginError) -> None:
        if attempt is self._attempt:
            self._attempt = None
            self._fail(error)

    def _on_logged_in(self, attempt: Attempt, transport: Transport) -> None:
        if attempt is not self._attempt:
            transport.abort()
            return
        self._attempt = None
        login = self._dialler.login
        if not transport.is_active():
            self._fail(
                login.no_connection(
                    errno.ECONNRESET, "the server closed the connection after the login"
                )
            )
            return
        logger.info("%s: logged in", login.server)
        now = time.monotonic()
        self.state, self.transport = State.UP, transport
        self._redial.up(now)
        self._gave_up = ""
        self._alive = Alive(login.server_alive_interval, login.server_alive_count_max, now)
        self._owner.on_up()

    def _fail(self, error: LoginError) -> None:
        if error.passing:
            self._retry_after(self._redial.failed(random.random()))
        else:
            # Asking again would not help, and may get us banned.
            self.state = State.REFUSED
        self._owner.on_down(error)

    def _retry_after(self, delay: float) -> None:
        self.state = State.WAITING
        self._dial_at = time.monotonic() + delay

    # The session

    def on_end(self, transport: Transport, reason: str) -> None:
        """Note that a session has ended. For its thread."""
        self._call(lambda: self._on_lost(transport, reason))

    def _on_lost(self, transport: Transport, reason: str) -> None:
        if transport is not self.transport:
            return  # given up while it was dialled
        self.transport = None
        self.reconnects += 1
        delay = self._redial.lost(time.monotonic(), random.random(), carried=transport.carried)
        self._retry_after(delay)
        text = f"the SSH session was lost: {self._gave_up or reason}"
        self._owner.on_down(self._dialler.login.no_connection(errno.ECONNRESET, text))

    def _check_alive(self, now: float) -> float:
        assert self._alive is not None and self.transport is not None
        if now < self._alive.next_look:
            return self._alive.next_look
        verdict = self._alive.look(now, self.transport.heard(now))
        if verdict is Verdict.ASK:
            with suppress(OSError, EOFError):
                self.transport.ask_alive()
        elif verdict is Verdict.GIVE_UP:
            login = self._dialler.login
            silence = login.server_alive_interval * login.server_alive_count_max
            self._gave_up = f"the server did not answer for {silence:g} s (ServerAliveInterval)"
            self.transport.abort()
        return self._alive.next_look
