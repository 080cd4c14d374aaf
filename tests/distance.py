"""A relay that makes a server look far away: what it carries arrives later, but no less of it."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType

_READ_SIZE = 1 << 18


class Distance:
    """A process between us and a server on this machine.

    Args:
        port: the server's.
        round_trip: in seconds; half of it in each direction.
    """

    def __init__(self, port: int, round_trip: float) -> None:
        self._arguments = [str(port), str(round_trip)]
        self.port = 0

    def __enter__(self) -> Distance:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _carry(source: socket.socket, target: socket.socket, delay: float) -> None:
    # Without a limit: it must not be what slows the sender down.
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_deliver, args=(waiting, target), daemon=True).start()
    data = b"?"
    while data:
        data = b""
        with suppress(OSError):
            data = source.recv(_READ_SIZE)
        waiting.put((time.monotonic() + delay, data))


def _deliver(waiting: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
    with suppress(OSError):
        while True:
            due, data = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)


def main(port: int, round_trip: float) -> None:
    """Relay connections until the process is killed, or its parent is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, port, round_trip / 2), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, port: int, delay: float) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for source, target in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_carry, args=(source, target, delay), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
