"""The twins for gevent: `zmq.green.Context` becomes `TunneledContext`, `connect` takes ``ssh=``.

Used like this:

    import tunneledzmq.green

    ctx = tunneledzmq.green.TunneledContext()
    sock = ctx.socket(zmq.REQ)
    sock.connect("tcp://10.0.1.2:5555", ssh="me@bastion")  # other greenlets run meanwhile

With or without :func:`gevent.monkey.patch_all`, which must come before this package is imported.
"""

from __future__ import annotations

from typing import Any

import zmq.green

from .context import TunneledContext as BlockingContext
from .hub import open_beside
from .mixing import add_twin
from .socket import TunneledSocket as BlockingSocket
from .tunnel import Tunnel

__all__ = ["TunneledContext", "TunneledSocket"]

PlainContext: Any = zmq.green.Context
PlainSocket: Any = zmq.green.Socket


class TunneledSocket(BlockingSocket[bytes], PlainSocket):  # type: ignore[misc]
    """A :class:`zmq.green.Socket` that connects through SSH servers.

    `connect` takes what that of :class:`tunneledzmq.TunneledSocket` takes, and lets the other
    greenlets run while it logs in. A `gevent.Timeout` around it, or the end of its greenlet, undoes
    the connect.
    """

    _repr_cls = "tunneledzmq.green.TunneledSocket"

    def _open_tunnel(self, tunnel: Tunnel) -> None:
        open_beside(self._tunnel_pool, tunnel)


add_twin(PlainSocket, TunneledSocket)


class TunneledContext(BlockingContext[TunneledSocket], PlainContext):  # type: ignore[misc]
    """A :class:`zmq.green.Context` whose sockets take ``ssh=`` in ``connect``.

    Args:
        io_threads: as with :class:`zmq.green.Context`; or a context to shadow.
        shadow: a context, or its address, to share the libzmq context of.
        ssh: the server for every ``connect`` to a ``tcp://`` address that names none itself.
            Default: that of a shadowed `TunneledContext`, else none.
        local: the default for ``connect``'s `local`: ``"tcp://127.0.0.1:*"`` for programs that take
            ``Peer-Address`` for an IP address.
        isolate: `True`: each SSH connection lives in a helper process of its own. `False`: in
            threads of this process, which then share its GIL.

    Raises:
        ValueError: `ssh` is malformed.
        TypeError: `ssh` is of another type.
    """

    _socket_class = TunneledSocket
    _repr_cls = "tunneledzmq.green.TunneledContext"
    _instance: Any = None
    _instance_pid: int | None = None
