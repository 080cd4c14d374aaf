"""Whatever the thread does that logs in, its time is limited, and the next try begins afresh."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.polling import wait_until
from tunneledzmq.gateway.attempt import Attempt
from tunneledzmq.gateway.login import Login, LoginError
from tunneledzmq.gateway.questions import Questions
from tunneledzmq.gateway.session import Session, State

TIMEOUT = 0.3


class Transport:
    """A session that does nothing."""

    carried = False

    def __init__(self) -> None:
        self.aborted = False

    def is_active(self) -> bool:
        return not self.aborted

    def heard(self, now: float) -> float:
        return now

    def abort(self) -> None:
        self.aborted = True

    disconnect = abort

    def join(self, timeout: float) -> None:
        pass


class Station:
    """A gateway with a session, and a forwarder that logs in as it is told to."""

    def __init__(self, *logins: Callable[[Attempt], Any]) -> None:
        self.login = Login("me@bastion:22", "bastion", 22, "me", connect_timeout=TIMEOUT)
        self.sent: list[dict[str, Any]] = []
        self.errors: list[LoginError] = []
        self.ups = 0
        self._logins = deque(logins)
        self._calls: deque[Callable[[], None]] = deque()
        self.session = Session(self, self._calls.append, self.sent.append)
        self.session.use(self)  # type: ignore[arg-type]

    def dial(self, attempt: Attempt) -> Any:
        return self._logins.popleft()(attempt)

    def on_up(self) -> None:
        self.ups += 1

    def on_down(self, error: LoginError) -> None:
        self.errors.append(error)

    def run_until(self, condition: Callable[[], Any], timeout: float = 5) -> None:
        """Be the gateway's thread."""

        def turn() -> Any:
            while self._calls:
                self._calls.popleft()()
            self.session.check(time.monotonic())
            return condition()

        wait_until(turn, timeout)

    def questions(self) -> list[dict[str, Any]]:
        return [message for message in self.sent if message["type"] == "ask"]


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What threads wait for that hang: they end with the test."""
    event = threading.Event()
    yield event
    event.set()


def succeed(attempt: Attempt) -> Transport:
    return Transport()


def test_a_thread_that_hangs_is_left_behind(released: threading.Event) -> None:
    late = Transport()

    def hang(attempt: Attempt) -> Transport:
        released.wait()
        return late

    station = Station(hang, succeed)
    began = time.monotonic()
    station.session.want()
    station.run_until(lambda: station.errors)
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 0.5
    [error] = station.errors
    assert error.errno == errno.ETIMEDOUT and "connect_timeout" in error.message
    station.run_until(lambda: station.ups)
    transport = station.session.transport
    released.set()
    station.run_until(lambda: late.aborted)
    assert station.session.transport is transport and station.session.state is State.UP


def test_threads_that_hang_do_not_pile_up(released: threading.Event) -> None:
    def hang(attempt: Attempt) -> None:
        released.wait()
        attempt.check()

    station = Station(*[hang] * 4, succeed)
    threads = threading.active_count()
    station.session.want()
    station.run_until(lambda: len(station.errors) == 8, timeout=15)
    assert threading.active_count() == threads + 4
    assert [error.errno for error in station.errors[3:5]] == [errno.ETIMEDOUT, errno.EAGAIN]
    assert station.errors[-1].message.startswith("me@bastion:22: 4 logins that were given up")
    assert not station.ups
    released.set()
    station.run_until(lambda: station.ups)


def test_the_time_goes_on_when_the_user_has_answered(released: threading.Event) -> None:
    def ask_and_hang(attempt: Attempt) -> None:
        assert attempt.questions.prompt("Password:", echo=False) == "secret"
        released.wait()

    station = Station(ask_and_hang, succeed)
    station.session.want()
    station.run_until(station.questions)
    typing = time.monotonic() + 2 * TIMEOUT
    station.run_until(lambda: time.monotonic() > typing)
    assert station.session.state is State.DIALING, "the user may take as long as he likes"
    [question] = station.questions()
    answered = time.monotonic()
    station.session.answer({"serial": question["serial"], "value": "secret"})
    station.run_until(lambda: station.errors)
    assert time.monotonic() - answered < TIMEOUT + 0.5
    assert station.errors[0].errno == errno.ETIMEDOUT
    station.run_until(lambda: station.ups)


def test_an_endless_series_of_questions_ends() -> None:
    def ask_on(attempt: Attempt) -> None:
        while attempt.questions.prompt("More?", echo=True) is not None:
            time.sleep(0.02)
        raise LoginError("SSHAuthenticationError", errno.EACCES, "nobody answers any more")

    station = Station(ask_on, succeed)
    station.session.want()
    answered = 0

    def answer() -> bool:
        nonlocal answered
        for question in station.questions()[answered:]:
            station.session.answer({"serial": question["serial"], "value": "yes"})
            answered += 1
        return bool(station.errors)

    began = time.monotonic()
    station.run_until(answer)
    assert time.monotonic() - began < TIMEOUT + 1
    assert answered > 2
    assert station.errors[0].errno == errno.ETIMEDOUT
    station.run_until(lambda: station.ups)


def test_the_stage_that_was_reached_is_told(released: threading.Event) -> None:
    def authenticate_slowly(attempt: Attempt) -> None:
        for step in ("resolve", "connect", "banner", "host key"):
            attempt.questions.tell(step, "done")
        released.wait()

    station = Station(authenticate_slowly)
    station.session.want()
    station.run_until(lambda: station.errors)
    assert "authenticate" in station.errors[0].message
    assert "firewall" not in station.errors[0].message


def test_what_was_set_up_is_undone(released: threading.Event) -> None:
    undone = threading.Event()
    refused = []

    def hang(attempt: Attempt) -> None:
        attempt.on_abort(undone.set)
        released.wait()
        try:
            attempt.on_abort(lambda: refused.append("undone at once"))
        except LoginError as exc:
            refused.append(exc.message)

    station = Station(hang)
    station.session.want()
    station.run_until(lambda: station.errors)
    assert undone.is_set()
    released.set()
    wait_until(lambda: len(refused) == 2)
    assert refused == ["undone at once", "me@bastion:22: the login was given up"]


def test_what_takes_over_is_undone_instead() -> None:
    attempt = Attempt(Questions([].append, count(1)), LoginError)  # type: ignore[arg-type]
    undone: list[str] = []
    first, second = partial(undone.append, "first"), partial(undone.append, "second")
    attempt.on_abort(partial(undone.append, "other"))
    attempt.on_abort(first)
    attempt.on_abort(second, instead_of=first)
    attempt.abort()
    assert undone == ["second", "other"]


def test_a_refusal_is_not_tried_again_before_the_program_connects() -> None:
    def refuse(attempt: Attempt) -> None:
        raise LoginError("SSHAuthenticationError", errno.EACCES, "no")

    station = Station(refuse, succeed)
    station.session.want()
    station.run_until(lambda: station.errors)
    assert station.session.state is State.REFUSED
    assert station.session.check(time.monotonic()) == float("inf")
    station.session.want()
    station.run_until(lambda: station.ups)


def test_a_session_that_was_dialled_in_vain_ends_nothing() -> None:
    station = Station(succeed)
    station.session.want()
    station.run_until(lambda: station.ups)
    station.session.on_end(Transport(), "of another login")  # type: ignore[arg-type]
    station.run_until(lambda: True)
    assert station.session.state is State.UP and not station.errors
