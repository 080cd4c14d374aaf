"""The asyncio twins: `zmq.asyncio.Context` becomes `TunneledContext`, `connect` takes ``ssh=``.

Used like this:

    import tunneledzmq.asyncio

    ctx = tunneledzmq.asyncio.TunneledContext()
    sock = ctx.socket(zmq.REQ)
    await sock.connect("tcp://10.0.1.2:5555", ssh="me@bastion")
    await sock.send(b"hello")
    print(await sock.recv())
"""

from __future__ import annotations

from .context import PlainContext as PlainContext
from .context import TunneledContext
from .socket import PlainSocket as PlainSocket
from .socket import TunneledSocket

__all__ = ["TunneledContext", "TunneledSocket"]
