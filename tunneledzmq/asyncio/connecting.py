"""What `connect` returns, and the thread that waits for the SSH session."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import zmq

from ..handles.pool import GatewayPool
from ..tunnel import GivenUp, Tunnel

if TYPE_CHECKING:
    from zmq.sugar.socket import _SocketContext

__all__ = ["Attempt", "Connecting", "PendingConnect"]

logger = logging.getLogger("tunneledzmq")

_SocketT = TypeVar("_SocketT", bound="zmq.Socket[Any]", covariant=True)


# Seconds that the end of the program waits for a connect under way to be undone, and beyond
# connect_timeout for one that is waited for.
_EXIT_TIMEOUT = 2.0
_CONNECT_TIMEOUT = 10.0

# Seconds that it waits for what libzmq has to send, once it can; and looks at which nothing moved.
_SETTLE_TIMEOUT = 1.0
_SETTLED = 4

# Seconds between two looks.
_LOOK = 0.02


class Attempt:
    """A tunnel that is being opened, on a thread of its own.

    A login may take long and ask for passwords; the event loop's own executor has but a few
    threads, and waits for them at the loop's end.

    Args:
        pool: the gateways.
        tunnel: what :meth:`GatewayPool.begin` returned.
        linger: tells how long the socket's messages are to wait (LINGER, in milliseconds).
        failed: takes the tunnel if it fails, for the socket's thread to undo.
    """

    def __init__(
        self,
        pool: GatewayPool,
        tunnel: Tunnel,
        linger: Callable[[], int],
        failed: deque[Tunnel],
    ) -> None:
        self.tunnel = tunnel
        self._linger = linger
        self._failed = failed
        self.error: BaseException | None = None
        self._pool = pool

        self._thread = threading.Thread(target=self._run, name="tunneledzmq-connect", daemon=True)

        # Mutex for the state below.
        self._lock = threading.Lock()
        self._taken = False
        self.done = False
        # The program's event loop and sockets must not live on for them.
        self._callbacks: list[_Callback] = []

    def start(self) -> None:
        """Start the thread. Where that fails, the attempt is to be given up."""
        _running[self] = os.getpid()
        self._thread.start()

    def give_up(self) -> None:
        """Close the tunnel, also if there is no thread to do it. Never waits."""
        self.tunnel._cut()
        self._run()

    def when_done(
        self, callback: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Have a method called at the end, as long as its object lives.

        Args:
            callback: the method.
            loop: what calls it, as long as it is open. Otherwise any thread does.
        """
        kept = _Callback(callback, loop)
        with self._lock:
            if not self.done:
                self._callbacks.append(kept)
                return
        kept.call()

    def ending(self) -> Iterator[None]:
        """Wait for the login if messages may wait for it, as they would for a TCP connect."""
        closing = self.tunnel._closing
        linger = self._linger() if closing is None else closing.linger
        if linger and not (closing and closing.at_once):
            seconds = _connect_timeout(self.tunnel) + _EXIT_TIMEOUT
            yield from self._joining(min(seconds, linger / 1000) if linger > 0 else seconds)
        if not self.done:
            self.tunnel._cut()
            yield from self._joining(_EXIT_TIMEOUT)  # it may be starting a gateway just now
        elif self.error is None:
            yield from _settle(self.tunnel)

    def _joining(self, seconds: float) -> Iterator[None]:
        end = time.monotonic() + seconds
        while self._thread.is_alive() and time.monotonic() < end:
            yield

    def _run(self) -> None:
        with self._lock:
            if self._taken:
                return
            self._taken = True
        try:
            self._pool.finish(self.tunnel)
        except BaseException as exc:
            self.error = exc.with_traceback(None)
            self._failed.append(self.tunnel)
        _running.pop(self, None)
        closing = self.tunnel._closing
        if closing is not None and closing.linger:
            _note_drain(self.tunnel)
        with self._lock:
            self.done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback.call()


class _Callback:
    """A method of an object that is not kept alive.

    Nor is it by the thread that has it called: a future that is forgotten with an exception tells
    its loop, which is another thread's.
    """

    def __init__(
        self, method: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._method = weakref.WeakMethod(method)
        self._loop = None if loop is None else weakref.ref(loop)

    def call(self) -> None:
        loop = None if self._loop is None else self._loop()
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._call)
                return
        self._call()

    def _call(self) -> None:
        method = self._method()
        if method is not None:
            method()


