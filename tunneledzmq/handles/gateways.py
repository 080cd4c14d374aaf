"""The gateways of a program: one for each way to log in, shared by all its contexts."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import zmq

from ..exceptions import TunnelError
from ..options import SSHOptions
from ..shared.directory import sweep
from ..tunnel import GivenUp, Handle, Owner, Tunnel
from .handle import GatewayHandle, HandleEnded
from .request import working_directory

__all__ = ["Gateways", "gateways"]

# Hops, one behind the other, before the first server that is reached directly.
_MAX_HOPS = 16


class _Way(NamedTuple):
    """Tunnels for which this is equal share their SSH sessions."""

    options: SSHOptions
    isolate: bool
    # What gives the options their meaning: where their paths lead, and who has the keys.
    home: str
    directory: str | None
    agent: str | None


# The way, and the number of the connection among those that share it.
_Key = tuple[_Way, int]


class Gateways:
    """The gateways of this process."""

    def __init__(self) -> None:
        # Mutex for the state below.
        self._lock = threading.Lock()
        self._handles: dict[_Key, GatewayHandle] = {}
        # Each held while that gateway is started, by those who wait for it.
        self._starting: WeakValueDictionary[_Key, threading.Lock] = WeakValueDictionary()
        # Over which hop's gateway each one goes.
        self._behind: dict[Handle, GatewayHandle] = {}
        # How many tunnels each way has had, to take its connections in turn.
        self._turns: Counter[_Way] = Counter()
        self._swept = False

    def __repr__(self) -> str:
        return f"<Gateways {list(self._handles.values())!r}>"

    def tunnels_of(self, owner: Owner) -> list[Tunnel]:
        """Return the open tunnels of a context that a gateway has."""
        return [
            tunnel
            for handle in list(self._handles.values())
            for tunnel in handle.tunnels
            if tunnel._owner is owner
        ]

    def _get(self, tunnel: Tunnel, *, isolate: bool) -> GatewayHandle:
        """Return the gateway that is to take a tunnel, which is started if there is none.

        Raises:
            GatewayError: it cannot be started.
            TunnelError: the way over the hops has no end.
        """
        options = tunnel._options
        way = _Way(
            options,
            isolate,
            os.path.expanduser("~"),
            working_directory() if _has_relative_paths(options) else None,
            os.environ.get("SSH_AUTH_SOCK"),
        )
        with self._lock:
            if tunnel._user is not None:
                self._check_depth(tunnel._user)
            key = way, self._turns[way] % options.connections
            self._turns[way] += 1
        handle = self._running(key) or self._start(key)
        if tunnel._user is not None:
            with self._lock:
                self._check_loop(tunnel._user, handle)
                self._behind[tunnel._user] = handle
        return handle

    def _running(self, key: _Key) -> GatewayHandle | None:
        handle = self._handles.get(key)
        return None if handle is None or handle.ended else handle

    def _start(self, key: _Key) -> GatewayHandle:
        """Start a gateway, or wait for whoever does; the others go on meanwhile."""
        with self._lock:
            starting = self._starting.setdefault(key, threading.Lock())
        with starting:
            handle = self._running(key)
            if handle is None:
                if not self._swept:
                    sweep()
                    self._swept = True
                way = key[0]
                handle = GatewayHandle(way.options, self, isolate=way.isolate)
                with self._lock:
                    self._forget_ended()
                    self._handles[key] = handle
            return handle

    def finish(self, tunnel: Tunnel, *, isolate: bool) -> None:
        """Have a gateway take a tunnel, and wait until it is up.

        Raises:
            TunnelError: there is no way.
            zmq.ContextTerminated: the context terminates meanwhile.
            GivenUp: the tunnel was closed meanwhile.
        """
        local = tunnel._local
        try:
            while True:
                closing, owner = tunnel._closing, tunnel._owner
                if closing is not None and closing.at_once:
                    raise GivenUp
                if owner is not None and owner.refuses(tunnel):
                    raise zmq.ContextTerminated()
                try:
                    self._get(tunnel, isolate=isolate).open(tunnel)
                    break
                except HandleEnded:
                    # Its last tunnel had just been closed.
                    tunnel._handle, tunnel._local = None, local
        except BaseException as exc:
            if tunnel._handle is None:
                tunnel._ended = True
            if isinstance(exc, TunnelError):
                tunnel._last_error = exc.strerror
            if tunnel._closing is not None and isinstance(exc, Exception):
                raise GivenUp from exc  # whatever else went wrong does not matter any more
            raise

    def interrupt(self, owner: Owner) -> None:
        """Make the threads raise that wait for tunnels of a context: it terminates."""
        for handle in list(self._handles.values()):
            handle.interrupt(owner)

    def terminate(self, owner: Owner) -> None:
        """Have what is left of a context's tunnels delivered: libzmq has closed its sockets."""
        for handle in list(self._handles.values()):
            handle.terminate(owner)

    def _forget_ended(self) -> None:
        for user in [user for user in self._behind if user.ended]:
            del self._behind[user]
        for ended in [key for key, old in self._handles.items() if old.ended]:
            del self._handles[ended]
            if not any(way == ended[0] for way, _ in self._handles):
                del self._turns[ended[0]]

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


def _has_relative_paths(options: SSHOptions) -> bool:
    fields: Any = options  # which are tuples by now
    paths = [*(fields.keyfile or ()), *(fields.known_hosts or ()), fields.config_file or "~"]
    return any(not path.startswith((os.sep, "~")) for path in paths) or any(
        isinstance(hop, SSHOptions) and _has_relative_paths(hop) for hop in fields.jump
    )


_gateways = Gateways()


def gateways() -> Gateways:
    """Return the gateways of this process."""
    return _gateways


def _after_fork() -> None:
    # A forked child has none, and the lock may be held by a thread that it does not have.
    global _gateways
    _gateways = Gateways()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
