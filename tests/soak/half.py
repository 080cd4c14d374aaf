"""One of the two sides: sockets, each worked by a thread of its own.

It lives in an `ObedientProgram`, which calls it.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

import zmq

from tests.peers import numbered, sending_and_ending
from tests.soak.ledger import Ledger, message
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket

SIZE = 10_000
"""Of the messages that are sent in one go, in bytes."""


class Worker:
    """A socket and what is done with it.

    Args:
        sock: the socket.
        manner: one of `_send`, `_receive`, `_ask`, `_ask_ahead`, `_answer`, without its dash.
        pace: seconds between two messages that it sends, at least and at most.
        naps: seconds for which it sleeps now and then, at most.
        held: whether it waits before it takes its first message.
        size: of the messages that arrive, if that does not depend on their numbers.

    """

    def __init__(
        self,
        sock: zmq.Socket[bytes],
        manner: str,
        *,
        pace: tuple[float, float] = (0.008, 0.008),
        naps: float = 0,
        held: bool = False,
        size: int | None = None,
    ) -> None:
        self.sock = sock
        self.sent = 0
        self.ledger = Ledger()
        self.failure: str | None = None
        self.quiet = threading.Event()
        self.awake = threading.Event()
        self.go = threading.Event()
        if not held:
            self.go.set()
        self._pace, self._naps, self._size = pace, naps, size
        self._next = time.monotonic()
        self._work = getattr(self, f"_{manner}")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self, linger: int) -> None:
        """Stop, and close the socket."""
        self._ending.set()
        self.awake.set()
        self.go.set()
        self._thread.join()
        self.sock.close(linger)

    def report(self) -> dict[str, Any]:
        """Return what has been sent and what has arrived."""
        return {"sent": self.sent, "failure": self.failure, **self.ledger.report()}

    def _run(self) -> None:
        try:
            self.go.wait()
            while not self._ending.is_set():
                with suppress(zmq.Again):
                    self._work()
        except BaseException as exc:
            self.failure = repr(exc)

    def _send(self) -> bool:
        if self.quiet.is_set() or time.monotonic() < self._next:
            time.sleep(0.002)
            return False
        self.sock.send(message(self.sent))
        self._sent()
        return True

    def _sent(self) -> None:
        self.sent += 1
        self._next = time.monotonic() + random.uniform(*self._pace)

    def _receive(self) -> None:
        self._take()
        if self._naps and self.ledger.received % 50 == 0:
            self.awake.wait(random.uniform(0, self._naps))

    def _take(self) -> None:
        self.ledger.receive(self.sock.recv(), self._size)

    def _ask(self) -> None:
        if self._send() and self.sock.poll(1500):
            self._take()

    def _ask_ahead(self) -> None:
        self._send()
        while self.sock.poll(0):
            self._take()

    def _answer(self) -> None:
        *route, question = self.sock.recv_multipart()
        self.ledger.receive(question)
        self.sock.send_multipart([*route, message(self.sent)])
        self._sent()


class Half:
    """The sockets of one side, by name."""

    def __init__(self, *, tunnelled: bool) -> None:
        self._ctx = TunneledContext() if tunnelled else zmq.Context[zmq.Socket[bytes]]()
        self._workers: dict[str, Worker] = {}
        self._bursts = ExitStack()
        self._burst = threading.Thread()

    def open(
        self,
        name: str,
        kind: int,
        manner: str,
        *,
        addr: str | None = None,
        ssh: dict[str, Any] | None = None,
        hwm: int = 100,
        **how: Any,
    ) -> str:
        """Put a socket to work, and return its address.

        Args:
            name: its name.
            kind: its type.
            manner: see `Worker`.
            addr: what it connects to; without one it is bound.
            ssh: the keywords of `SSHOptions`.
            hwm: its high-water mark. A ROUTER drops what exceeds its own.
            how: see `Worker`.

        """
        sock = self._ctx.socket(kind)
        sock.rcvhwm = hwm
        sock.sndhwm = 0 if kind in (zmq.ROUTER, zmq.REP) else hwm
        sock.rcvtimeo = sock.sndtimeo = 50
        if kind == zmq.REQ:
            # Without these a request whose answer was lost blocks a REQ for ever, tunnel or not.
            sock.req_relaxed = sock.req_correlate = 1
        if kind == zmq.SUB:
            sock.subscribe(b"")
        if addr is None:
            sock.bind("tcp://127.0.0.1:*")
        else:
            sock.connect(addr, ssh=SSHOptions(**ssh or {}))
        self._workers[name] = Worker(sock, manner, **how)
        return sock.last_endpoint.decode()

    def go(self, name: str) -> None:
        """Let a worker begin that was held."""
        self._workers[name].go.set()

    def quiet(self) -> None:
        """Have all send nothing more, and sleep no more."""
        for worker in self._workers.values():
            worker.quiet.set()
            worker.awake.set()

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what each worker has sent and received."""
        return {name: worker.report() for name, worker in self._workers.items()}

    def tunnels(self) -> dict[str, dict[str, Any]]:
        """Return how each socket's tunnel does."""
        return {
            name: {
                "local": tunnel.local,
                "state": tunnel.state,
                "reconnects": tunnel.reconnects,
                "error": tunnel.last_error,
            }
            for name, worker in self._workers.items()
            if isinstance(worker.sock, TunneledSocket)
            for tunnel in worker.sock.tunnels
        }

    def bytes_received(self, name: str) -> int:
        """Return how much has come for a tunnelled socket."""
        sock = self._workers[name].sock
        assert isinstance(sock, TunneledSocket)
        return sock.tunnels[0].stats().bytes_received

    def close(self, name: str, linger: int = 0) -> dict[str, Any]:
        """Close a socket, and return its report."""
        worker = self._workers.pop(name)
        worker.end(linger)
        return worker.report()

    def burst(self, count: int) -> str:
        """Have a peer send so many messages of `SIZE` bytes, and end; return its address."""
        self._bursts.close()
        address, self._burst = self._bursts.enter_context(sending_and_ending(count, SIZE))
        return address

    def burst_has_ended(self) -> bool:
        """Tell whether that peer has ended."""
        return not self._burst.is_alive()

    def send_and_close(self, addr: str, ssh: dict[str, Any], count: int) -> None:
        """Send so many messages of `SIZE` bytes, and close the socket at once."""
        with self._ctx.socket(zmq.PUSH) as sock:
            sock.sndhwm = 0
            sock.connect(addr, ssh=SSHOptions(**ssh))
            for number in range(count):
                sock.send(numbered(number, SIZE))

    def end(self) -> dict[str, dict[str, Any]]:
        """Close all and terminate; return what each has sent and received."""
        report = {name: self.close(name, linger=2000) for name in list(self._workers)}
        self._bursts.close()
        self._ctx.term()
        return report
