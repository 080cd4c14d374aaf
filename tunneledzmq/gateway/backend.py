"""What carries the tunnels: sshtunnel on paramiko, or the system's ``ssh``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .login import Login, Request
from .pump import Pump
from .questions import Questions
from .window import Path

if TYPE_CHECKING:
    from .connection import Connection
    from .forward import StreamServer, TCPServer

__all__ = ["Forwarder", "Transport", "make_forwarder"]


class Transport(Protocol):
    """An SSH session, as connections and the gateway see it."""

    pump: Pump
    read_buffer: memoryview
    """For whichever connection reads from libzmq at the moment."""

    path: Path
    """What the receive windows share."""

    paused: list[Connection]
    """Connections that wait until the session is writable again."""

    finishing: set[Connection]
    """Connections that the peer has ended, and of which libzmq has not taken all yet."""

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

    @property
    def last_received(self) -> float:
        """When the server was heard last (time.monotonic)."""
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


class Forwarder(Protocol):
    """A way to a server: its sessions, one after the other, and the listeners, which outlive them.

    `on_end` of its constructor is called with the session and the reason when one has ended.
    """

    @property
    def login(self) -> Login:
        """Where and how it logs in."""
        ...

    pump: Pump
    questions: Questions

    @property
    def transport(self) -> Transport | None:
        """The session, if there is one."""
        ...

    def prepare(self) -> None:
        """Forget an earlier :meth:`abort`; to be called before :meth:`dial`."""
        ...

    def dial(self) -> Transport:
        """Set up an SSH session.

        Raises:
            LoginError: it cannot be had.
        """
        ...

    def abort(self) -> None:
        """Give up what is being dialled, from any thread."""
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

    def after_fork(self) -> None:
        """Close a forked child's copies of what belongs to its parent's session."""
        ...

    def close(self) -> None:
        """End the session in order, close all listeners."""
        ...


def make_forwarder(
    request: Request,
    directory: str,
    questions: Questions,
    on_end: Callable[[Transport, str], None],
) -> Forwarder:
    """Make the forwarder that the program asked for.

    Args:
        request: what it asked for.
        directory: a private one.
        questions: where the program is asked.
        on_end: called with the reason when a session has ended, on the session's thread.

    Raises:
        LoginError: the options, or the config file, cannot be used.
    """
    if request.backend == "openssh":
        from .openssh.command import resolve as resolve_for_openssh
        from .openssh.forwarder import OpenSSHForwarder

        return OpenSSHForwarder(resolve_for_openssh(request), directory, questions, on_end)
    from .config import resolve
    from .forwarder import TunnelForwarder

    return TunnelForwarder(resolve(request), questions, on_end)
