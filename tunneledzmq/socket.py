"""`TunneledSocket`: a `zmq.Socket` whose `connect` takes ``ssh=``."""

from __future__ import annotations

import weakref
from contextlib import suppress
from enum import Enum
from typing import Any, Final

import zmq

from .endpoints import check_local, is_tcp, parse_remote
from .options import SSHLike, SSHOptions, to_options
from .pool import GatewayPool
from .tunnel import Tunnel

__all__ = ["TunneledSocket"]


class _Default(Enum):
    """The type of the default of ``ssh=``, which is neither a server nor `None`."""

    CONTEXT = "the context's"

    def __repr__(self) -> str:
        return f"<{self.value}>"


CONTEXT: Final = _Default.CONTEXT

# libzmq waits up to twice its reconnect interval (it adds a random part) before it comes back;
# this many seconds more are for the machine being busy.
_GRACE = 0.2


class TunneledSocket(zmq.Socket[bytes]):
    """A :class:`zmq.Socket` that connects through SSH servers."""

    _repr_cls = "tunneledzmq.TunneledSocket"

    # The tunnels of this socket, with the addresses that were given to connect.
    _tunnels: dict[Tunnel, str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._tunnels = {}
        super().__init__(*args, **kwargs)

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels of this socket."""
        return [tunnel for tunnel in self._tunnels if tunnel.state not in ("closing", "closed")]

    def connect(
        self,
        addr: str | bytes,
        ssh: SSHLike | _Default | None = CONTEXT,
        *,
        local: str | None = None,
    ) -> Any:
        """Connect to a peer, through an SSH server where `ssh` or the context says so.

        Args:
            addr: the peer's endpoint as the SSH server sees it, ``tcp://HOST:PORT``.
            ssh: ``[user@]host[:port]``, ``ssh://...``, or :class:`SSHOptions`; `None` connects
                directly. Default: the context's `ssh` for ``tcp://`` addresses.
            local: endpoint of the local leg: ``tcp://127.0.0.1:*``, ``tcp://127.0.0.1:7000`` or
                ``ipc:///path``. Default: a Unix socket that is private to the user.

        Returns:
            A context manager that disconnects `addr`, as :meth:`zmq.Socket.connect` does.

        Raises:
            TunnelError: no SSH session could be set up; the socket is as it was before.
            ValueError: an argument is malformed.
            TypeError: an argument is of another type.
        """
        text = _text(addr)
        options = self._options(text, ssh)
        if options is None:
            if local is not None:
                raise ValueError("local= needs ssh=")
            return super().connect(text)
        remote = parse_remote(text)
        if local is not None:
            local = check_local(_text(local, "local"))
        if self.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        tunnel = _pool(self.context).open(options, remote, local)
        try:
            manager = super().connect(tunnel.local)
        except BaseException:
            tunnel._handle.close(tunnel, linger=0, grace=0)
            raise
        self._forget_closed()
        self._tunnels[tunnel] = text
        manager.addr = text
        return manager

    def disconnect(self, addr: str | bytes) -> None:
        """Disconnect from a peer, and close the tunnel to it.

        Args:
            addr: as it was given to :meth:`connect`, or the local endpoint (``last_endpoint``).
        """
        text = _text(addr).rstrip("\0")
        grace = self._grace()
        matching = [
            tunnel for tunnel in self.tunnels if text in (self._tunnels[tunnel], tunnel.local)
        ]
        for tunnel in matching:
            super().disconnect(tunnel.local)
            # libzmq keeps the connection until the program's next call into the socket.
            tunnel._handle.close(tunnel, linger=-1, grace=grace)
        if not matching:
            super().disconnect(text)

    def close(self, linger: int | None = None) -> None:
        """Close the socket; its tunnels follow when libzmq is through with them.

        Args:
            linger: milliseconds for which pending messages are still sent; -1 for ever. Default:
                the socket's LINGER.
        """
        tunnels, self._tunnels = self._tunnels, {}
        if not tunnels:
            super().close(linger)
            return
        grace = self._grace()
        if linger is None:
            linger = self._get_or(zmq.LINGER, -1)
        super().close(linger)
        for tunnel in tunnels:
            tunnel._handle.close(tunnel, linger=linger, grace=grace if linger else 0)

    def _options(self, addr: str, ssh: SSHLike | _Default | None) -> SSHOptions | None:
        if ssh is None:
            return None
        if isinstance(ssh, _Default):
            return getattr(self.context, "_ssh", None) if is_tcp(addr) else None
        return to_options(ssh)

    def _grace(self) -> float:
        """Return the seconds that libzmq may take at most before it connects again."""
        interval = self._get_or(zmq.RECONNECT_IVL, 100)
        longest = self._get_or(zmq.RECONNECT_IVL_MAX, 0)
        return 2 * max(interval, longest, 0) / 1000 + _GRACE

    def _get_or(self, option: int, default: int) -> int:
        # A terminated context refuses to tell.
        with suppress(zmq.ZMQError):
            return int(self.get(option))
        return default

    def _forget_closed(self) -> None:
        for tunnel in [tunnel for tunnel in self._tunnels if tunnel.state == "closed"]:
            del self._tunnels[tunnel]


def _text(addr: str | bytes, name: str = "addr") -> str:
    if isinstance(addr, bytes):
        return addr.decode()
    if not isinstance(addr, str):
        raise TypeError(f"{name} must be a str, not {type(addr).__name__}")
    return addr


# The gateways for sockets of contexts that are no TunneledContext.
_pools: weakref.WeakKeyDictionary[zmq.Context[Any], GatewayPool] = weakref.WeakKeyDictionary()


def _pool(context: zmq.Context[Any]) -> GatewayPool:
    pool = getattr(context, "_pool", None)
    if isinstance(pool, GatewayPool):
        return pool
    return _pools.setdefault(context, GatewayPool())