# Those whose threads run, and the process that they run in.
_running: dict[Attempt, int] = {}


# Tunnels that were closed before they were up, with messages that may wait for them.
_draining: dict[Tunnel, int] = {}


def _note_drain(tunnel: Tunnel) -> None:
    for ended in [tunnel for tunnel in list(_draining) if tunnel.state == "closed"]:
        _draining.pop(ended, None)
    if tunnel.state != "closed":
        _draining[tunnel] = os.getpid()


def _connect_timeout(tunnel: Tunnel) -> float:
    return tunnel._options.connect_timeout or _CONNECT_TIMEOUT


def _drain(tunnel: Tunnel) -> Iterator[None]:
    """Wait for what libzmq would have handed to the kernel by now, had it been a TCP connect."""
    start = time.monotonic()
    seconds = _connect_timeout(tunnel)
    while tunnel.state != "closed" and time.monotonic() < start + seconds:
        yield
        if tunnel._opened and seconds > _EXIT_TIMEOUT:
            start, seconds = time.monotonic(), _EXIT_TIMEOUT


def _settle(tunnel: Tunnel) -> Iterator[None]:
    """Wait until libzmq has handed over what it has, now that it can; nobody terminates it."""
    end = time.monotonic() + _SETTLE_TIMEOUT
    stats, still = tunnel.stats(), 0
    while still < _SETTLED and time.monotonic() < end:
        yield
        before, stats = stats, tunnel.stats()
        still = still + 1 if stats.connections_total and stats == before else 0


def _at_exit() -> None:
    """Leave no half-started gateway: a daemon thread stops where it is when the program ends.

    All connects are waited for at the same time, and no longer than for the slowest of them.
    """
    mine = os.getpid()
    attempts = [attempt for attempt, pid in list(_running.items()) if pid == mine]
    waiting = [attempt.ending() for attempt in attempts]
    drained: set[Tunnel] = set()
    slowest = max(
        map(_connect_timeout, [*_draining, *(each.tunnel for each in attempts)]), default=0
    )
    end = time.monotonic() + slowest + 2 * _EXIT_TIMEOUT + _SETTLE_TIMEOUT
    while time.monotonic() < end:
        waiting = [each for each in waiting if next(each, "ended") is None]
        # What has ended just now may be one of those.
        draining = [tunnel for tunnel, pid in list(_draining.items()) if pid == mine]
        waiting += [_drain(tunnel) for tunnel in draining if tunnel not in drained]
        drained.update(draining)
        if not waiting:
            return
        time.sleep(_LOOK)
    for attempt in attempts:
        if not attempt.done:
            attempt.tunnel._cut()


atexit.register(_at_exit)


# What ends a connect without anybody having to be told.
_UNTOLD = (GivenUp, zmq.ContextTerminated)


class ConnectingSocket(Protocol):
    """The socket, as what it connects sees it."""

    _connecting_tunnels: dict[Tunnel, Connecting[Any]]

    def _undo_tunnel(self, tunnel: Tunnel) -> None:
        """Make the socket as it was before a connect. For the socket's thread."""
        ...


