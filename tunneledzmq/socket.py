"""`TunneledSocket`: a `zmq.Socket` whose `connect` takes ``ssh=``; and what its twin shares."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple

import zmq

from .addressed import AddressedTunnels
from .default import context_of, default_for, local_for, note_socket, noted_socket
from .endpoints import RemoteEndpoint, check_local, parse_remote
from .handles.pool import GatewayPool, shared_pool
from .hub import is_green, open_beside
from .options import SSHLike, SSHOptions, to_options
from .shared.control import How
from .shared.pace import Pace
from .tunnel import Tunnel

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar
    from zmq.sugar.socket import _SocketContext

    _ReturnT = TypeVar("_ReturnT", covariant=True, default=bytes)
else:
    from typing import TypeVar

    _ReturnT = TypeVar("_ReturnT", covariant=True)

__all__ = ["CONTEXT", "Default", "TunneledSocket", "original", "to_text"]

PlainSocket: Any = zmq.Socket
"""pyzmq's own class, whatever stands in its place."""


class Default(Enum):
    """The type of the default of ``ssh=``, which is neither a server nor `None`."""

    CONTEXT = "the context's"

    def __repr__(self) -> str:
        return f"<{self.value}>"


CONTEXT: Final = Default.CONTEXT

# Types of which libzmq makes no second connection to the same address.
_SINGLE = (zmq.SUB, zmq.PUB, zmq.DEALER, zmq.REQ)


class _Way(NamedTuple):
    """What a tunnel needs to know."""

    options: SSHOptions
    remote: RemoteEndpoint
    local: str | None
    pace: Pace


