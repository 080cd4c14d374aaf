"""Remote peers: plain ZeroMQ sockets, each in a process of its own.

A peer is told what to do, and asked what it saw, by JSON lines on its standard input; it answers
each with one on its standard output, and ends with its parent, at the end of its input.

| kind      | socket | does                                                                   |
|-----------|--------|------------------------------------------------------------------------|
| echo      | REP    | sends back what it gets                                                |
| router    | ROUTER | sends back what it gets                                                |
| collector | PULL   | counts messages and bytes, and gaps in the sequence (see `numbered`)   |
| stalled   | PULL   | never reads                                                            |
| source    | PUSH   | sends numbered messages when told to                                   |
| publisher | XPUB   | counts subscriptions, and sends messages that start with a given topic |
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from tests.polling import wait_for_end, wait_until

ROOT = Path(__file__).resolve().parent.parent

SOCKET_TYPES = {
    "echo": zmq.REP,
    "router": zmq.ROUTER,
    "collector": zmq.PULL,
    "stalled": zmq.PULL,
    "source": zmq.PUSH,
    "publisher": zmq.XPUB,
}


def end_listening(listener: socket.socket) -> None:
    """Close a listener, and wake who waits for its next connection."""
    if sys.platform != "win32":  # there it is closing that wakes
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port of `host` on which nobody listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def numbered(number: int, size: int = 8) -> bytes:
    """Return a message of `size` bytes that starts with its number in eight."""
    return number.to_bytes(8, "big").ljust(size, b".")


def round_trip(sock: zmq.Socket[bytes], message: bytes = b"hello") -> None:
    """Send a request to an echo, and check its answer."""
    sock.send(message)
    assert sock.recv() == message


def arrived(sock: zmq.Socket[bytes], last: int, timeout: float = 20, pause: float = 0) -> list[int]:
    """Receive until message `last` (see `numbered`), and return the numbers of all that came.

    Args:
        sock: what receives.
        last: the number of the last message.
        timeout: seconds of silence after which what has not come counts as lost.
        pause: seconds that the reader sleeps after each.

    """
    numbers: list[int] = []
    deadline = time.monotonic() + timeout
    while (not numbers or numbers[-1] != last) and time.monotonic() < deadline:
        if sock.poll(100):
            numbers.append(int.from_bytes(sock.recv()[:8], "big"))
            time.sleep(pause)
            deadline = time.monotonic() + timeout
    return numbers


@contextmanager
def sending_and_ending(count: int, size: int) -> Iterator[tuple[str, threading.Thread]]:
    """A peer that sends so many messages to whoever connects, and ends.

    Yields:
        Its address, and its thread, which ends when the kernel has taken all that it sent.

    """
    ctx = zmq.Context()
    sock = ctx.socket(zmq.PUSH)
    sock.sndhwm = 0
    sock.sndtimeo = sock.linger = 60_000  # a slow reader may take long on a busy machine
    sock.bind("tcp://127.0.0.1:*")
    address = sock.last_endpoint.decode()

    def send_and_end() -> None:
        try:
            for number in range(count):
                sock.send(numbered(number, size))
        finally:
            sock.close()
            ctx.term()

    thread = threading.Thread(target=send_and_end)
    thread.start()
    try:
        yield address, thread
    finally:
        thread.join()


class Peer:
    """A peer's process, started by its constructor and bound when that returns.

    Args:
        kind: see the module's table.
        host: the address to bind, IPv6 in brackets.
        port: the port to bind; 0 takes a free one.
        prefix: words before the command line, such as `ip netns exec NAME`.

    """

    address: str
    """Where it listens, such as `tcp://127.0.0.1:5555`."""

    def __init__(
        self, kind: str, *, host: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()
    ) -> None:
        command = [*prefix, sys.executable, "-m", "tests.peers", kind, host, str(port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.address = self._answer()["address"]
        self.port = int(self.address.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self._process.pid

    def report(self) -> dict[str, int]:
        """Return its counts: `messages`, `bytes`, `gaps`, `subscriptions`."""
        return self._ask(do="report")

    def send(self, count: int, size: int = 8, topic: str = "") -> None:
        """Have it send `count` numbered messages of `size` bytes (a source or publisher)."""
        self._ask(do="send", count=count, size=size, topic=topic)

    def wait_for(self, timeout: float = 10, **counts: int) -> dict[str, int]:
        """Wait until each of the counts has reached the given value; return the report."""
        wait_until(
            lambda: all(self.report()[name] >= count for name, count in counts.items()),
            timeout,
            f"{counts} at a peer that reports {self.report()}",
        )
        return self.report()

    def close(self) -> None:
        """End the process, and wait for its end."""
        if self._process.stdin:
            self._process.stdin.close()
        wait_for_end(self._process)
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class PeerProgram:
    """What runs in a peer's process."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        self.kind = kind
        self.counts = {"messages": 0, "bytes": 0, "gaps": 0, "subscriptions": 0}
        self.socket = zmq.Context.instance().socket(SOCKET_TYPES[kind])
        self.socket.linger = 0
        self.socket.ipv6 = ":" in host
        if kind == "stalled":
            self.socket.rcvhwm = 1
            self.socket.rcvbuf = 4096
        else:
            self.socket.set_hwm(0)
        self.socket.bind(f"tcp://{host}:{port or '*'}")

    def run(self) -> None:
        self._say(address=self.socket.last_endpoint.decode().rstrip("\0"))
        orders = self._orders()
        poller = zmq.Poller()
        poller.register(orders, zmq.POLLIN)
        if self.kind not in ("stalled", "source"):
            poller.register(self.socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self.socket in ready:
                self._receive()
            if orders in ready:
                line = orders.recv()
                if not line:
                    return
                self._obey(json.loads(line))

    @staticmethod
    def _orders() -> zmq.Socket[bytes]:
        """Return a socket that gets the lines of the input: Windows polls nothing else."""
        ours, theirs = (zmq.Context.instance().socket(zmq.PAIR) for _ in range(2))
        ours.bind("inproc://orders")
        theirs.connect("inproc://orders")

        def read() -> None:
            with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
                for line in lines:
                    theirs.send(line)
            theirs.send(b"")

        threading.Thread(target=read, daemon=True).start()
        return ours

    def _receive(self, at_most: int = 100) -> None:
        for _ in range(at_most):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if self.kind in ("echo", "router"):
                self.socket.send_multipart(frames)
            if self.kind == "publisher":
                self.counts["subscriptions"] += 1 if frames[0][:1] == b"\1" else -1
                continue
            if self.kind == "collector":
                self.counts["gaps"] += (
                    int.from_bytes(frames[0][:8], "big") != self.counts["messages"]
                )
            self.counts["messages"] += 1
            self.counts["bytes"] += sum(map(len, frames))

    def _obey(self, request: dict[str, Any]) -> None:
        if request["do"] == "send":
            for number in range(request["count"]):
                self.socket.send(request["topic"].encode() + numbered(number, request["size"]))
        self._say(**self.counts)

    def _say(self, **answer: Any) -> None:
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    PeerProgram(sys.argv[1], sys.argv[2], int(sys.argv[3])).run()
    zmq.Context.instance().destroy(linger=0)
