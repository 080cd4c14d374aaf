"""The gateway's request loop: what the program asks for, and what becomes of its tunnels."""

from __future__ import annotations

import errno
import gc
import getpass
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..shared.control import ControlChannel, How, Message
from ..shared.directory import is_ours, remove, remove_restored, sweep
from ..shared.listener import cannot_listen
from ..shared.system.account import user_name
from ..shared.system.descriptors import socketpair
from ..shared.system.process import let_go_of_stderr
from .backend import Forwarder, make_forwarder
from .clocks import OwnClock, ProgramClock
from .login import LoginError, Request
from .rest import Rest
from .session import Session, State
from .traffic.doorkeeper import Doorkeeper
from .traffic.forward import Forward
from .traffic.peers import Peer, Peers
from .traffic.pump import READ, Pump
from .traffic.search import Pace
from .traffic.servers import Listeners

__all__ = ["Gateway"]

logger = logging.getLogger("tunneledzmq")

# With more tunnels the program is not told what libzmq has connected to: to look for libzmq's
# descriptors then takes longer than it is worth.
_MAX_TOLD = 64

# A program that opens a tunnel waits for the server's word on the peer for so many round trips,
# and so many seconds: then libzmq's first connect finds what it would find over TCP.
_ROUND_TRIPS = 3
_SHORTEST_WAIT = 0.05
_LONGEST_WAIT = 1.0

# Seconds between looks at local endpoints that nobody is connected to, and how many at a time.
_ENDPOINTS_STEP = 5.0
_ENDPOINTS = 256