class TunneledSocket(zmq.Socket[_ReturnT], Generic[_ReturnT]):
    """A :class:`zmq.Socket` that connects through SSH servers."""

    _repr_cls = "tunneledzmq.TunneledSocket"

    # Whatever is private has "tunnel" in its name: programs' own classes are derived from this one,
    # or mixed with it, and may have any other.

    # Also those that are closing.
    _tunnels: AddressedTunnels
    # Whether pyzmq's own connect is called, and not a program's that skips ours.
    _past_tunnels = False
    # Makes another socket one of this package. Set by `tunneledzmq.mixing`, which knows the twins.
    _adopt_for_tunnels: ClassVar[Callable[[zmq.Socket[Any]], TunneledSocket[Any]]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._begin_tunnels()
        super().__init__(*args, **kwargs)  # type: ignore[misc]
        shadowed = self._shadow_obj
        # Before pyzmq 26 a shadow forgot the context, and with it the context's default.
        if self.context is None and isinstance(shadowed, PlainSocket):
            self.context = shadowed.context
        # A shadow may be gone long before the socket is closed.
        owner = original(self)
        if not self._shadow:
            note_socket(self)
        elif isinstance(owner, TunneledSocket):
            self._tunnels = owner._tunnels

    def _begin_tunnels(self) -> None:
        """Have no tunnels yet. Also for a socket of another class, whose class has become ours."""
        self._tunnels = AddressedTunnels()

    def _share_tunnels(self) -> None:
        """Have the tunnels of a shadow go with the socket that it shadows, whatever its class."""
        owner = original(self)
        if not (owner._shadow or isinstance(owner, TunneledSocket)):
            self._tunnels = TunneledSocket._adopt_for_tunnels(owner)._tunnels

    def connect(  # type: ignore[override]
        self,
        addr: str | bytes,
        ssh: SSHLike | Default | None = CONTEXT,
        *,
        local: str | None = None,
    ) -> _SocketContext[Self]:
        """Connect to a peer, through an SSH server where `ssh` or the context says so.

        Args:
            addr: the peer's endpoint as the SSH server sees it, ``tcp://HOST:PORT``.
            ssh: ``[user@]host[:port]``, ``ssh://...``, or :class:`SSHOptions`; `None` connects
                directly. Default: the context's `ssh` for ``tcp://`` addresses.
            local: endpoint of the local leg: ``tcp://127.0.0.1:*``, ``tcp://127.0.0.1:7000`` or
                ``ipc:///path``. Default: the context's, else a Unix socket that is private to the
                user; on Windows a TCP port that only this process can use.

        Returns:
            A context manager that disconnects `addr`, as :meth:`zmq.Socket.connect` does.

        Raises:
            TunnelError: no SSH session could be set up; the socket is as it was before.
            ValueError: an argument is malformed.
            TypeError: an argument is of another type.
        """
        text = to_text(addr)
        way = self._tunnel_way(text, ssh, local)
        if way is None:
            return self._connect_past_tunnels(text)
        connected = self._connected_tunnel(text, way)
        if connected is not None:
            return self._connect_tunnel_again(connected, text)
        tunnel = Tunnel(str(way.remote), way.options, way.local or "", pace=way.pace)
        try:
            self._open_tunnel(tunnel)
            return self._connect_tunnel(tunnel, text)
        except BaseException:
            tunnel._cut_if_open()  # Ctrl-C in between
            raise

    def _open_tunnel(self, tunnel: Tunnel) -> None:
        if is_green():
            open_beside(self._tunnel_pool, tunnel)
        else:
            self._tunnel_pool.open(tunnel)

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels of this socket."""
        return [tunnel for tunnel in self._tunnels if tunnel.state not in ("closing", "closed")]

    def disconnect(self, addr: str | bytes) -> None:
        """Disconnect from a peer, and close the tunnel to it.

        Args:
            addr: as it was given to :meth:`connect`, or the local endpoint (``last_endpoint``).
        """
        text = to_text(addr).rstrip("\0")
        matching = self._tunnels.named(text, _normal(text))
        linger = self._tunnel_option(zmq.LINGER, -1)
        for tunnel in matching:
            super().disconnect(tunnel.local)
            # libzmq keeps the connection until the program's next call into the socket.
            tunnel._close(linger, How.DISCONNECTED)
        if not matching:
            super().disconnect(text)

    def close(self, linger: int | None = None) -> None:
        """Close the socket; its tunnels follow when libzmq is through with them.

        Args:
            linger: milliseconds for which pending messages are still sent; -1 for ever. Default:
                the socket's LINGER.
        """
        tunnels = list(self._tunnels)
        if not tunnels:
            super().close(linger)
            return
        if linger is None:
            linger = self._tunnel_option(zmq.LINGER, -1)
        try:
            super().close(linger)
        finally:  # also when Ctrl-C comes
            for tunnel in tunnels:
                self._let_tunnel_go(tunnel, linger)

    def _let_tunnel_go(self, tunnel: Tunnel, linger: int) -> None:
        closing = tunnel._closing
        if closing is None:
            tunnel._close(linger, How.CLOSED)
        elif closing.how is How.DISCONNECTED:
            # libzmq does what is left to be done without being asked, for as long as before.
            tunnel._close(closing.linger, How.CLOSED)
        self._tunnels.discard(tunnel)

    def _tunnel_way(
        self, addr: str, ssh: SSHLike | Default | None, local: str | None
    ) -> _Way | None:
        """Check the arguments of `connect`; return `None` for a direct connection."""
        if isinstance(ssh, Default):
            options = default_for(self, addr)
        else:
            options = None if ssh is None else to_options(ssh)
        if options is None:
            if local is not None:
                raise ValueError("local= needs ssh=")
            return None
        remote = parse_remote(addr)
        local = local_for(self) if local is None else check_local(to_text(local, "local"))
        if self.closed:
            error = zmq.ZMQError(zmq.ENOTSOCK)
            error.strerror += f" (addr={addr!r})"
            raise error
        self._share_tunnels()
        return _Way(options, remote, local, self._tunnel_pace())

    @property
    def _tunnel_pool(self) -> GatewayPool:
        context = context_of(self)
        return shared_pool() if context is None else context._tunnel_pool

    def _connect_past_tunnels(self, addr: str) -> _SocketContext[Self]:
        before, self._past_tunnels = self._past_tunnels, True
        try:
            return super().connect(addr)
        finally:
            self._past_tunnels = before

    def _disconnect_past_tunnels(self, addr: str) -> None:
        super().disconnect(addr)

    def _connect_tunnel(self, tunnel: Tunnel, addr: str) -> _SocketContext[Self]:
        try:
            # First, so that another thread that closes the socket finds it.
            self._tunnels.add(tunnel, addr)
            manager = self._connect_past_tunnels(tunnel.local)
            manager.addr = addr
            return manager
        except BaseException as exc:
            self._tunnels.discard(tunnel)
            if isinstance(exc, zmq.ZMQError):  # closed by another thread meanwhile
                exc.strerror = exc.strerror.replace(repr(tunnel.local), repr(addr))
            else:
                with suppress(zmq.ZMQError):
                    self._disconnect_past_tunnels(tunnel.local)
            tunnel._cut()
            raise

    def _connected_tunnel(self, addr: str, way: _Way) -> Tunnel | None:
        """Return the tunnel that makes another connect a no-op to libzmq, if there is one."""
        if self.type in _SINGLE:
            for tunnel in self._tunnels.to(addr):
                if tunnel._options == way.options:
                    return tunnel
        return None

    def _connect_tunnel_again(self, tunnel: Tunnel, addr: str) -> _SocketContext[Self]:
        manager = self._connect_past_tunnels(tunnel.local)  # a no-op, to libzmq
        manager.addr = addr
        return manager

    def _tunnel_pace(self) -> Pace:
        """Return how libzmq will connect. It takes its options at the connect."""
        return Pace(
            self._tunnel_option(zmq.RECONNECT_IVL, 100) / 1000,
            self._tunnel_option(zmq.RECONNECT_IVL_MAX, 0) / 1000,
            self._tunnel_option(zmq.HEARTBEAT_IVL, 0) > 0,
        )

    def _tunnel_option(self, option: int, default: int) -> int:
        # A terminated context refuses to tell.
        with suppress(zmq.ZMQError):
            return int(self.get(option))
        return default


def original(sock: zmq.Socket[Any]) -> zmq.Socket[Any]:
    """Return the socket whose end is that of libzmq's: shadows come and go."""
    while sock._shadow:
        shadowed = sock._shadow_obj
        if not isinstance(shadowed, PlainSocket):
            shadowed = noted_socket(sock) or getattr(sock, "_shadow_sock", None)  # zmq.asyncio's
        if not isinstance(shadowed, PlainSocket):
            break  # of a bare address: nobody knows the other
        sock = shadowed
    return sock


def _normal(addr: str) -> str:
    """Return an address as libzmq resolves it: without leading zeros of the port, and the like."""
    try:
        return str(parse_remote(addr))
    except zmq.ZMQError:
        return addr


def to_text(addr: str | bytes, name: str = "addr") -> str:
    """Return an address as text.

    Raises:
        TypeError: it is of another type.
    """
    if isinstance(addr, bytes):
        return addr.decode()
    if not isinstance(addr, str):
        raise TypeError(f"{name} must be a str, not {type(addr).__name__}")
    return addr
