"""A link with a delay: a process that passes on what it gets, so many seconds later.

`python -m tests.delay HOST PORT SECONDS` prints the port on which it listens, and ends with
its standard input. It holds up to `CAPACITY` bytes in each direction, so that not the link but who
uses it sets the pace.
"""

from __future__ import annotations

import contextlib
import mmap
import selectors
import socket
import subprocess
import sys
import time
from collections import deque

from tests.peers import ROOT

CAPACITY = 128 << 20
READ = 1 << 20


class Delay:
    """The relay's process, listening when the constructor returns.

    Args:
        port: where it connects to, on 127.0.0.1.
        seconds: the delay each way.

    """

    def __init__(self, port: int, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.delay", "127.0.0.1", str(port), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError("the relay does not start")
        self.port = int(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self) -> Delay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Pipe:
    """One direction of a connection: a ring of bytes, and when each part of them is due."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float) -> None:
        self.source, self.target = source, target
        self._delay = delay
        self._ring = memoryview(mmap.mmap(-1, CAPACITY))  # its pages are taken as used
        # Positions count from the beginning of the connection.
        self._read = self._written = self._due = 0
        self._parts: deque[tuple[float, int]] = deque()
        self.source_open = True
        self.ended = False

    @property
    def reads(self) -> bool:
        """Whether there is something to read and room for it."""
        return self.source_open and self._read - self._written < CAPACITY

    @property
    def writes(self) -> bool:
        """Whether something is due that the target has not taken."""
        return self._due > self._written

    @property
    def next_due(self) -> float | None:
        return self._parts[0][0] if self._parts else None

    def read(self) -> None:
        at = self._read % CAPACITY
        room = CAPACITY - (self._read - self._written)
        try:
            count = self.source.recv_into(self._ring[at : at + min(READ, room)])
        except BlockingIOError:
            return
        if not count:
            self.source_open = False
        self._read += count
        self._parts.append((time.monotonic() + self._delay, self._read))

    def write(self) -> None:
        now = time.monotonic()
        while self._parts and self._parts[0][0] <= now:
            self._due = self._parts.popleft()[1]
        while self._due > self._written:
            at = self._written % CAPACITY
            part = self._ring[at : min(CAPACITY, at + self._due - self._written)]
            try:
                self._written += self.target.send(part)
            except BlockingIOError:
                return
        if not self.source_open and not self._parts and not self.ended:
            self.ended = True
            self.target.shutdown(socket.SHUT_WR)


class Relay:
    """The event loop over all connections."""

    def __init__(self, host: str, port: int, delay: float) -> None:
        self._target = (host, port)
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._events: dict[socket.socket, int] = {}
        self._pairs: list[tuple[Pipe, Pipe]] = []

    def run(self) -> None:
        print(self._listener.getsockname()[1], flush=True)
        while True:
            for key, _ in self._selector.select(self._timeout()):
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self._listener:
                    self._accept()
            for pair in list(self._pairs):
                self._serve(pair)

    def _timeout(self) -> float | None:
        due = [pipe.next_due for pair in self._pairs for pipe in pair if pipe.next_due]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._events[sock] = 0
        self._pairs.append((Pipe(near, far, self._delay), Pipe(far, near, self._delay)))

    def _serve(self, pair: tuple[Pipe, Pipe]) -> None:
        forth, back = pair
        try:
            for pipe in pair:
                if pipe.reads:
                    pipe.read()
                pipe.write()
        except OSError:
            forth.ended = back.ended = True
        if forth.ended and back.ended:
            self._pairs.remove(pair)
            for sock in (forth.source, back.source):
                self._watch(sock, 0)
                del self._events[sock]
                sock.close()
            return
        for incoming, outgoing in ((forth, back), (back, forth)):
            wanted = selectors.EVENT_READ * incoming.reads | selectors.EVENT_WRITE * outgoing.writes
            self._watch(incoming.source, wanted)

    def _watch(self, sock: socket.socket, wanted: int) -> None:
        watched = self._events[sock]
        self._events[sock] = wanted
        if not watched and wanted:
            self._selector.register(sock, wanted)
        elif watched and not wanted:
            self._selector.unregister(sock)
        elif watched != wanted:
            self._selector.modify(sock, wanted)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        Relay(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])).run()
