"""The gateways of a context: one for each way to log in, shared by its sockets."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter

import zmq

from .directory import sweep
from .endpoints import RemoteEndpoint
from .exceptions import TunnelError
from .handle import GatewayHandle, HandleEnded
from .options import SSHOptions
from .tunnel import Tunnel

__all__ = ["GatewayPool"]


class GatewayPool:
    """The gateways of one context.

    Args:
        isolate: whether gateways get processes of their own.
    """

    def __init__(self, *, isolate: bool = True) -> None:
        self._isolate = isolate
        self._pid = os.getpid()

        # Mutex for the state below.
        self._lock = threading.Lock()
        # By options, and number of the connection among those that share them.
        self._handles: dict[tuple[SSHOptions, int], GatewayHandle] = {}
        # How many tunnels each options have had, to take their connections in turn.
        self._turns: Counter[SSHOptions] = Counter()
        self._swept = False
        self._terminating = False

    def __repr__(self) -> str:
        return f"<GatewayPool {list(self._handles.values())!r}>"

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels."""
        return [tunnel for handle in list(self._handles.values()) for tunnel in handle.tunnels]

    def open(self, options: SSHOptions, remote: RemoteEndpoint, local: str | None) -> Tunnel:
        """Open a tunnel over the SSH session for `options`, which is set up if there is none.

        Raises:
            TunnelError: see :meth:`GatewayHandle.open`.
            zmq.ContextTerminated: the context terminates meanwhile.
        """
        return self._open(options, remote, local, None)

    def open_hop(
        self, handle: GatewayHandle, options: SSHOptions, remote: RemoteEndpoint
    ) -> Tunnel:
        """Open a tunnel for the SSH session of `handle`.

        Raises:
            TunnelError: there is none, or the hop would be reached over `handle` itself.
            zmq.ContextTerminated: the context terminates meanwhile.
        """
        return self._open(options, remote, None, handle)

    def _open(
        self,
        options: SSHOptions,
        remote: RemoteEndpoint,
        local: str | None,
        user: GatewayHandle | None,
    ) -> Tunnel:
        while True:
            handle = self._get(options, user)
            try:
                return handle.open(remote, local, for_gateway=user is not None)
            except HandleEnded:
                continue  # its last tunnel had just been closed

    def _get(self, options: SSHOptions, user: GatewayHandle | None) -> GatewayHandle:
        if self._pid != os.getpid():
            raise zmq.ContextTerminated()  # a forked child: libzmq's context is its parent's
        with self._lock:
            if self._terminating:
                raise zmq.ContextTerminated()
            key = options, self._turns[options] % options.connections
            handle = self._handles.get(key)
            if handle is None or handle.ended:
                handle = self._handles[key] = self._start(options)
            self._turns[options] += 1
            if user is not None:
                _check_loop(user, handle)
                user.behind = handle
            return handle

    def _start(self, options: SSHOptions) -> GatewayHandle:
        if not self._swept:
            sweep()
            self._swept = True
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
            self._terminating = True
            handles = list(self._handles.values())
            self._handles.clear()
        for handle in handles:
            handle.shutdown()


def _check_loop(user: GatewayHandle, hop: GatewayHandle) -> None:
    way = [user]
    handle: GatewayHandle | None = hop
    while handle is not None:
        way.append(handle)
        if handle is user:
            names = " -> ".join(handle.options.server for handle in way)
            raise TunnelError(errno.ELOOP, f"{user.server}: its hops lead back to it: {names}")
        handle = handle.behind
