"""What the program's sockets and their peers have in common: what they send and receive."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import zmq

PROBE = b"?probe"
"""What is in messages and topics that only find out how far the other side is."""

_LABEL = re.compile(rb"([nf]\d+):(?:\d+|answer)\|")
_ANSWER = re.compile(rb"f\d+:answer\|")

# What names the sender or the receiver, and stands before the message.
_ADDRESSED = ("ROUTER", "STREAM")


class End:
    """A socket, and what it received so far, by sender.

    Messages are labelled: `n0:3|` is the fourth message of n0. Answers are not counted, since in
    which order the questions of several sockets come, time decides: `f0:answer|n0:3|`.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.sock: zmq.Socket[bytes] | None = None
        self.received: dict[str, list[str]] = {}
        self.count = 0
        """Messages received so far; with STREAM, where they have no bounds, bytes."""
        self.conflates = False
        """Whether it keeps the last message only."""
        self._stream_id = b""

    @property
    def open(self) -> zmq.Socket[bytes]:
        assert self.sock is not None
        return self.sock

    def send(self, to: str | None, parts: Sequence[bytes], flags: int = 0) -> None:
        """Send a message, to a peer by its routing id where the socket knows them."""
        frames = list(parts)
        if self.kind in _ADDRESSED:
            frames = [self._stream_id if to is None else to.encode(), *frames]
        self.open.send_multipart(frames, flags)

    def take(self, answer: bool = False) -> bool:
        """Receive a message if there is one, and tell whether there was."""
        try:
            frames = self.open.recv_multipart(zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        if self._note(frames) and answer:
            label = f"{self.name}:answer|".encode()
            self.open.send_multipart([*frames[:-1], label + frames[-1]], zmq.DONTWAIT)
        return True

    def receive(self) -> str:
        """Receive a message, as the program's own call; return what it was."""
        frames = self.open.recv_multipart(zmq.DONTWAIT)
        self._note(frames)
        return _text(frames[1:] if self.kind in _ADDRESSED else frames)

    def by_sender(self) -> dict[str, list[str]]:
        """Return what was received, without the names that libzmq has drawn for connections."""
        named = {name: log for name, log in self.received.items() if name[:1] != "?" or name == "?"}
        drawn = [" ".join(log) for name, log in self.received.items() if name not in named]
        return {**named, "?": sorted(drawn)} if drawn else named

    def subscribe(self, topic: bytes) -> None:
        if self.kind == "XSUB":
            self.open.send(b"\1" + topic)
        else:
            self.open.setsockopt(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        if self.kind == "XSUB":
            self.open.send(b"\0" + topic)
        else:
            self.open.setsockopt(zmq.UNSUBSCRIBE, topic)

    def _note(self, frames: list[bytes]) -> bool:
        if any(PROBE in frame for frame in frames):
            return False
        if self.kind == "STREAM":
            self._note_stream(*frames)
            return True
        self.count += not self.conflates
        label = _LABEL.search(b"".join(frames))
        sender = label[1].decode() if label else "?"
        if self.kind == "ROUTER":
            frames = [b"?" if frames[0].startswith(b"\0") else frames[0], *frames[1:]]
            if len(frames) > 2 and len(frames[1]) == 4 and not frames[2]:
                frames[1] = b"request"  # REQ_CORRELATE's number, which starts anywhere
        log = self.received.setdefault(sender, [])
        if self.conflates:
            log.clear()
        log.append(_text(frames))
        return True

    def _note_stream(self, peer: bytes, data: bytes) -> None:
        """Note what a raw connection brought; its data come in pieces of any size."""
        self._stream_id = peer
        self.count += len(data) or 1
        # Nameless ones are told apart until the end, when they are sorted (see `by_sender`).
        sender = f"?{peer.hex()}" if peer.startswith(b"\0") else peer.decode()
        log = self.received.setdefault(sender, [])
        if not data:
            log.append("(connected or disconnected)")
        elif log and log[-1].startswith("data "):
            log[-1] += data.decode("latin1")
        else:
            log.append("data " + data.decode("latin1"))


def set_options(sock: zmq.Socket[bytes], options: Mapping[str, Any]) -> None:
    """Set options by their names in libzmq."""
    for name, value in options.items():
        sock.setsockopt(getattr(zmq, name), value)


def _text(frames: Iterable[bytes]) -> str:
    """Return a message in short, and an answer without the name of whose it is."""
    return " ".join(
        repr(frame)[1:]
        if len(frame) <= 40
        else f"{frame[:12]!r}...{len(frame)}:{zlib.crc32(frame):08x}"
        for frame in (_ANSWER.sub(b"answer|", frame) for frame in frames)
    )
