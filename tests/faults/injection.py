"""Faults in plain words, and what it takes to tell whether they were survived."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import zmq

from tests.leaks import gateways, masters, runtime_directories
from tests.logins import Server
from tests.peers import ROOT, end_listening
from tests.polling import wait_for_end, wait_until
from tests.programs import ObedientProgram
from tests.sshd import OpenSSHServer
from tunneledzmq.shared import directory

KILLED = "exit status 15" if sys.platform == "win32" else "killed by signal 9"
"""What a program is told of a gateway that was killed."""


def kill_session(server: OpenSSHServer) -> None:
    """Cut the SSH connections; the server goes on listening."""
    server.kill_sessions()


def kill_server(server: OpenSSHServer) -> None:
    """End the SSH server and its connections."""
    server.kill()


def restart(server: OpenSSHServer) -> None:
    """Bring a killed SSH server back."""
    server.restart()


def change_host_key(server: OpenSSHServer) -> None:
    """Give the SSH server another host key, which it shows after its next start."""
    server.change_host_key()


def kill_gateway(process: psutil.Process | None = None) -> None:
    """Kill a gateway process; by default the only one."""
    if process is None:
        process = the_gateway()
    process.kill()


def the_gateway() -> psutil.Process:
    """Return the only gateway process."""
    [process] = gateways()
    return process


@contextmanager
def stopped(*processes: psutil.Process) -> Iterator[None]:
    """Stop processes, and let them go on after the body."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def wait_until_blocked(program: subprocess.Popen[str] | ObedientProgram) -> None:
    """Wait until a program's main thread waits in the kernel.

    A signal that came just before would be seen by Python only when that wait ends.
    """
    thread = psutil.Process(program.pid)

    def waits() -> bool:
        before = thread.num_ctx_switches()
        time.sleep(0.05)
        return thread.status() == "sleeping" and thread.num_ctx_switches() == before

    wait_until(waits)


class Relay:
    """A link to an SSH server that can be broken (see the module `relay`).

    It has a server's attributes, so that `options_for(relay)` log in through it.
    """

    def __init__(self, server: Server) -> None:
        command = [sys.executable, "-m", "tests.faults.relay", server.host, str(server.port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.host = "127.0.0.1"
        self.port: int = self._answer()["port"]
        self.user = server.user
        self.keyfile = server.keyfile
        self.authorized_keys = server.authorized_keys
        self.known_hosts = f"{server.known_hosts}.relay-{self.port}"
        key = Path(server.known_hosts).read_text().split(maxsplit=1)[1]
        Path(self.known_hosts).write_text(f"[{self.host}]:{self.port} {key}")

    @property
    def server(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"

    def hold_packets(self) -> None:
        """Deliver nothing, without a word, until `pass_packets`."""
        self._order("hold")

    def pass_packets(self, delay: float = 0.0) -> None:
        """Deliver what was held and what comes, each packet after `delay` seconds."""
        self._order("pass", delay=delay)

    def lose_connections(self) -> None:
        """Swallow what comes over the present connections; new ones work."""
        self._order("lose")

    def cut_connections(self) -> None:
        """Reset the present connections; new ones work."""
        self._order("cut")

    def refuse_connections(self) -> None:
        """Hang up on new connections, until `accept_connections`."""
        self._order("refuse")

    def accept_connections(self) -> None:
        """Take new connections again."""
        self._order("accept")

    def limit_connections(self) -> None:
        """From now on hang up on whoever has tried six times in 30 s, and goes on trying."""
        self._order("limit")

    def end_lost_connections(self) -> None:
        """Let the server notice what it would only notice by asking."""
        self._order("end lost")

    def connections(self) -> int:
        """Return how many connections there have been."""
        return self._order("count")

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        wait_for_end(self._process)
        self._process.stdout.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _order(self, do: str, **how: float) -> int:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **how}) + "\n")
        self._process.stdin.flush()
        return self._answer()["total"]

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def hostile_port(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where `behave` serves each connection on a thread of its own, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError, EOFError):
                behave(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # shut down below
                connections.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            end_listening(listener)
            acceptor.join()
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


# Telling whether it was survived


def login_attempts(server: OpenSSHServer) -> int:
    """Return how many SSH connections the server has seen, let in or not."""
    return server.log().count("Connection from ")


def time_to_heal(sock: zmq.Socket[bytes], timeout: float = 20) -> float:
    """Ask an echo again and again until it answers; return the seconds that it took.

    Args:
        sock: a DEALER; what it sent just before the fault may be lost with the connection.
        timeout: seconds until it counts as never.

    """
    start = time.monotonic()
    mark = os.urandom(8)
    while time.monotonic() < start + timeout:
        with suppress(zmq.Again):
            sock.send(mark, zmq.DONTWAIT)
        while sock.poll(20):
            if sock.recv() == mark:
                return time.monotonic() - start
    raise AssertionError(f"no answer within {timeout} s")


def discard_answers(sock: zmq.Socket[bytes]) -> None:
    """Take the answers that `time_to_heal` did not wait for, so that none counts for the next."""
    while sock.poll(50):
        sock.recv()


def always(condition: Callable[[], bool], seconds: float) -> None:
    """Check that `condition` holds, and goes on to."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition()
        time.sleep(0.02)


def what_is_left(server: OpenSSHServer | None = None) -> list[str]:
    """Return what there is of gateways, of their directories and of the server's sessions."""
    left = [f"gateway {process.pid}" for process in gateways()]
    left += [f"ssh {process.pid}" for process in masters()]
    left += [f"directory {path}" for path in runtime_directories()]
    if server is not None:
        left += [f"session {process.pid}" for process in server.sessions()]
    return left


def time_until_nothing_is_left(
    server: OpenSSHServer | None = None, timeout: float = 5, *, swept: bool = False
) -> float:
    """Wait until no gateway, directory or session is left; return the seconds that it took.

    Args:
        server: whose sessions count.
        timeout: seconds until the wait fails.
        swept: whether directories are left to the next program that connects.

    """
    start = time.monotonic()
    while left := what_is_left(server):
        if swept and all(thing.startswith("directory") for thing in left):
            directory.sweep()
        assert time.monotonic() < start + timeout, f"left after {timeout} s: {left}"
        time.sleep(0.01)
    return time.monotonic() - start


class Growth:
    """By how many bytes a process has grown at most."""

    bytes = 0


@contextmanager
def memory_growth(process: psutil.Process, at_most: int) -> Iterator[Growth]:
    """Check by how many bytes a process grows while the body runs, also in between."""
    before = process.memory_info().rss
    growth = Growth()
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            with suppress(psutil.NoSuchProcess):
                growth.bytes = max(growth.bytes, process.memory_info().rss - before)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield growth
    finally:
        done.set()
        sampler.join()
    assert growth.bytes <= at_most, f"grew by {growth.bytes / 1e6:.1f} MB"
