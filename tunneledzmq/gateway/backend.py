"""What carries the tunnels: sshtunnel on paramiko, or the system's ``ssh``."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

from ..shared.system.leg import HAS_UNIX_SOCKETS
from .login import LoginError, Request
from .session import Dialler
from .traffic.servers import Listeners
from .traffic.transport import Transport

__all__ = ["Forwarder", "make_forwarder"]


class Forwarder(Dialler, Listeners, Protocol):
    """A way to a server, and the listeners on the local endpoints."""


def make_forwarder(
    request: Request, directory: str, on_end: Callable[[Transport, str], None]
) -> Forwarder:
    """Make the forwarder that the program asked for.

    Args:
        request: what it asked for.
        directory: a private one.
        on_end: called with the session and the reason when one has ended, on its thread.

    Raises:
        LoginError: the options, or the config file, cannot be used.
    """
    if request.backend == "openssh":
        if not HAS_UNIX_SOCKETS:
            text = "backend='openssh' needs Unix sockets, which Python does not have on this system"
            advice = "use backend='sshtunnel', the default"
            raise LoginError("GatewayError", errno.ENOTSUP, f"{request.host}: {text}: {advice}")
        from .openssh.command import resolve as resolve_for_openssh
        from .openssh.forwarder import OpenSSHForwarder

        return OpenSSHForwarder(resolve_for_openssh(request), directory, on_end)
    from .config import resolve
    from .sshtunnel.forwarder import TunnelForwarder

    return TunnelForwarder(resolve(request), on_end)
