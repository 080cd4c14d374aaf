"""What the server says of its channels (RFC 4254, section 5), by paramiko's dispatch."""

from __future__ import annotations

from collections.abc import Callable

from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from paramiko.message import Message

from ..traffic.transport import Channel

__all__ = ["HANDLERS", "HARMLESS", "Handler"]

Handler = Callable[[Channel, Message], None]


def _on_data(channel: Channel, m: Message) -> None:
    data = memoryview(m.get_binary())
    with channel.pump.lock:
        channel.feed(data)


def _on_extended_data(channel: Channel, m: Message) -> None:
    # direct-tcpip has no such data, but it takes up window.
    m.get_int()
    with channel.pump.lock:
        channel.skip(len(m.get_binary()))


def _on_window_adjust(channel: Channel, m: Message) -> None:
    with channel.pump.lock:
        channel.window_adjust(m.get_int())


def _on_eof(channel: Channel, m: Message) -> None:
    with channel.pump.lock:
        channel.eof()


def _on_close(channel: Channel, m: Message) -> None:
    with channel.pump.lock:
        channel.close()


def _ignore(channel: Channel, m: Message) -> None:
    pass


HANDLERS: dict[int, Handler] = {
    MSG_CHANNEL_SUCCESS: _ignore,
    MSG_CHANNEL_FAILURE: _ignore,
    MSG_CHANNEL_DATA: _on_data,
    MSG_CHANNEL_EXTENDED_DATA: _on_extended_data,
    MSG_CHANNEL_WINDOW_ADJUST: _on_window_adjust,
    MSG_CHANNEL_EOF: _on_eof,
    MSG_CHANNEL_CLOSE: _on_close,
}
"""What each message is for. That with requests is the transport's."""

HARMLESS = (
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_CHANNEL_REQUEST,
)
"""For a channel that is not there (any more), these are no error to OpenSSH."""
