"""The tunnels of a context, and the gateways that they share with those of others."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from itertools import count

import zmq

from ..exceptions import TunnelError
from ..shared.directory import RuntimeDirectory, restore
from ..shared.listener import cannot_listen, listen, remove_stale
from ..shared.system.fork import undivided
from ..shared.system.leg import private_leg, whose
from ..tunnel import Tunnel
from .gateways import gateways
from .home import end_threads

__all__ = ["GatewayPool", "shared_pool"]


class GatewayPool:
    """The tunnels of one context.

    Args:
        isolate: whether gateways get processes of their own.
    """

    def __init__(self, *, isolate: bool = True) -> None:
        self._isolate = isolate
        self._pid = os.getpid()
        # Tunnels that a gateway has yet to take (a dict for its order).
        self._begun: dict[Tunnel, None] = {}
        self._numbers = count(1)

        # Mutex for the directory of the listeners that are made here.
        self._directory_lock = threading.Lock()
        self._directory: RuntimeDirectory | None = None

        self._terminating = False
        self._terminated = False
        _pools.add(self)

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's copy, which has neither libzmq's context nor gateways.

        They are its parent's.
        """
        return self._pid != os.getpid()

    def __repr__(self) -> str:
        return f"<GatewayPool [{len(self.tunnels)} tunnels]>"

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels."""
        begun = [tunnel for tunnel in list(self._begun) if tunnel.state == "connecting"]
        return list(dict.fromkeys(gateways().tunnels_of(self) + begun))

    def open(self, tunnel: Tunnel) -> None:
        """Open a tunnel over the SSH session for its options, which is set up if there is none.

        Args:
            tunnel: a new one; without a local endpoint it gets a private Unix socket.

        Raises:
            TunnelError: see :meth:`GatewayHandle.open`.
            zmq.ContextTerminated: the context terminates meanwhile.
        """
        self._check_open()
        tunnel._owner = self
        try:
            self.finish(tunnel)
        except TunnelError as exc:
            # It says what happened over there. How we came to know tells nobody anything; what has
            # caused it here, if something has, stays its cause.
            raise exc.with_traceback(None)  # noqa: B904

    def begin(self, tunnel: Tunnel) -> None:
        """Have libzmq connect to a tunnel, without a gateway yet. Never waits.

        Whoever begins a tunnel must :meth:`finish` it.

        Args:
            tunnel: a new one; without a local endpoint it gets a private Unix socket.

        Raises:
            TunnelError: no listener for the local leg.
            zmq.ContextTerminated: the context terminates.
        """
        self._check_open()
        local = tunnel._local
        process = None if local else whose(None)
        try:
            if not local:
                local = private_leg(self._own_directory, next(self._numbers))
            tunnel._listener, tunnel._local = listen(local)
        except OSError as exc:
            text = cannot_listen(tunnel._options.server, local or "a Unix socket", exc)
            raise TunnelError(exc.errno or errno.EIO, text) from exc
        tunnel._owner = self
        tunnel._process = process
        self._begun[tunnel] = None

    def finish(self, tunnel: Tunnel) -> None:
        """Have the gateway for its options take a tunnel, and wait until it is up.

        Raises:
            TunnelError: see :meth:`GatewayHandle.open`.
            zmq.ContextTerminated: the context terminates meanwhile.
            GivenUp: the tunnel was closed meanwhile.
        """
        local = tunnel._local
        try:
            gateways().finish(tunnel, isolate=self._isolate)
        except BaseException as exc:
            if isinstance(exc, TunnelError):
                tunnel._note(exc.strerror)
            self._stop_listening(tunnel)
            if local.startswith("ipc://"):
                remove_stale(local[len("ipc://") :])  # unless a gateway has taken it over
            raise
        finally:
            self._stop_listening(tunnel)
            self._begun.pop(tunnel, None)

    @staticmethod
    def _stop_listening(tunnel: Tunnel) -> None:
        if tunnel._listener is not None:
            tunnel._listener.close()

    def _check_open(self) -> None:
        if self.inherited or self._terminating:
            raise zmq.ContextTerminated()

    def _own_directory(self) -> str:
        with self._directory_lock:
            if self._directory is None:
                with undivided():
                    self._directory = directory = RuntimeDirectory()
                self._remove_directory = weakref.finalize(self, _remove, directory, os.getpid())
                # Not before the connects that go on at the end of the program: see _at_exit.
                self._remove_directory.atexit = False
            restore(self._directory.path)
            return self._directory.path

    @property
    def terminated(self) -> bool:
        """Whether libzmq has closed the context's sockets."""
        return self._terminated

    def refuses(self, tunnel: Tunnel) -> bool:
        """Tell whether a tunnel is opened no more: the context terminates.

        Its end waits for sockets that still have something to send.
        """
        return self._terminated or (self._terminating and tunnel._closing is None)

    def interrupt(self) -> None:
        """Make waiting connects raise, and refuse new ones: the context terminates."""
        self._terminating = True
        gateways().interrupt(self)

    def shutdown(self) -> None:
        """Let the gateways deliver what they hold: libzmq has closed the context's sockets."""
        self._terminating = self._terminated = True
        gateways().terminate(self)
        with self._directory_lock:
            if self._directory is not None:
                self._remove_directory()


def _remove(directory: RuntimeDirectory, owner: int) -> None:
    if os.getpid() == owner:
        directory.remove()


# A forked child must not keep its parent's directories locked.
_pools: weakref.WeakSet[GatewayPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        if pool._directory is not None:
            pool._directory.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    end_threads()
    for pool in list(_pools):
        if pool._directory is not None:
            # Finalizers do nothing any more.
            _remove(pool._directory, pool._pid)


# At the import: what a program registers later is called before, and may send its last words.
atexit.register(_at_exit)

_shared = GatewayPool()


def shared_pool() -> GatewayPool:
    """Return the pool for what belongs to no `TunneledContext`."""
    global _shared
    if _shared.inherited:
        _shared = GatewayPool()
    return _shared
