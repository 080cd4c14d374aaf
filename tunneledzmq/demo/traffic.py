"""Messages that are sent and counted, on whichever side sends and counts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TypeAlias

import zmq

__all__ = ["Rate", "Socket", "count", "limit_queue", "send_for"]

Socket: TypeAlias = "zmq.Socket[bytes]"

_TIMEOUT = 10_000
"""Milliseconds without any progress after which a measurement fails instead of hanging."""

_QUEUE_BYTES = 8 << 20
_QUEUE_MESSAGES = 1000
"""What libzmq queues by default, but large messages would fill the memory, and take long to drain
when the time is up."""

_COPY_BELOW = 64 << 10
"""Bytes from which it is cheaper not to copy a message (pyzmq's own threshold)."""


@dataclass(frozen=True)
class Rate:
    """How much arrived in which time."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Rate) -> Rate:
        return Rate(
            self.messages + other.messages,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
        )

    @property
    def messages_per_second(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """MB/s, that is 10**6 bytes per second."""
        return self.bytes / self.seconds / 1e6 if self.seconds else 0.0


def limit_queue(socket: Socket, size: int) -> None:
    """Prepare a socket, before it connects or binds, for messages of `size` bytes."""
    socket.set_hwm(max(2, min(_QUEUE_MESSAGES, _QUEUE_BYTES // size)))
    socket.rcvtimeo = socket.sndtimeo = socket.linger = _TIMEOUT


def send_for(socket: Socket, size: int, seconds: float) -> None:
    """Send messages of `size` bytes for some time, and an empty one as the end."""
    message = os.urandom(size)
    copy = size < _COPY_BELOW
    socket.send(message)  # Returns when there is a connection; the time counts from then on.
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        socket.send(message, 0, copy)
    socket.send(b"")


def count(socket: Socket, size: int) -> Rate:
    """Receive until the empty message. The time counts from the first message, left out itself."""
    copy = size < _COPY_BELOW
    messages = received = 0
    socket.recv()
    start = time.perf_counter()
    while length := len(socket.recv(copy=copy)):
        messages += 1
        received += length
    return Rate(messages, received, time.perf_counter() - start)
