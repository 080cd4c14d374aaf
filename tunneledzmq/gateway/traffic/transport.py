"""What an SSH session and the channels in it are to each other, whichever backend it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .pump import Pump
from .window import Path

__all__ = ["TURN", "Channel", "Transport"]

TURN = 1 << 19
"""Bytes that a connection reads from libzmq before the others get their turn, on a fast link."""


class Channel(Protocol):
    """A channel, as the session that carries it sees it. All with the pump's lock held."""

    pump: Pump
    """Whose lock guards it."""

    id: int
    """Our number for it; what :meth:`Transport.open` returned."""

    remote_id: int
    """The server's number for it."""

    max_packet: int
    """Bytes of data that a packet to the server may have."""

    state: str
    """``"opening"``, ``"open"`` or ``"closed"``."""

    answered: bool
    """Whether the server has answered whether it opens it."""

    def opened(self, remote_id: int, window: int, max_packet: int) -> None:
        """The server has opened it."""
        ...

    def refused(self, reason: str) -> None:
        """The server does not open it."""
        ...

    def window_adjust(self, size: int) -> None:
        """The server takes `size` more bytes."""
        ...

    def resume(self) -> None:
        """Go on after a pause of the session."""
        ...

    def feed(self, data: memoryview) -> None:
        """Take data from the server."""
        ...

    def skip(self, size: int) -> None:
        """Drop data that is not for libzmq."""
        ...

    def eof(self) -> None:
        """The server sends nothing more."""
        ...

    def close(self) -> None:
        """The server has closed it."""
        ...

    def lost(self) -> None:
        """The session is gone."""
        ...


class Transport(Protocol):
    """An SSH session: what carries channels.

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

    paused: list[Channel]
    """Connections that wait until the session is writable again."""

    # With the pump's lock held

    @property
    def writable(self) -> bool:
        """Whether channel data may be sent now."""
        ...

    @property
    def turn(self) -> int:
        """How many bytes a connection may read now before the others get their turn."""
        ...

    def open(self, channel: Channel, remote: tuple[str, int]) -> int:
        """Ask the server to connect to `remote`; return the channel's number."""
        ...

    def forget(self, channel: Channel) -> None:
        """Forget a channel that both sides have closed."""
        ...

    def send_data(self, channel: Channel, size: int) -> None:
        """Send `size` bytes of :attr:`read_buffer`; only while :attr:`writable`."""
        ...

    def send_eof(self, channel: Channel) -> None:
        """Tell the server that nothing more comes."""
        ...

    def send_close(self, channel: Channel) -> None:
        """Close our side of the channel."""
        ...

    def send_window_adjust(self, channel: Channel, size: int) -> None:
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
