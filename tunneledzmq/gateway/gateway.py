"""The gateway's request loop: what the program asks for, and the life of the SSH session."""

from __future__ import annotations

import errno
import gc
import getpass
import logging
import os
import pwd
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from ..control import ControlChannel, Message
from ..directory import is_ours, remove, sweep
from ..listener import cannot_listen
from .backend import Forwarder, Transport, make_forwarder
from .forward import Forward
from .login import Login, LoginError, Request
from .questions import Questions

__all__ = ["Gateway"]

logger = logging.getLogger("tunneledzmq")

# Seconds before the session is dialled again: at once, then doubling, up to this.
_FIRST_DELAY = 0.05
_MAX_DELAY = 0.7

# With more tunnels the program is not told what libzmq has connected to: to look for libzmq's
# descriptors then takes longer than it is worth.
_MAX_TOLD = 64

# A session that lasted so many seconds lets the delays begin anew.
_STABLE = 10.0


class Session(Enum):
    """The SSH session.

    =========  ==========================================  ==========================
    from       on                                          to
    =========  ==========================================  ==========================
    OFF        the first ``open``                          DIALING
    DIALING    logged in                                   UP
    DIALING    failed, and tunnels are open                WAITING
    DIALING    refused for good (key, host key)            REFUSED
    UP         lost                                        WAITING
    WAITING    the delay is over, or ``open``              DIALING
    REFUSED    ``open``                                    DIALING
    =========  ==========================================  ==========================
    """

    OFF = "off"
    DIALING = "dialing"
    UP = "up"
    WAITING = "waiting"
    REFUSED = "refused"


