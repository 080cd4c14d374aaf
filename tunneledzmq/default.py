"""What a connect goes through that names no server itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
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
    "noted_socket",
    "owner_of",
    "program",
]


class Context(Protocol):
    """A context of this package, as its sockets' connects see it."""

    _tunnel_ssh: SSHOptions | None
    _tunnel_local: str | None
    _tunnel_pool: GatewayPool
    _shadow: bool
    _tunnel_noted: Any

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

Noted = WeakValueDictionary[int, Context]
"""Contexts that share one of libzmq's, in the order in which they were made."""

# By the addresses of libzmq's: whoever shadows one by its address has no other way to it. The
# contexts keep what they are noted in.
_contexts: WeakValueDictionary[int, Noted] = WeakValueDictionary()
_sockets: WeakValueDictionary[int, Socket] = WeakValueDictionary()

_numbers = count()


def note_context(context: Context) -> None:
    """Have the default of a context count for all that shadow it."""
    address = context.underlying
    # What is noted where a new one of libzmq's is has terminated.
    noted = _contexts.get(address) if context._shadow else None
    if noted is None:
        noted = _contexts[address] = WeakValueDictionary()
    noted[next(_numbers)] = context
    context._tunnel_noted = noted


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
    if context is not None and context._tunnel_ssh is not None:
        ssh: SSHOptions | None = context._tunnel_ssh
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
    return (
        program.local if context is None or context._tunnel_local is None else context._tunnel_local
    )


def context_of(sock: zmq.Socket[Any]) -> Context | None:
    """Return the context of this package that a socket belongs to, if it does to one."""
    context: Any = sock.context
    if context is None:
        # A shadow of a bare address.
        shadowed = noted_socket(sock)
        context = None if shadowed is None else shadowed.context
    return None if context is None else owner_of(context)


def noted_socket(sock: zmq.Socket[Any]) -> Any:
    """Return the socket of this package that a shadow shares libzmq's with, if there is one."""
    shadowed = _sockets.get(sock.underlying)
    return None if shadowed is None or shadowed.closed else shadowed


def owner_of(context: Any) -> Context | None:
    """Return the context of this package whose default counts for another one.

    =======================================  =============================================
    the first of these that holds            whose default counts
    =======================================  =============================================
    it is of this package                    its own
    it shadows another context               that one's
    it shadows a bare address                that of the context there that is no shadow,
                                             or else of the last shadow there that has one
    otherwise                                nobody's
    =======================================  =============================================
    """
    while not hasattr(context, "_tunnel_pool"):
        if not context._shadow:
            return None
        shadowed = context._shadow_obj
        if not hasattr(shadowed, "underlying"):
            return _noted_at(context.underlying)
        context = shadowed
    return context  # type: ignore[no-any-return]


def _noted_at(address: int) -> Context | None:
    noted = _contexts.get(address)
    found = [] if noted is None else [reference() for reference in noted.valuerefs()]
    alive = [context for context in found if context is not None and not context.closed]
    # The last of those that come last.
    alive.sort(key=lambda context: (context._tunnel_ssh is not None, not context._shadow))
    return alive[-1] if alive else None
