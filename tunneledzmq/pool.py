"""The gateways of a context: one for each way to log in, shared by its sockets."""

from __future__ import annotations

import os
import threading

import zmq

from .directory import sweep
from .endpoints import RemoteEndpoint
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
        self._handles: dict[SSHOptions, GatewayHandle] = {}
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
        while True:
            try:
                return self._get(options).open(remote, local)
            except HandleEnded:
                continue  # its last tunnel had just been closed

    def _get(self, options: SSHOptions) -> GatewayHandle:
        if self._pid != os.getpid():
            raise zmq.ContextTerminated()  # a forked child: libzmq's context is its parent's
        with self._lock:
            if self._terminating:
                raise zmq.ContextTerminated()
            handle = self._handles.get(options)
            if handle is None or handle.ended:
                if not self._swept:
                    sweep()
                    self._swept = True
                for ended in [key for key, old in self._handles.items() if old.ended]:
                    del self._handles[ended]
                handle = self._handles[options] = GatewayHandle(options, isolate=self._isolate)
            return handle

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
