"""What a connect goes through that names no server itself: a context's default is never skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import zmq

if TYPE_CHECKING:
    from .context import TunneledContext
    from .socket import TunneledSocket

__all__ = ["context_of", "note_context", "note_socket"]

# By the addresses of libzmq's: whoever shadows one by its address has no other way to it.
_contexts: WeakValueDictionary[int, TunneledContext[Any]] = WeakValueDictionary()
_sockets: WeakValueDictionary[int, TunneledSocket[Any]] = WeakValueDictionary()


def note_context(context: TunneledContext[Any]) -> None:
    """Have the default of a context count for all that shadow it."""
    _contexts[context.underlying] = context


def note_socket(sock: TunneledSocket[Any]) -> None:
    """Have the default of a socket's context count for all that shadow the socket."""
    _sockets[sock.underlying] = sock


def context_of(sock: zmq.Socket[Any]) -> TunneledContext[Any] | None:
    """Return the context whose default counts for a socket; `None`: there is none."""
    context: Any = sock.context
    if context is None:
        # A shadow of a bare address.
        shadowed = _sockets.get(sock.underlying)
        context = None if shadowed is None or shadowed.closed else shadowed.context
    if context is None or hasattr(context, "_pool"):
        return context  # type: ignore[no-any-return]
    owner = _contexts.get(context.underlying)
    return None if owner is None or owner.closed else owner
