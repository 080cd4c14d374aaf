"""`TunneledSocket`: a `zmq.asyncio.Socket` whose `connect` takes ``ssh=``."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import zmq.asyncio

from ..mixing import add_twin
from ..options import SSHLike
from ..socket import CONTEXT, Default, to_text
from ..socket import TunneledSocket as BlockingSocket
from ..tunnel import Tunnel
from .connecting import Attempt, Connecting, PendingConnect

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PlainSocket", "TunneledSocket"]

PlainSocket: Any = zmq.asyncio.Socket


class TunneledSocket(BlockingSocket[Any], zmq.asyncio.Socket):
    """A :class:`zmq.asyncio.Socket` that connects through SSH servers."""

    _repr_cls = "tunneledzmq.asyncio.TunneledSocket"

    # What `connect` returned, while it is under way. Nothing else need keep it.
    _connecting_tunnels: dict[Tunnel, Connecting[Any]]
    # What has failed of it, and is perhaps still to be undone.
    _failed_tunnels: deque[Tunnel]

    def _begin_tunnels(self) -> None:
        super()._begin_tunnels()
        self._connecting_tunnels, self._failed_tunnels = {}, deque()

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels of this socket, those that are connecting included."""
        return super().tunnels

    def connect(  # type: ignore[override]
        self,
        addr: str | bytes,
        ssh: SSHLike | Default | None = CONTEXT,
        *,
        local: str | None = None,
    ) -> Connecting[Self]:
        """Connect to a peer, through an SSH server where `ssh` or the context says so.

        Returns at once, also where no event loop runs yet. As with :mod:`zmq.asyncio`, messages
        can be sent right after it; they leave when the SSH session is up. If that fails, the
        socket is disconnected again, and what was queued for this peer is discarded.

        Args:
            addr: the peer's endpoint as the SSH server sees it, ``tcp://HOST:PORT``.
            ssh: ``[user@]host[:port]``, ``ssh://...``, or :class:`SSHOptions`; `None` connects
                directly. Default: the context's `ssh` for ``tcp://`` addresses.
            local: endpoint of the local leg: ``tcp://127.0.0.1:*``, ``tcp://127.0.0.1:7000`` or
                ``ipc:///path``. Default: the context's, else a Unix socket that is private to the
                user; on Windows a TCP port that only this process can use.

        Returns:
            What can be awaited: it waits until the SSH session is up, or raises why there is none
            (`TunnelError`); cancelling that undoes the connect. A failure that nobody has awaited
            when this is forgotten is told to the loop's exception handler, as asyncio does, or
            logged where there is no loop. It is also a context manager, with ``with`` as with
            ``async with`` (which awaits it): it disconnects `addr` in the end.

        Raises:
            TunnelError: there is no listener for the local leg.
            ValueError: an argument is malformed.
            TypeError: an argument is of another type.
        """
        text = to_text(addr)
        way = self._tunnel_way(text, ssh, local)
        if way is None:
            return Connecting(self._connect_past_tunnels(text))
        self._undo_failed_tunnels()
        connected = self._connected_tunnel(text, way)
        if connected is not None:
            again = self._connecting_tunnels.get(connected)
            if again is not None and again.under_way:
                return again
            return Connecting(self._connect_tunnel_again(connected, text))
        linger = self._linger_of_tunnel(weakref.ref(self))
        pool = self._tunnel_pool
        tunnel = Tunnel(str(way.remote), way.options, way.local or "", pace=way.pace)
        attempt: Attempt | None = None
        try:
            pool.begin(tunnel)
            attempt = Attempt(pool, tunnel, linger, self._failed_tunnels)
            return self._start_tunnel(attempt, text)
        except BaseException:  # no thread to be had, Ctrl-C
            if tunnel._listener is not None:
                self._undo_tunnel(tunnel)
                (attempt or Attempt(pool, tunnel, linger, self._failed_tunnels)).give_up()
            raise

    def _start_tunnel(self, attempt: Attempt, addr: str) -> Connecting[Self]:
        attempt.start()
        manager = self._connect_tunnel(attempt.tunnel, addr)
        loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
        connecting: Connecting[Self]
        if loop is None:
            connecting = Connecting(manager, attempt)
        else:
            connecting = PendingConnect(manager, attempt, loop)
        self._connecting_tunnels[attempt.tunnel] = connecting
        attempt.when_done(connecting.on_done, loop)
        return connecting

    @staticmethod
    def _linger_of_tunnel(reference: weakref.ref[TunneledSocket]) -> Callable[[], int]:
        def linger() -> int:
            sock = reference()
            return 0 if sock is None or sock.closed else sock._tunnel_option(zmq.LINGER, -1)

        return linger

    def disconnect(self, addr: str | bytes) -> None:
        """Disconnect from a peer, and close the tunnel to it; a connect under way is cancelled.

        Args:
            addr: as it was given to :meth:`connect`, or the local endpoint (``last_endpoint``).
        """
        self._undo_failed_tunnels()
        super().disconnect(addr)

    def _undo_tunnel(self, tunnel: Tunnel) -> None:
        """Make the socket as it was before a connect. To be called by the socket's thread."""
        self._connecting_tunnels.pop(tunnel, None)
        if tunnel._closing is not None:
            return  # undone, disconnected or closed before
        self._tunnels.discard(tunnel)
        with suppress(zmq.ZMQError):
            # What was sent to this peer alone has nowhere to go, and must not keep term() waiting.
            linger = self.get(zmq.LINGER)
            self.set(zmq.LINGER, 0)
            try:
                self._disconnect_past_tunnels(tunnel.local)
            finally:
                self.set(zmq.LINGER, linger)
        tunnel._cut()

    def _undo_failed_tunnels(self) -> None:
        """Undo what failed, where no event loop has done it yet."""
        while self._failed_tunnels:
            self._undo_tunnel(self._failed_tunnels.popleft())


add_twin(PlainSocket, TunneledSocket)
