"""The remote peer: plain ZeroMQ in a process of its own, as a service behind an SSH server is."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any

import zmq

from .child import ChildProcess, reply, requests
from .traffic import Rate, Socket, count, limit_queue, send_for

__all__ = ["Peer"]


class Peer:
    """A process that echoes, counts and produces messages; it binds on 127.0.0.1."""

    def __init__(self) -> None:
        self._child = ChildProcess(__name__, {})
        self.echo: str = self._child.ready["echo"]
        """Address of a ROUTER that sends each message back."""

    def start_sink(self, size: int) -> str:
        """Have it count messages of `size` bytes until an empty one; return the PULL's address."""
        address: str = self._child.request({"job": "sink", "size": size})["address"]
        return address

    def counted(self) -> Rate:
        """Wait until the sink has got the empty message, and return what it counted."""
        return Rate(**self._child.request({"job": "counted"}))

    def start_source(self, size: int, seconds: float) -> str:
        """Have it send messages for some time and an empty one; return the PUSH's address."""
        request = {"job": "source", "size": size, "seconds": seconds}
        address: str = self._child.request(request)["address"]
        return address

    def stop(self) -> None:
        """End the process. May be called again."""
        self._child.stop()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _bind(context: zmq.Context[Socket], kind: int, size: int | None = None) -> tuple[Socket, str]:
    socket = context.socket(kind)
    if size is not None:
        limit_queue(socket, size)
    return socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


def _echo(router: Socket) -> None:
    while True:
        router.send_multipart(router.recv_multipart())


def _read_requests(pending: SimpleQueue[dict[str, Any]]) -> None:
    for request in requests():
        pending.put(request)
    os._exit(0)  # The program has stopped this process, or died: whatever is going on is over.


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    pending: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(pending,), daemon=True).start()
    pending.get()
    context: zmq.Context[Socket] = zmq.Context()
    router, address = _bind(context, zmq.ROUTER)
    threading.Thread(target=_echo, args=(router,), daemon=True).start()
    reply({"echo": address})
    counted = Rate()
    while True:
        request = pending.get()
        if request["job"] == "counted":
            reply(asdict(counted))
            continue
        kind = zmq.PULL if request["job"] == "sink" else zmq.PUSH
        socket, address = _bind(context, kind, request["size"])
        with socket:
            reply({"address": address})
            if kind == zmq.PULL:
                counted = count(socket, request["size"])
            else:
                send_for(socket, request["size"], request["seconds"])
