"""The gateway's request loop: what the program asks for, and what becomes of its tunnels."""

from __future__ import annotations

import gc
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..shared.control import ControlChannel, How, Message
from ..shared.directory import remove, remove_abandoned, remove_restored, sweep
from ..shared.system.descriptors import socketpair
from ..shared.system.process import let_go_of_stderr
from .backend import Forwarder, make_forwarder
from .login import LoginError, Request, local_user
from .records import RecordSender
from .rest import Rest
from .session import Session, State
from .traffic.peers import Peer
from .traffic.pump import READ, Pump
from .tunnels import Tunnels

__all__ = ["Gateway"]

logger = logging.getLogger("tunneledzmq")

_NEVER = float("inf")


class Gateway:
    """One SSH connection for one program.

    All of it belongs to the thread of :meth:`run`, which decides; what is carried belongs to the
    thread of the SSH session.

    Args:
        control: our end of the control pipe.
        own_process: whether log records must be sent to the program.
    """

    def __init__(self, control: socket.socket, *, own_process: bool) -> None:
        self._control = ControlChannel(control)
        self._logs = RecordSender(self._control) if own_process else None
        self._from_program = _Source(self._control.fileno, self._receive)
        self._directory = ""
        self._pump = Pump()
        self._forwarder: Forwarder
        # Why there will be no session, whatever the server says.
        self._no_login: LoginError | None = None
        self._session = Session(self, self._call, self._control.send)
        self._tunnels = Tunnels(self._pump, self._call, self._control.send, self._on_found)
        # "open" requests that wait for the session.
        self._waiting: list[Message] = []
        self._orphaned = False
        self._used = False
        self._has_opened = False
        self._rest = Rest(0)

        # Calls from other threads, for the thread of run(), and what wakes it.
        self._calls: deque[Callable[[], None]] = deque()
        self._waker, self._wakened = socketpair()
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
                self._remove_directory()
            remove_restored()
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
            self._pump.close()

    def _remove_directory(self) -> None:
        if self._logs is not None:
            let_go_of_stderr()
        remove(self._directory)

    def _remove_directories(self) -> None:
        for directory in self._tunnels.directories:
            remove_abandoned(directory)
        if self._orphaned:
            sweep()

    def after_fork(self) -> None:
        """Close the copies of all sockets that a forked child has, which would keep them open."""
        self._control.close()
        self._waker.close()
        self._wakened.close()
        self._pump.after_fork()
        if self._session.transport is not None:
            self._session.transport.after_fork()
        self._tunnels.after_fork()

    def _serve(self) -> None:
        self._pump.watch(self._from_program, READ)
        self._pump.watch(_Source(self._wakened.fileno, self._run_calls), READ)
        try:
            while (next_check := self._check()) is not None:
                timeout = None if next_check == _NEVER else next_check - time.monotonic()
                self._pump.run_once(timeout)
        finally:
            if self._used:
                self._tunnels.close_all()
                self._session.close()
                while self._calls:  # the last words of its connections
                    self._calls.popleft()()
                self._tunnels.close_all()
                self._forwarder.close()

    def _call(self, call: Callable[[], None]) -> None:
        """Have something done on the thread of run()."""
        self._calls.append(call)
        with suppress(OSError):  # full: it is awake anyway; closed: nobody is left to do it
            self._waker.send(b"\0")

    def _run_calls(self) -> None:
        with suppress(BlockingIOError):
            self._wakened.recv(4096)
        while self._calls:
            self._calls.popleft()()

    # What the program asks for

    def _receive(self) -> None:
        messages = self._control.receive()
        if messages is None:
            self._on_orphaned()
            return
        for message in messages:
            kind = message.pop("type")
            if kind == "login":
                self._on_login(**message)
            elif kind == "open":
                self._on_open(message)
            elif kind == "close":
                self._on_close(**message)
            elif kind == "terminated":
                self._on_terminated(message["ids"])
            elif kind == "stats":
                self._on_stats(**message)
            elif kind == "ping":
                self._on_ping(message["serial"])
            elif kind == "answer":
                self._session.answer(message)
            elif kind == "tock":
                self._tunnels.program_answered()

    def _on_login(self, request: Message, directory: str, log_level: int, persist: float) -> None:
        self._directory = directory
        self._rest = Rest(persist)
        if self._logs is not None:
            logger.setLevel(log_level)
        try:
            self._forwarder = make_forwarder(
                Request(**request, local_user=local_user()), directory, self._session.on_end
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
        self._session.use(self._forwarder)
        login = self._forwarder.login
        self._tunnels.listeners, self._tunnels.server = self._forwarder, login.server
        self._control.send(
            {"type": "server", "name": login.server, "connect_timeout": login.connect_timeout}
        )

    def _on_open(self, message: Message) -> None:
        self._has_opened = True
        if self._no_login is not None:
            self._session.state = State.REFUSED
            self._tunnels.fail(message["id"], self._no_login)
            return
        if message["again"]:
            # After a restart: the program does not wait, and libzmq has an endpoint to come to.
            self._tunnels.listen(message)
        elif self._session.state is State.UP:
            self._tunnels.open(message)
            return
        else:
            # The program's own listener may be closing before there is a session.
            if message["listener"] is not None and self._tunnels.listen(message) is None:
                return
            self._waiting.append(message)
        self._session.want()

    def _on_close(self, id: int, linger: int, how: str) -> None:
        self._waiting = [message for message in self._waiting if message["id"] != id]
        self._tunnels.close(id, How(how), linger)

    def _on_terminated(self, ids: list[int]) -> None:
        """Deliver what libzmq has written for these tunnels, take nothing new."""
        for message in [message for message in self._waiting if message["id"] in ids]:
            self._waiting.remove(message)
            if message["id"] not in self._tunnels:
                self._control.send({"type": "closed", "id": message["id"]})
        self._tunnels.terminate(ids)

    def _on_stats(self, id: int, serial: int) -> None:
        counters = self._tunnels.stats(id)
        self._control.send({"type": "stats", "id": id, "serial": serial, **counters})

    def _on_ping(self, serial: int) -> None:
        def answer(seconds: float | None) -> None:
            self._control.send({"type": "pong", "serial": serial, "seconds": seconds})

        transport = self._session.transport
        if transport is None:
            answer(None)
        else:
            transport.ask_alive(answer)

    def _on_orphaned(self) -> None:
        """Deliver what libzmq has written, take nothing new."""
        self._orphaned = True
        self._pump.forget(self._from_program)
        self._session.orphan()
        self._waiting.clear()
        self._tunnels.orphan()

    # What the session and the tunnels tell

    def _on_found(self, peer: Peer) -> None:
        self._session.tell("forward", "{}:{}".format(*peer.remote))

    def on_up(self) -> None:
        """Carry connections over the new session."""
        self._tunnels.on_session(self._session.transport)
        self._tell_state("up", None)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._tunnels.open(message)

    def on_down(self, error: LoginError) -> None:
        """Let no connections come, and tell who waits."""
        self._tunnels.on_session(None)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._tunnels.fail(message["id"], error)
        self._tell_state("down", error.message)

    def _tell_state(self, state: str, error: str | None) -> None:
        self._control.send(
            {
                "type": "state",
                "state": state,
                "error": error,
                "reconnects": self._session.reconnects,
            }
        )

    # Time

    def _check(self) -> float | None:
        """Do what is due.

        Returns:
            When to look again (time.monotonic); `None` when there is nothing left to do.
        """
        now = time.monotonic()
        next_check = min(self._session.check(now), self._tunnels.check(now))
        rest = self._rest.look(
            now,
            used=self._has_opened,
            tunnels=len(self._tunnels) + len(self._waiting),
            session=self._session.state is State.UP,
            orphaned=self._orphaned,
        )
        return None if rest is None else min(next_check, rest)


class _Source:
    """What the pump watches besides the tunnels."""

    def __init__(self, fileno: Callable[[], int], on_ready: Callable[[], None]) -> None:
        self.fileno = fileno
        self._on_ready = on_ready

    def ready(self, events: int) -> None:
        self._on_ready()