# Seconds between looks where our own clock counts, at least.
_CLOCK_STEP = 1.0

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
        self._logs = _ControlHandler(self._control) if own_process else None
        self._from_program = _Source(self._control.fileno, self._receive)
        self._directory = ""
        # Those of the program's own listeners.
        self._directories: set[str] = set()
        self.pump = Pump()
        self.forwarder: Forwarder
        # Why there will be no session, whatever the server says.
        self._no_login: LoginError | None = None
        self._session = Session(self, self._call, self._control.send)
        self._peers = Peers(self._call, self._on_found)
        self.doorkeeper = Doorkeeper(self._call)

        self._forwards: dict[int, Forward] = {}
        # Those of them that are ending, or have something to be looked at.
        self._watched: set[Forward] = set()
        # "open" requests that wait for the session, and tunnels whose programs wait for the
        # server's word on the peer, with the time when they wait no more.
        self._waiting: list[Message] = []
        self._opening: dict[Forward, tuple[float, str]] = {}
        self._orphaned = False
        self._used = False
        self._has_opened = False
        self._rest = Rest(0)
        self._clock = OwnClock(time.monotonic())
        self._program_clock = ProgramClock()
        self._check_endpoints_at = 0.0
        # Those that are still to be looked at in this round.
        self._unchecked: list[Forward] = []

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
            self.pump.close()

    def _remove_directory(self) -> None:
        if self._logs is not None:
            let_go_of_stderr()
        remove(self._directory)

    def _remove_directories(self) -> None:
        for directory in self._directories:
            # The program, if it was killed, could not: the last gateway with a socket there does.
            if self._orphaned and all(name.startswith(".") for name in _names(directory)):
                remove(directory)
            # Nor could it if a socket was being put in another's place.
            with suppress(OSError):
                os.rmdir(directory)
        if self._orphaned:
            sweep()

    def after_fork(self) -> None:
        """Close the copies of all sockets that a forked child has, which would keep them open."""
        self._control.close()
        self._waker.close()
        self._wakened.close()
        self.pump.after_fork()
        if self._session.transport is not None:
            self._session.transport.after_fork()
        for forward in list(self._forwards.values()):
            forward.after_fork()

    def _serve(self) -> None:
        self.pump.watch(self._from_program, READ)
        self.pump.watch(_Source(self._wakened.fileno, self._run_calls), READ)
        try:
            while (next_check := self._check()) is not None:
                timeout = None if next_check == _NEVER else next_check - time.monotonic()
                self.pump.run_once(timeout)
        finally:
            if self._used:
                for forward in self._forwards.values():
                    forward.close_all()
                self._session.close()
                while self._calls:  # the last words of its connections
                    self._calls.popleft()()
                for forward in self._forwards.values():
                    forward.close_all()
                self.forwarder.close()

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
                self._program_clock.answered(time.monotonic())

    def _on_login(self, request: Message, directory: str, log_level: int, persist: float) -> None:
        self._directory = directory
        self._rest = Rest(persist)
        if self._logs is not None:
            logger.setLevel(log_level)
        try:
            self.forwarder = make_forwarder(
                Request(**request, local_user=_local_user()), directory, self._session.on_end
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
        self._session.use(self.forwarder)
        login = self.forwarder.login
        self._control.send(
            {"type": "server", "name": login.server, "connect_timeout": login.connect_timeout}
        )

    def _on_open(self, message: Message) -> None:
        self._has_opened = True
        if self._no_login is not None:
            self._session.state = State.REFUSED
            self._fail(message["id"], self._no_login)
            return
        if message["again"]:
            # After a restart: the program does not wait, and libzmq has an endpoint to come to.
            self._listen(message)
        elif self._session.state is State.UP:
            self._open(message)
            return
        else:
            # The program's own listener may be closing before there is a session.
            if message["listener"] is not None and self._listen(message)[0] is None:
                return
            self._waiting.append(message)
        self._session.want()

    def _on_close(self, id: int, linger: int, how: str) -> None:
        self._waiting = [message for message in self._waiting if message["id"] != id]
        forward = self._forwards.get(id)
        if forward is not None:
            self._opening.pop(forward, None)
            forward.close(How(how), linger)
            self._watched.add(forward)
            return
        self._control.send({"type": "closed", "id": id})

    def _on_terminated(self, ids: list[int]) -> None:
        """Deliver what libzmq has written for these tunnels, take nothing new."""
        for message in [message for message in self._waiting if message["id"] in ids]:
            self._waiting.remove(message)
            if message["id"] not in self._forwards:
                self._control.send({"type": "closed", "id": message["id"]})
        for forward in [self._forwards[id] for id in ids if id in self._forwards]:
            self._opening.pop(forward, None)
            forward.terminated = True
            forward.orphan()
            self._watched.add(forward)

    def _on_stats(self, id: int, serial: int) -> None:
        forward = self._forwards.get(id)
        counters = {} if forward is None else forward.stats()
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
        self.pump.forget(self._from_program)
        self._session.orphan()
        self._waiting.clear()
        self._opening.clear()
        for forward in self._forwards.values():
            forward.orphan()
        self._watched.update(self._forwards.values())

    # Tunnels

    def _open(self, message: Message) -> None:
        forward = self._forwards.get(message["id"])
        local = message["local"]
        if forward is None:
            forward, local = self._listen(message)
        if forward is not None:
            self._opening[forward] = (time.monotonic() + self._patience, local)
            self._watched.add(forward)

    @property
    def _patience(self) -> float:
        """Seconds that a program waits for the server's word on a peer."""
        transport = self._session.transport
        round_trip = 0.0 if transport is None else transport.path.round_trip
        return min(max(_ROUND_TRIPS * round_trip, _SHORTEST_WAIT), _LONGEST_WAIT)

    def _listen(self, message: Message) -> tuple[Forward | None, str]:
        number = message["id"]
        forward = Forward(
            self,
            number,
            self._peers.find((message["host"], message["port"])),
            Pace(*message["pace"] or (0.0, 0.0, False)),
            for_gateway=message["pace"] is None,
            owner=message["owner"],
            again=message["again"],
        )
        try:
            local = forward.listen(message["local"], message["listener"])
        except OSError as exc:
            text = cannot_listen(self.forwarder.login.server, message["local"], exc)
            self._fail(number, LoginError("TunnelError", exc.errno or errno.EIO, text))
            forward.peer.look()  # it may be of no use to anybody
            return None, ""
        self._forwards[number] = forward
        directory = os.path.dirname(local.removeprefix("ipc://"))
        if message["listener"] is not None and is_ours(directory):
            self._directories.add(directory)
        return forward, local

    def _fail(self, number: int, error: LoginError) -> None:
        self._control.send({"type": "failed", "id": number, "error": error.describe()})

    # What tunnels tell

    @property
    def listeners(self) -> Listeners:
        """Where local endpoints are had."""
        return self.forwarder

    @property
    def has_session(self) -> bool:
        """Whether there is an SSH session."""
        return self._session.transport is not None

    @property
    def program_clock(self) -> float:
        """Seconds for which the program has run."""
        return self._program_clock.seconds

    def on_change(self, forward: Forward) -> None:
        """Look at a tunnel."""
        if forward.id in self._forwards:
            self._watched.add(forward)

    def on_taken(self, forward: Forward) -> None:
        """Let the program enlarge libzmq's buffer, while there are few tunnels."""
        if len(self._forwards) <= _MAX_TOLD:
            self._control.send({"type": "taken", "id": forward.id})

    def on_trouble(self, forward: Forward, reason: str) -> None:
        """Tell the program what keeps a tunnel from working."""
        host, port = forward.remote
        text = f"{self.forwarder.login.server}: {host}:{port}: {reason}"
        logger.warning("%s", text)
        self._control.send({"type": "trouble", "id": forward.id, "message": text})

    def on_endpoint(self, forward: Forward, reason: str | None) -> None:
        """Tell the program that a local endpoint is lost, or is there again."""
        if reason is not None:
            self.on_trouble(forward, reason)
        self._control.send({"type": "endpoint", "id": forward.id, "there": reason is None})

    def _on_found(self, peer: Peer) -> None:
        self._session.tell("forward", "{}:{}".format(*peer.remote))
        for forward in peer.forwards:
            self._control.send({"type": "reached", "id": forward.id})

    # What the session tells

    def on_up(self) -> None:
        """Carry connections over the new session."""
        self._peers.on_session(self._session.transport)
        for forward in self._forwards.values():
            forward.update()
        self._tell_state("up", None)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._open(message)

    def on_down(self, error: LoginError) -> None:
        """Let no connections come, and tell who waits."""
        self._peers.on_session(None)
        for forward in self._forwards.values():
            forward.update()
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            listening = self._forwards.pop(message["id"], None)
            if listening is not None:
                self._watched.discard(listening)
                listening.close_all()
            self._fail(message["id"], error)
        self._tell_state("down", error.message)

    def _tell_state(self, state: str, error: str | None) -> None:
        if error is not None and self._forwards:
            logger.warning("%s", error)
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
        next_check = min(self._session.check(now), self._peers.check(now))
        next_check = min(next_check, self._check_opening(now), self._check_endpoints(now))
        next_check = min(next_check, self._check_watched(now))
        rest = self._rest.look(
            now,
            used=self._has_opened,
            tunnels=len(self._forwards) + len(self._waiting),
            session=self._session.state is State.UP,
            orphaned=self._orphaned,
        )
        return None if rest is None else min(next_check, rest)

    def _check_opening(self, now: float) -> float:
        """Answer programs about whose peers there is word, or that have waited long enough."""
        for forward, (until, local) in list(self._opening.items()):
            if forward.for_gateway or forward.peer.answered or now >= until:
                del self._opening[forward]
                forward.answered()
                self._control.send({"type": "opened", "id": forward.id, "local": local})
        return min((until for until, _ in self._opening.values()), default=_NEVER)

    def _check_endpoints(self, now: float) -> float:
        """See whether the local endpoints are still there to which libzmq may come."""
        if now >= self._check_endpoints_at:
            self._check_endpoints_at = now + _ENDPOINTS_STEP
            if not self._unchecked:
                self._unchecked = list(self._forwards.values())
            some, self._unchecked = self._unchecked[:_ENDPOINTS], self._unchecked[_ENDPOINTS:]
            for forward in some:
                if not forward.connections:
                    forward.check_endpoint()
        return self._check_endpoints_at if self._forwards else _NEVER

    def _check_watched(self, now: float) -> float:
        next_check = _NEVER
        clock = self._clock.read(now)
        for forward in list(self._watched):
            orphaned = self._orphaned or forward.terminated
            check = forward.check(now, clock=clock, orphaned=orphaned)
            if check is None:
                self._end(forward)
            elif check == _NEVER and forward.ending is None:
                self._watched.discard(forward)
            else:
                next_check = min(next_check, check)
        if not self._orphaned and any(
            f.needs_program_clock for f in self._watched if not f.terminated
        ):
            if self._program_clock.look(now):
                self._control.send({"type": "tick"})
            next_check = min(next_check, self._program_clock.next_look)
        if self._watched:
            next_check = min(next_check, now + _CLOCK_STEP)
        return next_check

    def _end(self, forward: Forward) -> None:
        forward.close_all()
        self._watched.discard(forward)
        del self._forwards[forward.id]
        self._control.send({"type": "closed", "id": forward.id, **forward.stats()})


class _Source:
    """What the pump watches besides the tunnels."""

    def __init__(self, fileno: Callable[[], int], on_ready: Callable[[], None]) -> None:
        self.fileno = fileno
        self._on_ready = on_ready

    def ready(self, events: int) -> None:
        self._on_ready()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _local_user() -> str:
    """Tell whose program it is, as ssh does: by the system, and not by a variable."""
    name = user_name()
    if name is not None:
        return name
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
