"""`TunneledContext`: a `zmq.Context` whose sockets take ``ssh=``; and what its twin shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, cast

import zmq

from .default import note_context, owner_of
from .endpoints import check_local
from .handles.pool import GatewayPool
from .mixing import guard, maker
from .options import SSHLike, SSHOptions, to_options
from .socket import TunneledSocket, to_text
from .tunnel import Tunnel

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar

    _SocketT = TypeVar(
        "_SocketT", bound=TunneledSocket[Any], covariant=True, default=TunneledSocket[bytes]
    )
else:
    from typing import TypeVar

    _SocketT = TypeVar("_SocketT", covariant=True)

__all__ = ["TunneledContext"]

PlainContext: Any = zmq.Context


class TunneledContext(zmq.Context[_SocketT], Generic[_SocketT]):
    """A :class:`zmq.Context` whose sockets take ``ssh=`` in ``connect``.

    Args:
        io_threads: as with :class:`zmq.Context`; or a context to shadow.
        shadow: a context, or its address, to share the libzmq context of.
        ssh: the server for every ``connect`` to a ``tcp://`` address that names none itself.
            Default: that of a shadowed `TunneledContext`, else none.
        local: the default for ``connect``'s `local`: ``"tcp://127.0.0.1:*"`` for programs that take
            ``Peer-Address`` for an IP address.
        isolate: `True`: each SSH connection lives in a helper process of its own. `False`: in
            threads of this process, which then share its GIL. A shadow uses the SSH connections
            of the `TunneledContext` that it shadows.

    Raises:
        ValueError: `ssh` is malformed.
        TypeError: `ssh` is of another type.
    """

    _socket_class: Any = TunneledSocket
    _repr_cls = "tunneledzmq.TunneledContext"
    _instance: Any = None
    _instance_pid: int | None = None

    _tunnel_ssh: SSHOptions | None = None
    _tunnel_local: str | None = None
    _tunnel_pool: GatewayPool
    # Kept for those that shadow it.
    _tunnel_noted: Any

    def __init__(
        self,
        io_threads: int | zmq.Context[Any] = 1,
        shadow: zmq.Context[Any] | int = 0,
        *,
        ssh: SSHLike | None = None,
        local: str | None = None,
        isolate: bool = True,
    ) -> None:
        # Checked first, so that a context that fails to be made has nothing to be undone.
        if _names_server(io_threads) or _names_server(shadow):
            raise TypeError(
                f"{type(self).__name__}() takes io_threads first, and a server by name: pass it as "
                "ssh="
            )
        default = None if ssh is None else to_options(ssh)
        if local is not None:
            local = check_local(to_text(local, "local"))
        if isinstance(io_threads, PlainContext):
            io_threads, shadow = 1, io_threads
        super().__init__(io_threads, shadow)  # type: ignore[call-overload]
        owner = owner_of(self)
        if owner is not None:
            self._tunnel_ssh = owner._tunnel_ssh if default is None else default
            self._tunnel_local = owner._tunnel_local if local is None else local
            self._tunnel_pool = owner._tunnel_pool
        else:
            self._tunnel_ssh = default
            self._tunnel_local = local
            self._tunnel_pool = GatewayPool(isolate=isolate)
        note_context(self)
        if self._tunnel_ssh is not None:
            guard()

    @classmethod
    def instance(
        cls,
        io_threads: int = 1,
        *,
        ssh: SSHLike | None = None,
        local: str | None = None,
        isolate: bool = True,
    ) -> Self:
        """Return the one context that all parts of a program may share; make it if need be.

        It is never that of :meth:`zmq.Context.instance`.

        Args:
            io_threads: of a new one, as are the others.
            ssh: its default server.
            local: its default for ``connect``'s `local`.
            isolate: whether its SSH connections live in processes of their own.

        Raises:
            ValueError: it has another default already, on which others rely.
        """
        wanted = None if ssh is None else to_options(ssh)
        # Classes derived from this one need not know of what is not given.
        asked: dict[str, Any] = {
            "ssh": wanted,
            "local": local,
            "isolate": None if isolate else False,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        with cls._instance_lock:
            context = cls._instance
            if context is None or cls._instance_pid != os.getpid() or context.closed:
                context = cls(io_threads=io_threads, **given)
                cls._instance, cls._instance_pid = context, os.getpid()
        for name, value, own in (
            ("ssh", wanted, context._tunnel_ssh),
            ("local", local, context._tunnel_local),
        ):
            if value not in (None, own):
                raise ValueError(
                    f"{cls.__name__}.instance() is there already, and has another {name}=; its "
                    f"first call sets it, or make a context of your own: {cls.__name__}({name}=...)"
                )
        return cast("Self", context)

    @classmethod
    def shadow(cls, address: int | zmq.Context[Any]) -> Self:
        """Shadow a context, given as such or by its libzmq address (see the arguments)."""
        return cls(shadow=address)

    def __copy__(self, memo: Any = None) -> Self:
        """Copying a context creates a shadow copy, which keeps the ``ssh`` default."""
        return self.__class__(shadow=self)

    __deepcopy__ = __copy__

    def socket(
        self,
        socket_type: int,
        socket_class: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> _SocketT:
        """Make a socket, as :meth:`zmq.Context.socket` does.

        Args:
            socket_type: :data:`zmq.REQ` and the like.
            socket_class: another class than the context's. It connects through servers, too: the
                tunnelling is mixed into it.
            **kwargs: for the class.

        Raises:
            TypeError: the tunnelling cannot be mixed into that class, and the context has a
                default for ``ssh=``, which must not be skipped.
        """
        kind = self._socket_class if socket_class is None else socket_class
        if _names_server(kind):
            raise TypeError(
                "socket() takes a class of sockets there, and no server: pass it as ssh= to the "
                "socket's connect(), or to the context"
            )
        # Other classes may well take it.
        if "ssh" in kwargs and str(getattr(kind, "__module__", "")).startswith(f"{__package__}."):
            raise TypeError("a socket takes no ssh=: pass it to its connect(), or to the context")
        made = maker(kind, needed=self._tunnel_ssh is not None)
        return super().socket(socket_type, made, **kwargs)

    @property
    def tunnels(self) -> list[Tunnel]:
        """The open tunnels of all its sockets."""
        return self._tunnel_pool.tunnels

    def term(self) -> None:
        """Close or terminate the context, as :meth:`zmq.Context.term` does.

        It returns when libzmq has handed over all that its sockets' LINGER allows; what the
        gateways hold by then they deliver by themselves, as the kernel does for TCP.
        """
        pool = getattr(self, "_tunnel_pool", None)
        if pool is None or pool.inherited:
            super().term()
            return
        pool.interrupt()
        super().term()
        pool.shutdown()


def _names_server(value: object) -> bool:
    """Tell whether something given as another argument is meant for ``ssh=``."""
    return bool(value) and isinstance(value, (str, SSHOptions, list, tuple))
