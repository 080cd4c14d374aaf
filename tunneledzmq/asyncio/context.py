"""`TunneledContext`: a `zmq.asyncio.Context` whose sockets connect through SSH servers."""

from __future__ import annotations

from typing import Any

import zmq.asyncio

from ..context import TunneledContext as BlockingContext
from .socket import TunneledSocket

__all__ = ["PlainContext", "TunneledContext"]

PlainContext: Any = zmq.asyncio.Context


class TunneledContext(BlockingContext[TunneledSocket], zmq.asyncio.Context):
    """A :class:`zmq.asyncio.Context` whose sockets take ``ssh=`` in ``connect``.

    Args:
        io_threads: as with :class:`zmq.asyncio.Context`; or a context to shadow.
        shadow: a context, or its address, to share the libzmq context of.
        ssh: the server for every ``connect`` to a ``tcp://`` address that names none itself.
            Default: that of a shadowed `TunneledContext`, be it this one or
            :class:`tunneledzmq.TunneledContext`; else none.
        local: the default for ``connect``'s `local`: ``"tcp://127.0.0.1:*"`` for programs that take
            ``Peer-Address`` for an IP address.
        isolate: `True`: each SSH connection lives in a helper process of its own. `False`: in
            threads of this process, which then share its GIL. A shadow uses the SSH connections
            of the `TunneledContext` that it shadows.

    Raises:
        ValueError: `ssh` is malformed.
        TypeError: `ssh` is of another type.
    """

    _socket_class = TunneledSocket
    _repr_cls = "tunneledzmq.asyncio.TunneledContext"
    _instance: Any = None
    _instance_pid: int | None = None
