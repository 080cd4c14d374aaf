"""What a connect goes through that names no server itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

import zmq

from .endpoints import is_tcp
from .handles.pool import GatewayPool, shared_pool
from .options import SSHOptions

__all__ = [
    "Program",
    "context_of",
    "default_for",
    "local_for",
    "note_context",
    "note_socket",
    "program",
]


class Context(Protocol):
    """A context of this package, as its sockets' connects see it."""

    _ssh: SSHOptions | None
    _local: str | None
    _pool: GatewayPool

    @property
    def underlying(self) -> int:
        """The address of libzmq's."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it has been terminated."""
        ...


class Socket(Protocol):
    """A socket of this package, as those that shadow it see it."""

    context: Any

    @property
    def underlying(self) -> int:
        """The address of libzmq's."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        ...


@dataclass
class Program:
    """The default of the whole program, for contexts that have none: see `tunneledzmq.install`."""

    ssh: SSHOptions | None = None

    local: str | None = None
    """Endpoint of the local leg."""

    excepts: Callable[[str], bool] | None = None
    """Tells of an address whether it is connected to directly."""

    on_connect: Callable[[str, SSHOptions | None], None] | None = None
    """Told of each connect to a ``tcp://`` address that the default is asked for."""


program = Program()

# By the addresses of libzmq's: whoever shadows one by its address has no other way to it.
_contexts: WeakValueDictionary[int, Context] = WeakValueDictionary()
_sockets: WeakValueDictionary[int, Socket] = WeakValueDictionary()


def note_context(context: Context) -> None:
    """Have the default of a context count for all that shadow it."""
    _contexts[context.underlying] = context


def note_socket(sock: Socket) -> None:
    """Have the default of a socket's context count for all that shadow the socket."""
    _sockets[sock.underlying] = sock


def default_for(sock: zmq.Socket[Any], addr: str) -> SSHOptions | None:
    """Return what a socket connects through where nothing else is said; `None`: directly.

    ============================================  ====================================
    the first of these that holds                 by default
    ============================================  ====================================
    it is no ``tcp://`` address                   directly
    the socket's context has a default            through that
    the program has one, and excepts the address  directly
    it is the local end of a tunnel of ours       directly
    the program has one                           through that
    otherwise                                     directly
    ============================================  ====================================
    """
    if not is_tcp(addr):
        return None
    context = context_of(sock)
    if context is not None and context._ssh is not None:
        ssh: SSHOptions | None = context._ssh
    elif program.ssh is None or _is_excepted(addr):
        ssh = None
    else:
        ssh = program.ssh
    if program.on_connect is not None:
        program.on_connect(addr, ssh)
    return ssh


def _is_excepted(addr: str) -> bool:
    if program.excepts is not None and program.excepts(addr):
        return True
    return addr.startswith("tcp://127.") and any(
        tunnel.local == addr for tunnel in shared_pool().tunnels
    )


def local_for(sock: zmq.Socket[Any]) -> str | None:
    """Return the endpoint of the local leg where nothing else is said."""
    context = context_of(sock)
    return program.local if context is None or context._local is None else context._local


def context_of(sock: zmq.Socket[Any]) -> Context | None:
    """Return the context of this package that a socket belongs to, if it does to one."""
    context: Any = sock.context
    if context is None:
        # A shadow of a bare address.
        shadowed = _sockets.get(sock.underlying)
        context = None if shadowed is None or shadowed.closed else shadowed.context
    if context is None or hasattr(context, "_pool"):
        return context  # type: ignore[no-any-return]
    owner = _contexts.get(context.underlying)
    return None if owner is None or owner.closed else owner
