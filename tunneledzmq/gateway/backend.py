"""What carries the tunnels: sshtunnel on paramiko, or the system's ``ssh``."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..shared.system.leg import HAS_UNIX_SOCKETS
from .attempt import Attempt
from .login import Login, LoginError, Request
from .traffic.pump import Pump
from .traffic.window import Path

if TYPE_CHECKING:
    from .traffic.connection import Connection
    from .traffic.servers import StreamServer, TCPServer

__all__ = ["Forwarder", "Transport", "make_forwarder"]


class Transport(Protocol):
    """An SSH session, as connections and the gateway see it.

    Its thread runs the pump. When it ends it tells the gateway first, and its connections then.
    """

    pump: Pump
    ended: bool
    """Whether it takes no connections any more; guarded by the pump's lock."""

    carried: bool
    """Whether the server has connected to a peer."""

    read_buffer: memoryview
    """For whichever connection reads from libzmq at the moment."""

    path: Path
    """What the receive windows share."""

    paused: list[Connection]
    """Connections that wait until the session is writable again."""

    # With the pump's lock held

    @property
    def writable(self) -> bool:
        """Whether channel data may be sent now."""
        ...

    def open(self, connection: Connection, remote: tuple[str, int]) -> int:
        """Ask the server to connect to `remote`; return the channel's number."""
        ...

    def forget(self, connection: Connection) -> None:
        """Forget a channel that both sides have closed."""
        ...

    def send_data(self, connection: Connection, size: int) -> None:
        """Send `size` bytes of :attr:`read_buffer`; only while :attr:`writable`."""
        ...

    def send_eof(self, connection: Connection) -> None:
        """Tell the server that nothing more comes."""
        ...

    def send_close(self, connection: Connection) -> None:
        """Close our side of the channel."""
        ...

    def send_window_adjust(self, connection: Connection, size: int) -> None:
        """Let the server send `size` more bytes."""
        ...

    # For any thread

    def heard(self, now: float) -> float:
        """Return when the server was heard last (time.monotonic); `now` for what lies unread."""
        ...

    def is_active(self) -> bool:
        """Whether the session lives."""
        ...

    def ask_alive(self, on_answer: Callable[[float | None], None] | None = None) -> None:
        """Send a request that the server answers.

        Args:
            on_answer: called with the seconds that the answer took, if that can be known.
        """
        ...

    def abort(self) -> None:
        """End the session at once."""
        ...

    def after_fork(self) -> None:
        """Close a forked child's copies of what belongs to the session."""
        ...

    def disconnect(self) -> None:
        """End the session in order."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of its thread, and for no more than that may take."""
        ...


class Forwarder(Protocol):
    """A way to a server, and the listeners on the local endpoints."""

    @property
    def login(self) -> Login:
        """Where and how it logs in."""
        ...

    def dial(self, attempt: Attempt) -> Transport:
        """Set up an SSH session.

        Raises:
            LoginError: it cannot be had.
        """
        ...

    def make_server(
        self, remote: tuple[str, int], local: str, listener: socket.socket | None = None
    ) -> TCPServer | StreamServer:
        """Make a listener, or take over what listens on `local` already.

        Raises:
            OSError: the local endpoint cannot be had.
        """
        ...

    def drop_server(self, server: TCPServer | StreamServer) -> None:
        """Close a listener."""
        ...

    def close(self) -> None:
        """Close all listeners."""
        ...


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