class Gateway:
    """One SSH connection for one program.

    Args:
        control: our end of the control pipe.
        own_process: whether log records must be sent to the program.
    """

    def __init__(self, control: socket.socket, *, own_process: bool) -> None:
        self._control = ControlChannel(control)
        self._logs = _ControlHandler(self._control) if own_process else None
        self._directory = ""
        # Those of the program's own listeners.
        self._directories: set[str] = set()
        self._questions = Questions(self._control.send)
        self._login: Login
        self._forwarder: Forwarder
        # Why there will be no session, whatever the server says.
        self._no_login: LoginError | None = None

        # All that follows belongs to the thread of run().
        self._session = Session.OFF
        self._forwards: dict[int, Forward] = {}
        # Those of them that are ending, or stopped accepting for a while.
        self._watched: set[Forward] = set()
        # "open" requests that wait for the session.
        self._waiting: list[Message] = []
        self._orphaned = False
        self._used = False
        self._reconnects = 0
        self._failures = 0
        self._up_since = 0.0
        self._dial_at = 0.0
        self._dial_deadline = float("inf")
        self._dial_timed_out = False
        self._dial_again = False
        self._nobody_waits = False
        self._ask_at = float("inf")
        self._unanswered = 0

        # Calls from other threads, for the thread of run(), and what wakes it.
        self._calls: deque[Callable[[], None]] = deque()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)

    def run(self) -> None:
        """Serve until the program ends, or its last tunnel."""
        if self._logs is not None:
            logger.addHandler(self._logs)
        try:
            self._serve()
            # After a crash it stays: the program reads stderr, and restarts with the same sockets.
            if self._directory:
                remove(self._directory)
            if self._orphaned:
                self._remove_directories()
            self._control.send({"type": "bye"})
        except Exception:
            logger.critical("the gateway failed", exc_info=True)
            if self._logs is not None:
                raise
        finally:
            self._control.finish()
            self._waker.close()
            self._wakened.close()

    def _remove_directories(self) -> None:
        # The program, if it was killed, could not: the last gateway that had a socket there does.
        for directory in self._directories:
            with suppress(OSError):
                os.rmdir(directory)
        sweep()

    def after_fork(self) -> None:
        """Close the copies of all sockets that a forked child has, which would keep them open."""
        self._control.close()
        self._waker.close()
        self._wakened.close()
        if self._used:
            self._forwarder.after_fork()
            for forward in list(self._forwards.values()):
                forward.after_fork()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ, self._receive)
            selector.register(self._wakened, selectors.EVENT_READ, self._run_calls)
            try:
                while (next_check := self._check()) is not None:
                    timeout = None if next_check == float("inf") else next_check - time.monotonic()
                    for key, _ in selector.select(timeout):
                        if key.data() is False:
                            selector.unregister(key.fileobj)
            finally:
                if self._used:
                    self._close()

    def _close(self) -> None:
        self._questions.give_up()
        if self._session is Session.DIALING:
            self._forwarder.abort()
        for forward in self._forwards.values():
            forward.stop_listening()
        self._forwarder.close()

    def _call(self, call: Callable[[], None]) -> None:
        """Have something done on the thread of run()."""
        self._calls.append(call)
        with suppress(OSError):  # full: it is awake anyway; closed: nobody is left to do it
            self._waker.send(b"\0")

    def _run_calls(self) -> bool:
        with suppress(BlockingIOError):
            self._wakened.recv(4096)
        while self._calls:
            self._calls.popleft()()
        return True

    # What the program asks for

    def _receive(self) -> bool:
        messages = self._control.receive()
        if messages is None:
            self._on_orphaned()
            return False
        for message in messages:
            kind = message.pop("type")
            if kind == "login":
                self._on_login(**message)
            elif kind == "open":
                self._on_open(message)
            elif kind == "close":
                self._on_close(**message)
            elif kind == "stats":
                self._on_stats(**message)
            elif kind == "ping":
                self._on_ping(message["serial"])
            elif kind == "answer":
                self._questions.answer(message["serial"], message)
        return True

    def _on_login(self, request: Message, directory: str, log_level: int) -> None:
        self._directory = directory
        if self._logs is not None:
            logger.setLevel(log_level)
        try:
            self._forwarder = make_forwarder(
                Request(**request, local_user=_local_user()),
                directory,
                self._questions,
                self._on_session_end,
            )
        except LoginError as exc:
            self._no_login = exc
            return
        finally:
            if self._logs is not None:
                # What is there by now stays, and is not looked at again (see __main__).
                gc.freeze()
                gc.enable()
        self._used = True
        self._login = login = self._forwarder.login
        self._control.send(
            {"type": "server", "name": login.server, "connect_timeout": login.connect_timeout}
        )

    def _on_open(self, message: Message) -> None:
        if self._no_login is not None:
            self._session = Session.REFUSED
            self._fail(message["id"], self._no_login)
            return
        if message["again"]:
            # After a restart: libzmq is connecting already, and waits in the listener's queue.
            self._listen(message)
        elif self._session is Session.UP:
            self._open(message)
            return
        else:
            # The program's own listener may be closing before there is a session.
            if message["listener"] is not None and self._listen(message)[0] is None:
                return
            self._waiting.append(message)
        if self._session is Session.DIALING and self._login.behind_hop and self._nobody_waits:
            # Begun when nobody waited: the hop may have to be asked once more to let us in.
            self._nobody_waits = False
            self._dial_again = True
            self._forwarder.abort()
        elif self._session is not Session.DIALING and self._session is not Session.UP:
            self._dial()

    def _on_close(self, id: int, linger: int, grace: float) -> None:
        self._waiting = [message for message in self._waiting if message["id"] != id]
        forward = self._forwards.get(id)
        if forward is not None:
            forward.close(linger, grace)
            self._watched.add(forward)
            return
        self._control.send({"type": "closed", "id": id})

    def _on_stats(self, id: int, serial: int) -> None:
        forward = self._forwards.get(id)
        counters = {} if forward is None else forward.stats()
        self._control.send({"type": "stats", "id": id, "serial": serial, **counters})

    def _on_ping(self, serial: int) -> None:
        def answer(seconds: float | None) -> None:
            self._control.send({"type": "pong", "serial": serial, "seconds": seconds})

        transport = self._forwarder.transport
        if transport is None:
            answer(None)
        else:
            transport.ask_alive(answer)

    def _on_orphaned(self) -> None:
        """Deliver what libzmq has written, take nothing new."""
        self._orphaned = True
        self._questions.give_up()
        self._waiting.clear()
        for forward in self._forwards.values():
            forward.stop_listening()
        self._watched.update(self._forwards.values())

    # Tunnels

    def _open(self, message: Message) -> None:
        forward = self._forwards.get(message["id"])
        local = message["local"]
        if forward is None:
            forward, local = self._listen(message)
        if forward is not None:
            self._control.send({"type": "opened", "id": forward.id, "local": local})

    def _listen(self, message: Message) -> tuple[Forward | None, str]:
        number = message["id"]
        forward = Forward(
            self._forwarder,
            number,
            (message["host"], message["port"]),
            self._on_change,
            self._on_taken,
            self._on_trouble,
            for_gateway=message["hop"],
        )
        try:
            local = forward.listen(message["local"], message["listener"])
        except OSError as exc:
            text = cannot_listen(self._login.server, message["local"], exc)
            self._fail(number, LoginError("TunnelError", exc.errno or errno.EIO, text))
            return None, ""
        self._forwards[number] = forward
        directory = os.path.dirname(local.removeprefix("ipc://"))
        if message["listener"] is not None and is_ours(directory):
            self._directories.add(directory)
        if self._session is Session.UP:
            forward.resume()
        return forward, local

    def _fail(self, number: int, error: LoginError) -> None:
        self._control.send({"type": "failed", "id": number, "error": error.describe()})

    def _on_change(self, forward: Forward) -> None:
        self._call(lambda: self._look_at(forward))

    def _look_at(self, forward: Forward) -> None:
        if forward.needs_checks and forward.id in self._forwards:
            self._watched.add(forward)

    def _on_taken(self, forward: Forward) -> None:
        if len(self._forwards) <= _MAX_TOLD:
            self._call(lambda: self._control.send({"type": "taken", "id": forward.id}))

    def _on_trouble(self, forward: Forward, reason: str) -> None:
        host, port = forward.remote
        text = f"{self._login.server}: {host}:{port}: {reason}"
        self._call(lambda: self._tell_trouble(forward.id, text))

    def _tell_trouble(self, number: int, text: str) -> None:
        logger.warning("%s", text)
        self._control.send({"type": "trouble", "id": number, "message": text})

    # The SSH session

    def _dial(self) -> None:
        self._session = Session.DIALING
        self._nobody_waits = not self._waiting
        self._dial_timed_out = self._dial_again = False
        self._forwarder.prepare()
        self._questions.reset()
        self._dial_deadline = time.monotonic() + self._login.connect_timeout
        threading.Thread(target=self._dial_now, name="tunneledzmq-dial", daemon=True).start()

    def _dial_now(self) -> None:
        try:
            transport = self._forwarder.dial()
        except LoginError as exc:
            error = exc
        except Exception as exc:
            logger.debug("unexpected", exc_info=True)
            error = self._login.no_connection(errno.EPROTO, f"{type(exc).__name__}: {exc}")
        else:
            self._call(lambda: self._on_up(transport))
            return
        self._call(lambda: self._on_dial_failed(error))

    def _on_up(self, transport: Transport) -> None:
        if not transport.is_active():
            error = self._login.no_connection(
                errno.ECONNRESET, "the server closed the connection after the login"
            )
            self._on_dial_failed(error)
            return
        logger.info("%s: logged in", self._login.server)
        self._session = Session.UP
        self._up_since = time.monotonic()
        self._dial_deadline = float("inf")
        self._unanswered = 0
        self._ask_at = time.monotonic() + (self._alive_step or float("inf"))
        for forward in self._forwards.values():
            forward.resume()
        self._tell_state("up", None)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._open(message)

    def _on_dial_failed(self, error: LoginError) -> None:
        if self._dial_again:
            self._dial()
            return
        if self._dial_timed_out:
            error = self._login.timed_out()  # whatever the thread says of its closed socket
        self._dial_deadline = float("inf")
        self._fail_waiting(error)
        if error.passing:
            self._retry_later(error.message)
        else:
            # Asking again would not help, and may get us banned.
            self._session = Session.REFUSED
            self._tell_state("down", error.message)

    def _fail_waiting(self, error: LoginError) -> None:
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            forward = self._forwards.pop(message["id"], None)
            if forward is not None:
                self._watched.discard(forward)
                forward.stop_listening()
            self._fail(message["id"], error)

    def _on_session_end(self, transport: Transport, reason: str) -> None:
        self._call(lambda: self._on_lost(reason))

    def _on_lost(self, reason: str) -> None:
        if self._session is not Session.UP:
            return
        self._ask_at = float("inf")
        if time.monotonic() - self._up_since >= _STABLE:
            self._failures = 0
        for forward in self._forwards.values():
            forward.pause()
        self._reconnects += 1
        self._retry_later(f"{self._login.server}: the SSH session was lost: {reason}")

    def _retry_later(self, reason: str) -> None:
        self._session = Session.WAITING
        delay = min(_FIRST_DELAY * 2**self._failures, _MAX_DELAY)
        self._failures = min(self._failures + 1, 10)
        self._dial_at = time.monotonic() + delay * random.uniform(0.5, 1.0)
        self._tell_state("down", reason)

    def _tell_state(self, state: str, error: str | None) -> None:
        if error is not None and self._forwards:
            logger.warning("%s", error)
        self._control.send(
            {
                "type": "state",
                "state": state,
                "error": error,
                "reconnects": self._reconnects,
            }
        )

    def _ask_alive(self, now: float) -> None:
        """Find out about a server that is silent (ServerAliveInterval, ServerAliveCountMax).

        It is asked `server_alive_count_max` times, and given up after that many intervals.
        """
        transport = self._forwarder.transport
        if transport is None:
            return
        step = self._alive_step
        heard = transport.last_received
        if now - heard < step:
            self._unanswered = 0
            self._ask_at = heard + step
        elif self._unanswered < self._login.server_alive_count_max:
            self._unanswered += 1
            self._ask_at = now + step
            with suppress(OSError, EOFError):
                transport.ask_alive()
        else:
            self._ask_at = float("inf")
            transport.abort()

    @property
    def _alive_step(self) -> float:
        """Seconds between questions: the last one needs time for its answer as well."""
        count = self._login.server_alive_count_max
        return self._login.server_alive_interval * count / (count + 1)

    # Time

    def _check(self) -> float | None:
        """Do what is due.

        Returns:
            When to look again (time.monotonic); `None` when there is nothing left to do.
        """
        now = time.monotonic()
        next_check = float("inf")
        for forward in list(self._watched):
            check = forward.next_check(now, orphaned=self._orphaned)
            if check is None:
                forward.stop_listening()
                self._watched.discard(forward)
                del self._forwards[forward.id]
                self._control.send({"type": "closed", "id": forward.id, **forward.stats()})
            else:
                next_check = min(next_check, check)
        if self._session is not Session.OFF and not self._forwards and not self._waiting:
            return None
        if self._orphaned and not self._forwards:
            return None
        if self._session is Session.WAITING:
            if now >= self._dial_at:
                self._dial()
            next_check = min(next_check, self._dial_at)
        if self._session is Session.DIALING and not self._dial_timed_out:
            deadline = self._dial_deadline + self._questions.taken
            if self._questions.pending:
                pass  # the answer wakes us
            elif now >= deadline:
                self._dial_timed_out = True
                self._fail_waiting(self._login.timed_out())
                self._forwarder.abort()
            else:
                next_check = min(next_check, deadline)
        if now >= self._ask_at:
            self._ask_alive(now)
        return min(next_check, self._ask_at)


def _local_user() -> str:
    """Tell whose program it is, as ssh does: by the system, and not by a variable."""
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    # A number without a name, as in a container.
    try:
        return getpass.getuser()
    except (KeyError, OSError) as exc:
        text = f"who is the user? Neither the system nor $USER says: {exc}"
        raise LoginError("TunnelError", errno.ENOENT, text) from exc


class _ControlHandler(logging.Handler):
    """Sends log records to the program."""

    def __init__(self, control: ControlChannel) -> None:
        super().__init__(logging.DEBUG)
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        self._control.send(
            {
                "type": "log",
                "name": record.name,
                "level": record.levelno,
                "message": self.format(record),
            }
        )
