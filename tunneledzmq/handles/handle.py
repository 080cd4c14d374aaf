"""The program's side of a gateway: it starts it, speaks to it, and restarts it when it dies."""

from __future__ import annotations

import errno
import logging
import os
import queue
import socket
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

import zmq

from .. import exceptions
from ..exceptions import GatewayError, SSHConnectionError, TunnelError
from ..options import SSHOptions
from ..shared.control import ControlChannel, How, Message
from ..shared.directory import RuntimeDirectory, restore
from ..shared.system.advice import reason_of
from ..shared.system.descriptors import socketpair
from ..shared.system.fork import undivided
from ..shared.system.leg import private_leg, whose
from ..tunnel import Closing, GivenUp, Owner, Tunnel, TunnelStats
from ..words import say
from .answers import Answers, Hops
from .home import Home, start_process, start_thread
from .local_leg import enlarge_buffer
from .records import log, settle
from .reply import Reply
from .request import login_request

__all__ = ["GatewayHandle", "HandleEnded"]

logger = logging.getLogger("tunneledzmq")

DEFAULT_CONNECT_TIMEOUT = 10.0

# Seconds beyond connect_timeout after which a gateway that does not answer counts as broken.
_START_TIMEOUT = 20.0

# Seconds to wait for the answer to a question that the gateway answers at once.
_ANSWER_TIMEOUT = 2.0

# So many reasons for which there is no session are remembered.
_MAX_TOLD = 100

# A gateway that dies so often without logging in once in between is not restarted any more.
_MAX_DEATHS = 5

# Seconds between two tries to start one where that fails; they double.
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 4.0


class HandleEnded(Exception):
    """The gateway had ended before it saw the request; another one will serve it."""


@dataclass(frozen=True)
class Step:
    """What a gateway has done to log in; a log record of level DEBUG has it as ``step``."""

    name: str
    seconds: float
    detail: str


