"""The gateways of a context: one for each way to log in, shared by its sockets."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from collections import Counter
from itertools import count

import zmq

from ..endpoints import RemoteEndpoint
from ..exceptions import TunnelError
from ..options import SSHOptions
from ..shared.directory import RuntimeDirectory, restore, sweep
from ..shared.listener import cannot_listen, listen, remove_stale
from ..shared.system.leg import private_leg, whose
from ..tunnel import GivenUp, Handle, Pace, Tunnel
from .handle import GatewayHandle, HandleEnded

__all__ = ["GatewayPool", "shared_pool"]

# Hops, one behind the other, before the first server that is reached directly.
_MAX_HOPS = 16


class GatewayPool:
    """The gateways of one context.

    Args:
        isolate: whether gateways get processes of their own.
    """

    def __init__(self, *, isolate: bool = True) -> None:
        self._isolate = isolate
        self._pid = os.getpid()
        # Tunnels that a gateway has yet to take (a dict for its order).
        self._begun: dict[Tunnel, None] = {}
        self._numbers = count(1)

        # Mutex for the directory of the listeners that are made here. The other one is held while
        # a gateway is started.
        self._directory_lock = threading.Lock()
        self._directory: RuntimeDirectory | None = None

        # Mutex for the state below.
        self._lock = threading.Lock()
        # By options, and number of the connection among those that share them.
        self._handles: dict[tuple[SSHOptions, int], GatewayHandle] = {}
        # Over which hop's gateway each one goes.
        self._behind: dict[Handle, GatewayHandle] = {}
        # How many tunnels each options have had, to take their connections in turn.
        self._turns: Counter[SSHOptions] = Counter()
        self._swept = False
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
        return f"<GatewayPool {list(self._handles.values())!r}>"

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels."""
        begun = [tunnel for tunnel in list(self._begun) if tunnel.state == "connecting"]
        taken = [tunnel for handle in list(self._handles.values()) for tunnel in handle.tunnels]
        return list(dict.fromkeys(taken + begun))

    def open(self, tunnel: Tunnel) -> None:
        """Open a tunnel over the SSH session for its options, which is set up if there is none.

        Args:
            tunnel: a new one; without a local endpoint it gets a private Unix socket.

        Raises:
            TunnelError: see :meth:`GatewayHandle.open`.
            zmq.ContextTerminated: the context terminates meanwhile.
        """
        self._check_open()
        self.finish(tunnel)

    def begin(
        self,
        options: SSHOptions,
        remote: RemoteEndpoint,
        local: str | None,
        pace: Pace | None = None,
    ) -> Tunnel:
        """Return a tunnel to which libzmq can connect, without a gateway yet. Never waits.

        Whoever begins a tunnel must :meth:`finish` it.

        Args:
            options: how to log in.
            remote: where it leads.
            local: the local endpoint; `None` for a private Unix socket.
            pace: how libzmq connects.

        Raises:
            TunnelError: no listener for the local leg.
            zmq.ContextTerminated: the context terminates.
        """
        self._check_open()
        owner = whose(None) if local is None else None
        try:
            if local is None:
                local = private_leg(self._own_directory, next(self._numbers))
            listener, local = listen(local)
        except OSError as exc:
            text = cannot_listen(options.server, local or "a Unix socket", exc)
            raise TunnelError(exc.errno or errno.EIO, text) from exc
        tunnel = Tunnel(str(remote), options, local, listener, pace=pace)
        tunnel._owner = owner
        self._begun[tunnel] = None
        return tunnel

    def finish(self, tunnel: Tunnel) -> None:
        """Have the gateway for its options take a tunnel, and wait until it is up.

        Raises:
            TunnelError: see :meth:`GatewayHandle.open`; or the hop that is asked for would be
                reached over the gateway that asks.
            zmq.ContextTerminated: the context terminates meanwhile.
            GivenUp: the tunnel was closed meanwhile.
        """
        local = tunnel._local
        try:
            while True:
                try:
                    self._get(tunnel).open(tunnel)
                    break
                except HandleEnded:
                    # Its last tunnel had just been closed.
                    tunnel._handle, tunnel._local = None, local
        except BaseException as exc:
            if tunnel._handle is None:
                tunnel._ended = True
            if isinstance(exc, TunnelError):
                tunnel._last_error = exc.strerror
            self._stop_listening(tunnel)
            if local.startswith("ipc://"):
                remove_stale(local[len("ipc://") :])  # unless a gateway has taken it over
            if tunnel._closing is not None and isinstance(exc, Exception):
                raise GivenUp from exc  # whatever else went wrong does not matter any more
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
                self._directory = directory = RuntimeDirectory()
                self._remove_directory = weakref.finalize(self, _remove, directory, os.getpid())
                # Not before the connects that go on at the end of the program: see _at_exit.
                self._remove_directory.atexit = False
            restore(self._directory.path)
            return self._directory.path

    def _get(self, tunnel: Tunnel) -> GatewayHandle:
        with self._lock:
            closing = tunnel._closing
            if closing is not None and closing.at_once:
                raise GivenUp
            # The end of the context waits for sockets that still have something to send.
            if self._terminated or (self._terminating and closing is None):
                raise zmq.ContextTerminated()
            if tunnel._user is not None:
                self._check_depth(tunnel._user)
            options = tunnel._options
            key = options, self._turns[options] % options.connections
            handle = self._handles.get(key)
            if handle is None or handle.ended:
                handle = self._handles[key] = self._start(options)
            self._turns[options] += 1
            if tunnel._user is not None:
                self._check_loop(tunnel._user, handle)
                self._behind[tunnel._user] = handle
            return handle

    def _check_depth(self, user: Handle) -> None:
        """Refuse a way without end, such as ``ProxyJump next-%h`` for all hosts."""
        way = [user]
        while front := [
            front for front, hop in self._behind.items() if hop is way[-1] and not front.ended
        ]:
            way.append(front[0])
        if len(way) > _MAX_HOPS:
            raise TunnelError(
                errno.ELOOP,
                f"{way[-1].server}: more than {_MAX_HOPS} hops, one behind the other: "
                f"... -> {user.server}",
            )

    def _check_loop(self, user: Handle, hop: Handle) -> None:
        way = [user]
        handle: Handle | None = hop
        while handle is not None:
            way.append(handle)
            if handle is user:
                names = " -> ".join(handle.options.server for handle in way)
                raise TunnelError(errno.ELOOP, f"{user.server}: its hops lead back to it: {names}")
            handle = self._behind.get(handle)

    def _start(self, options: SSHOptions) -> GatewayHandle:
        if not self._swept:
            sweep()
            self._swept = True
        for user in [user for user in self._behind if user.ended]:
            del self._behind[user]
        for ended in [key for key, old in self._handles.items() if old.ended]:
            del self._handles[ended]
            if not any(options == ended[0] for options, _ in self._handles):
                del self._turns[ended[0]]
        return GatewayHandle(options, self, isolate=self._isolate)

    def interrupt(self) -> None:
        """Make waiting connects raise, and refuse new ones: the context terminates."""
        with self._lock:
            self._terminating = True
            handles = list(self._handles.values())
        for handle in handles:
            handle.interrupt()

    def shutdown(self) -> None:
        """Let all gateways deliver what they hold and end: libzmq has closed its sockets."""
        with self._lock:
            self._terminating = self._terminated = True
            handles = list(self._handles.values())
            self._handles.clear()
            self._behind.clear()
        for handle in handles:
            handle.shutdown()
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
    for pool in list(_pools):
        if pool._directory is not None:
            # Finalizers do nothing any more.
            _remove(pool._directory, pool._pid)


atexit.register(_at_exit)

_shared = GatewayPool()


def shared_pool() -> GatewayPool:
    """Return the gateways for what belongs to no `TunneledContext`.

    There is one pool for the whole program: each gateway ends with its last tunnel.
    """
    global _shared
    if _shared.inherited:
        _shared = GatewayPool()
    return _shared