class Connecting(Generic[_SocketT]):
    """A connect that can be awaited; as a context manager it disconnects in the end.

    Args:
        manager: what pyzmq's `connect` returned.
        attempt: the tunnel; `None` for a direct connection.
    """

    def __init__(self, manager: _SocketContext[_SocketT], attempt: Attempt | None = None) -> None:
        self._manager = manager
        self._attempt = attempt
        # Whether somebody waits for it, or was told of its failure.
        self._retrieved = False

    def __repr__(self) -> str:
        if self._attempt is None:
            return f"<{type(self).__name__} {self.addr} [direct]>"
        error = self._attempt.error
        state = "finished" if self._attempt.done else "pending"
        if error is not None:
            given_up = isinstance(error, GivenUp)
            state = "cancelled" if given_up else f"failed: {type(error).__name__}"
        return f"<{type(self).__name__} {self.addr} via {self._attempt.tunnel.server} [{state}]>"

    @property
    def socket(self) -> _SocketT:
        """The socket that connects."""
        return self._manager.socket

    @property
    def addr(self) -> str:
        """The address that was given to `connect`."""
        return self._manager.addr

    @property
    def under_way(self) -> bool:
        """Whether it is not known yet whether there will be an SSH session."""
        return self._attempt is not None and not self._attempt.done

    @property
    def failed(self) -> bool:
        """Whether there was no SSH session to be had."""
        return self._attempt is not None and self._attempt.error is not None

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until the SSH session is up.

        Raises:
            TunnelError: it could not be set up; the socket is as it was before.
            zmq.ContextTerminated: the context terminates meanwhile.
            asyncio.CancelledError: cancelled, here or by `disconnect` or `close`.
        """
        if self._attempt is None:
            return
        self._retrieved = True
        pending = PendingConnect(self._manager, self._attempt, asyncio.get_running_loop())
        self._attempt.when_done(pending.on_done, pending.get_loop())
        yield from pending.__await__()

    def __enter__(self) -> _SocketT:
        return self._manager.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        if not self.failed:  # it is disconnected already
            self._manager.__exit__(*exc_info)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> _SocketT:
        await self
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__(*exc_info)

    def on_done(self) -> None:
        """Note the outcome. Called by the attempt's thread."""
        assert self._attempt is not None
        self._socket._connecting_tunnels.pop(self._attempt.tunnel, None)

    def __del__(self) -> None:
        """Tell of a failure that nobody has waited for and nobody can any more, as asyncio does."""
        self._tell_untold()

    def _tell_untold(self) -> None:
        error = self._retrieve()
        if error is not None:
            logger.error("%s: cannot connect: %s", self.addr, error)

    def _retrieve(self) -> BaseException | None:
        """Return the failure that somebody is to be told of, once."""
        retrieved, self._retrieved = self._retrieved, True
        error = None if self._attempt is None or retrieved else self._attempt.error
        return None if isinstance(error, _UNTOLD) else error

    @property
    def _socket(self) -> ConnectingSocket:
        return cast("ConnectingSocket", self._manager.socket)


class PendingConnect(asyncio.Future[None], Connecting[_SocketT]):
    """A connect on an event loop: what cancels the future undoes the connect.

    Args:
        manager: what pyzmq's `connect` returned.
        attempt: the tunnel.
        loop: the event loop that runs.
    """

    _attempt: Attempt

    def __init__(
        self,
        manager: _SocketContext[_SocketT],
        attempt: Attempt,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        asyncio.Future.__init__(self, loop=loop)
        Connecting.__init__(self, manager, attempt)

    __repr__ = Connecting.__repr__

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until the SSH session is up (see `Connecting`)."""
        self._retrieved = True
        try:
            yield from asyncio.Future.__await__(self)
        except asyncio.CancelledError:
            # Also one that came in the moment in which the session was up.
            self._socket._undo_tunnel(self._attempt.tunnel)
            raise

    def cancel(self, msg: Any | None = None) -> bool:
        """Undo the connect: close the tunnel, give the login up if nobody else waits for it."""
        if not super().cancel(msg):
            return False
        self._socket._undo_tunnel(self._attempt.tunnel)
        return True

    def __del__(self) -> None:
        """Let asyncio tell; or tell in its place of what the loop has not heard of yet."""
        if self.done():
            asyncio.Future.__del__(self)
        else:
            self._tell_untold()

    def _tell_untold(self) -> None:
        loop = self.get_loop()
        if loop.is_closed():
            super()._tell_untold()
        elif (error := self._retrieve()) is not None:
            context = {"message": f"connect to {self.addr} failed", "exception": error}
            loop.call_soon_threadsafe(loop.call_exception_handler, context)

    def on_done(self) -> None:
        """Have the outcome. Called by the event loop, or by the attempt's thread after its end."""
        if self.get_loop().is_closed():
            super().on_done()
            self._tell_untold()  # it is of no use to wait for it
        else:
            self._settle()

    def _settle(self) -> None:
        error = self._attempt.error
        if error is None:
            super().on_done()
        else:
            self._socket._undo_tunnel(self._attempt.tunnel)
        if self.done():
            return
        if error is None:
            self.set_result(None)
        elif isinstance(error, GivenUp):
            super().cancel()
        else:
            self.set_exception(error)
            if isinstance(error, _UNTOLD):
                self.exception()  # asyncio takes it for retrieved