class GatewayHandle:
    """One gateway, which holds one SSH connection, and the tunnels that go through it.

    Args:
        options: how to log in.
        hops: where the way over a hop is had.
        isolate: whether the gateway gets a process of its own.

    Raises:
        GatewayError: it cannot be started.
    """

    def __init__(self, options: SSHOptions, hops: Hops, *, isolate: bool) -> None:
        self.options = options
        # As written, until the gateway has looked into the config file.
        self.server = options.server
        self._connect_timeout = options.connect_timeout or DEFAULT_CONNECT_TIMEOUT
        self._start_home = start_process if isolate else start_thread
        self._ids = count(1)
        self._serials = count(1)

        # Mutex for the state below. Finalizers call close(), so that close() must not take it.
        self._lock = threading.Lock()
        self._ended = False
        # Tunnels that are not closed yet, by their ids.
        self._tunnels: dict[int, Tunnel] = {}
        # How libzmq gives up those that are closing.
        self._closing: dict[int, Message] = {}
        # Who waits for an answer, by tunnel id for "open", by serial for "stats" and "ping".
        self._opening: dict[int, Reply] = {}
        self._asking: dict[int, Reply] = {}
        self._pongs: dict[int, float | None] = {}
        self._answers = Answers(self, hops, self._opening, isolate=isolate)

        # Of the reader thread alone: the gateway's life.
        self._said_bye = False
        self._has_session = False
        self._deaths = 0
        # Since when there is no session, if that was logged (time.monotonic).
        self._lost_at: float | None = None
        # What has been said of that.
        self._told: set[str] = set()
        self._reconnects = 0
        # Those of the gateways that died, and the restarts.
        self._reconnects_before = 0
        # Told when a context has ended, while the reader thread waits before a restart.
        self._wakers: queue.SimpleQueue[None] | None = None

        # Resolved once: the program may change its working directory before a restart.
        self._request = login_request(options)
        try:
            with undivided():
                self._directory = RuntimeDirectory()
                _handles.add(self)
            self._control, self._home = self._start()
            threading.Thread(target=self._run, name="tunneledzmq-control", daemon=True).start()
        except BaseException as exc:
            self._abandon()
            if isinstance(exc, (OSError, RuntimeError)) and not isinstance(exc, GatewayError):
                # no descriptors, or no threads, left
                raise _cannot_start(self.server, exc) from exc
            raise

    def _abandon(self) -> None:
        """Leave nothing of a start that failed, whenever Ctrl-C was pressed."""
        if hasattr(self, "_home"):
            # The thread, if it runs already, hears of that.
            self._control.shutdown()
            self._control.close()
            self._home.abandon()
        if hasattr(self, "_directory"):
            self._directory.remove()

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"{len(self._tunnels)} tunnels"
        return f"<GatewayHandle {self.server} [{state}]>"

    # What the program asks for

    @property
    def ended(self) -> bool:
        """Whether the gateway takes no tunnels any more."""
        return self._ended

    @property
    def pid(self) -> int | None:
        """Process id of the gateway, unless it lives in this process."""
        return self._home.pid

    @property
    def tunnels(self) -> list[Tunnel]:
        """The tunnels that have not been given up."""
        return [
            tunnel
            for tunnel in list(self._tunnels.values())
            if tunnel.state not in ("closing", "closed") and tunnel._user is None
        ]

    def open(self, tunnel: Tunnel) -> None:
        """Open a tunnel and wait until the SSH session is authenticated.

        Args:
            tunnel: a new one; without a local endpoint it gets a private Unix socket.

        Raises:
            TunnelError: no SSH session, or no listener for the local leg.
            HandleEnded: ask another gateway.
            GivenUp: it was closed meanwhile.
        """
        reply = Reply(within=True)
        with self._lock:
            if self._ended:
                raise HandleEnded
            number = tunnel._id = next(self._ids)
            if not tunnel._local:
                tunnel._local = private_leg(lambda: self._directory.path, number)
                tunnel._process = whose(None if tunnel._user is None else tunnel._user.pid)
            self._opening[number] = reply
            self._tunnels[number] = tunnel
            control = self._control
        try:
            control.send(_open_message(tunnel, again=False))
            tunnel._handle = self
            if tunnel._closing is not None:
                self.close(tunnel, tunnel._closing)
            # Whoever terminates notes that first, and looks for who waits here then.
            owner = tunnel._owner
            if owner is not None and owner.refuses(tunnel):
                reply.interrupt(zmq.ContextTerminated())
            if owner is not None and owner.terminated:
                self.terminate(owner)
            self._wait_for(reply)
        except HandleEnded:
            with self._lock:
                self._tunnels.pop(number, None)
            raise
        except BaseException:
            if tunnel._closing is None:
                self.close(tunnel, Closing(0, How.CUT))
                tunnel._ended = True
            elif number not in self._tunnels:
                tunnel._ended = True
            raise
        finally:
            self._opening.pop(number, None)
            for call in reply.leave():
                self._answers.hand_out(call)

    def _wait_for(self, reply: Reply) -> None:
        """Wait until a tunnel is open, and its records have been logged.

        Raises:
            Exception: what it has failed with.
        """
        try:
            while not reply.wait(self._connect_timeout + _START_TIMEOUT):
                if not self._answers.pending:  # another thread may be typing a password
                    raise GatewayError(
                        errno.ETIMEDOUT, f"{self.server}: the gateway does not answer"
                    )
        except SSHConnectionError as exc:
            raise self._answers.explain(exc, ask=True) from None
        finally:
            settle()

    def close(self, tunnel: Tunnel, closing: Closing) -> None:
        """Close a tunnel as soon as libzmq is through with it. Never waits."""
        if tunnel._id not in self._tunnels:
            return
        message = {
            "type": "close",
            "id": tunnel._id,
            "linger": closing.linger,
            "how": closing.how.value,
        }
        # A restart in between sees the note and sends it again.
        self._closing[tunnel._id] = message
        self._control.send(message)
        reply = self._opening.get(tunnel._id)
        if reply is not None:
            reply.fail(GivenUp())

    def stats(self, tunnel: Tunnel) -> TunnelStats:
        """Ask for a tunnel's counters."""
        if tunnel._id in self._tunnels:
            serial = next(self._serials)
            message = {"type": "stats", "id": tunnel._id, "serial": serial}
            with suppress(HandleEnded, GatewayError):
                self._question(message, serial, _ANSWER_TIMEOUT)
        return tunnel._stats

    def ping(self, timeout: float) -> float | None:
        """Ask the SSH server for an answer.

        Returns:
            The seconds that it took; `None` if there was none within `timeout` seconds.
        """
        serial = next(self._serials)
        self._pongs[serial] = None
        self._question({"type": "ping", "serial": serial}, serial, timeout)
        return self._pongs.pop(serial)

    def _question(self, message: Message, serial: int, timeout: float) -> None:
        reply = Reply()
        with self._lock:
            if self._ended:
                return
            self._asking[serial] = reply
        self._control.send(message)
        try:
            reply.wait(timeout)
        finally:
            self._asking.pop(serial, None)

    def interrupt(self, owner: Owner) -> None:
        """Make the threads that wait in :meth:`open` for a context raise: it terminates."""
        for number, reply in list(self._opening.items()):
            tunnel = self._tunnels.get(number)
            if tunnel is not None and tunnel._owner is owner:
                reply.interrupt(zmq.ContextTerminated())

    def terminate(self, owner: Owner) -> None:
        """Have what is left of a context's tunnels delivered: nothing new comes for them.

        They end when that is done, and the gateway with its last tunnel. Takes no locks: finalizers
        of contexts call it.
        """
        mine = [n for n, tunnel in list(self._tunnels.items()) if tunnel._owner is owner]
        for number in mine:
            tunnel = self._tunnels.get(number)
            if tunnel is not None:
                tunnel._terminated = True  # a restart in between leaves it out
        if mine:
            self._control.send({"type": "terminated", "ids": mine})
            if (wakers := self._wakers) is not None:
                wakers.put(None)
        for number, reply in list(self._opening.items()):
            if number in mine:
                reply.interrupt(zmq.ContextTerminated())

    # The gateway's life

    def _start(self) -> tuple[ControlChannel, Home]:
        try:
            # Before a restart somebody may have removed it.
            restore(self._directory.path)
            # A child with a copy of either end would keep us from hearing of the gateway's end.
            with undivided():
                ours, theirs = socketpair()
                try:
                    control = ControlChannel(ours)
                    _controls.add(control)
                    # Before there is a process: it must know its directory also if we are killed
                    # next.
                    control.send(
                        {
                            "type": "login",
                            "directory": self._directory.path,
                            "log_level": logger.getEffectiveLevel(),
                            "persist": self.options.persist,
                            "request": self._request,
                        }
                    )
                    home = self._start_home(theirs, self._directory.path, self._directory.lock)
                    _homes.add(home)
                    if home.pid is not None:
                        control.peer = home.pid
                    return control, home
                except BaseException:
                    ours.close()
                    raise
                finally:
                    theirs.close()
        except GatewayError:
            raise
        except (OSError, RuntimeError) as exc:  # no descriptors, or no threads, left
            raise _cannot_start(self.server, exc) from exc

    def _run(self) -> None:
        """Receive from the gateway, and from the next one, to the end."""
        how = "the thread that hears its gateway ended"
        try:
            while True:
                how = self._receive()
                if self._said_bye or not self._restart(how):
                    break
        finally:
            # Whatever has happened, nobody waits for it any more.
            self._control.shutdown()
            self._control.close()
            self._end(HandleEnded() if self._said_bye else GatewayError(errno.EPIPE, how))

    def _receive(self) -> str:
        """Do what the gateway says to its end, and tell how that came."""
        fault = ""
        try:
            while (messages := self._control.receive()) is not None:
                for message in messages:
                    self._handle(message)
        except Exception as exc:
            fault = f"the gateway was given up ({type(exc).__name__}: {exc})"
        finally:
            # It may not have ended yet, and ends by this.
            self._control.shutdown()
            self._control.close()
        how = self._home.wait()
        return fault or how

    def _log_error(self, text: str) -> None:
        log(logger.name, logging.ERROR, text)

    def _restart(self, how: str) -> bool:
        """Start a new gateway for the tunnels of a dead one; tell whether there is one."""
        tunnels = self._lasting()
        if not tunnels:
            return False
        self._deaths += 1
        self._reconnects_before += 1 + self._reconnects
        self._reconnects = 0
        self._has_session = False
        self._log_error(f"{self.server}: {how}")
        self._lost_at = self._lost_at or time.monotonic()
        for tunnel in tunnels:
            tunnel._last_error = f"{self.server}: {how}"
            tunnel._has_session = False
        if self._deaths > _MAX_DEATHS or not self._wait((self._deaths - 1) * 0.5):
            return False
        started = self._start_again()
        if started is None:
            return False
        control, self._home = started
        with self._lock:
            opened = {n: tunnel for n, tunnel in self._tunnels.items() if not tunnel._terminated}
            for number, tunnel in opened.items():
                control.send(_open_message(tunnel, again=number not in self._opening))
            self._control = control
            self._ended = not opened
        # From here on close() and terminate() speak to the new one; these came before.
        for message in list(self._closing.values()):
            control.send(message)
        for number, tunnel in list(self._tunnels.items()):
            if tunnel._terminated and number in opened:
                control.send({"type": "terminated", "ids": [number]})
            elif tunnel._terminated:
                self._forget(tunnel)
        if not opened:
            # All ended while it started: it would wait for the first one.
            control.shutdown()
        return True

    def _start_again(self) -> tuple[ControlChannel, Home] | None:
        """Start a gateway as soon as one can be started; `None` when nobody needs it any more."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._start()
            except GatewayError as exc:
                # Of descriptors, processes or memory there may be some again.
                self._on_cannot_start(exc)
            if not self._wait(pause):
                return None
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _on_cannot_start(self, error: GatewayError) -> None:
        """Tell all whom that concerns."""
        self._tell(logging.ERROR, error.strerror)
        for tunnel in self._lasting():
            tunnel._last_error = error.strerror
            reply = self._opening.get(tunnel._id)
            if reply is not None:
                self._drop(tunnel)
                reply.fail(error)

    def _lasting(self) -> list[Tunnel]:
        """Return the tunnels whose contexts have not ended."""
        with self._lock:
            return [tunnel for tunnel in self._tunnels.values() if not tunnel._terminated]

    def _wait(self, seconds: float) -> bool:
        """Wait as long as there are such tunnels; tell whether there are."""
        end = time.monotonic() + seconds
        wakers = self._wakers = queue.SimpleQueue()
        while self._lasting() and (left := end - time.monotonic()) > 0:
            with suppress(queue.Empty):
                wakers.get(timeout=left)
        self._wakers = None
        return bool(self._lasting())

    def _end(self, error: Exception) -> None:
        with self._lock:
            self._ended = True
            tunnels = list(self._tunnels.values())
            replies = [*self._opening.values(), *self._asking.values()]
            self._tunnels.clear()
            self._closing.clear()
            for tunnel in tunnels:
                tunnel._ended = True
        # Before anybody hears of it, who may end the program.
        self._directory.remove()
        for reply in replies:
            reply.fail(error)
        self._answers.close()

    # What the gateway reports

    def _handle(self, message: Message) -> None:
        kind = message.pop("type")
        if kind == "log":
            log(message["name"], message["level"], say(message["message"]))
        elif kind == "state":
            self._on_state(**message)
        elif kind == "tick":
            self._control.send({"type": "tock"})
        elif kind == "bye":
            self._said_bye = True
            with self._lock:
                self._ended = True
                opening = dict(self._opening)
                for number in opening:
                    # Another gateway will have it: the end of this one is not the tunnel's.
                    self._tunnels.pop(number, None)
            for reply in opening.values():
                reply.fail(HandleEnded())
        elif kind == "stats":
            self._on_stats(**message)
        elif kind == "step":
            step = Step(**message)
            log(
                logger.name,
                logging.DEBUG,
                f"{self.server}: {step.name}: {step.detail}",
                {"step": step, "options": self.options},
            )
        elif kind == "pong":
            self._on_pong(**message)
        elif kind == "server":
            self.server = message["name"]
            self._connect_timeout = message["connect_timeout"]
        elif kind == "ask":
            self._answers.on_ask(message, self._control)
        else:
            tunnel = self._tunnels.get(message["id"])
            if tunnel is not None:
                self._on_tunnel(kind, tunnel, message)

    def _on_state(self, state: str, error: str | None, reconnects: int) -> None:
        self._has_session = state == "up"
        if self._has_session:
            self._deaths = 0
            self._tell_return()
        elif error is not None and any(tunnel._opened for tunnel in list(self._tunnels.values())):
            self._tell(logging.WARNING, error)
            self._lost_at = self._lost_at or time.monotonic()
        self._reconnects = reconnects
        for tunnel in list(self._tunnels.values()):
            if error is not None:
                tunnel._last_error = say(error)
            tunnel._has_session = self._has_session
            if tunnel._opened:
                tunnel._reconnects = self._reconnects_before + reconnects

    def _tell(self, level: int, why: str) -> None:
        """Log why there is no session, each reason once: an outage may take all night."""
        log(logger.name, logging.DEBUG if why in self._told else level, why)
        if len(self._told) < _MAX_TOLD:
            self._told.add(why)

    def _tell_return(self) -> None:
        """Tell who was told that the session was lost that it is back."""
        since, self._lost_at = self._lost_at, None
        self._told.clear()
        if since is not None:
            seconds = time.monotonic() - since
            text = f"{self.server}: the SSH session is back after {seconds:.1f} s"
            log(logger.name, logging.WARNING, text)

    def _on_tunnel(self, kind: str, tunnel: Tunnel, message: Message) -> None:
        reply = self._opening.get(tunnel._id)
        if kind == "opened":
            tunnel._local = message["local"]
            tunnel._opened, tunnel._has_session = True, self._has_session
            if reply is not None:
                reply.set()
        elif kind == "failed":
            error = _error(message["error"])
            if reply is None:
                error = self._answers.explain(error)
            tunnel._last_error = error.strerror
            if reply is not None and not tunnel._opened:
                self._drop(tunnel)
                # Otherwise whoever waits ends it, when its records are logged.
                if tunnel._closing is not None:
                    tunnel._ended = True
                reply.fail(error)
            else:
                self._forget(tunnel)
                self._log_error(f"{tunnel.remote}: the tunnel is gone: {error.strerror}")
        elif kind == "taken":
            enlarge_buffer(tunnel._local[len("ipc://") :])
        elif kind == "trouble":
            tunnel._trouble = tunnel._last_error = say(message["message"])
            tunnel._note(tunnel._trouble)
        elif kind == "reached":
            tunnel._trouble = None
            tunnel._note(None)
        elif kind == "endpoint":
            tunnel._has_endpoint = message["there"]
        elif kind == "closed":
            self._forget(tunnel)
            tunnel._stats = TunnelStats(**{k: v for k, v in message.items() if k != "id"})

    def _forget(self, tunnel: Tunnel) -> None:
        tunnel._ended = True
        self._drop(tunnel)

    def _drop(self, tunnel: Tunnel) -> None:
        with self._lock:
            self._tunnels.pop(tunnel._id, None)
            self._closing.pop(tunnel._id, None)

    def _on_stats(self, id: int, serial: int, **counters: int) -> None:
        tunnel = self._tunnels.get(id)
        if tunnel is not None:
            tunnel._stats = TunnelStats(**counters)
        self._answered(serial)

    def _on_pong(self, serial: int, seconds: float | None) -> None:
        if serial in self._pongs:
            self._pongs[serial] = seconds
        self._answered(serial)

    def _answered(self, serial: int) -> None:
        reply = self._asking.get(serial)
        if reply is not None:
            reply.set()


def _open_message(tunnel: Tunnel, *, again: bool) -> Message:
    host, _, port = tunnel.remote[len("tcp://") :].rpartition(":")
    return {
        "type": "open",
        "id": tunnel._id,
        "host": host.strip("[]"),
        "port": int(port),
        "local": tunnel.local,
        "owner": tunnel._process,
        "pace": tunnel._pace,
        "again": again,
        "listener": None if again else _copy(tunnel._listener),
    }


def _copy(listener: socket.socket | None) -> socket.socket | None:
    try:
        return None if listener is None else listener.dup()
    except OSError:
        return None  # closed meanwhile, or no descriptors left: the gateway makes one


def _cannot_start(server: str, exc: Exception) -> GatewayError:
    code = (exc.errno if isinstance(exc, OSError) else None) or errno.EAGAIN
    reason = reason_of(exc) if isinstance(exc, OSError) else str(exc)
    return GatewayError(code, f"{server}: cannot start a gateway: {reason}")


def _error(error: Message) -> TunnelError:
    """Make the exception that the gateway describes."""
    kind: type[TunnelError] = getattr(exceptions, error["kind"])
    return kind(error["errno"], error["message"])


# A forked child must not keep the gateways of its parent alive, nor speak to them.
_handles: weakref.WeakSet[GatewayHandle] = weakref.WeakSet()
_controls: weakref.WeakSet[ControlChannel] = weakref.WeakSet()
_homes: weakref.WeakSet[Home] = weakref.WeakSet()


def _after_fork() -> None:
    for control in list(_controls):
        control.close()
    for home in list(_homes):
        home.after_fork()
    for handle in list(_handles):
        handle._directory.release()
        handle._ended = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
