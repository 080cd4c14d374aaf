"""Ports where no SSH server answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.peers import end_listening


class SilentPort:
    """A port that takes connections and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def dials(self) -> int:
        """Return how many have connected since the last time."""
        count = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return count
            connection.close()
            count += 1

    def __enter__(self) -> SilentPort:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()


@contextmanager
def talking_port(says: bytes, *, listens_first: bool = False) -> Iterator[int]:
    """A port that says the same to everybody, and hangs up.

    Args:
        says: what it says.
        listens_first: waits for the other side's first words, as an HTTP server does.

    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # shut down below
                with connection:
                    connection.settimeout(10)
                    try:
                        if listens_first:
                            connection.recv(4096)
                        connection.sendall(says)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(4096):
                            pass
                    except OSError:
                        continue  # the other side hung up first

        thread = threading.Thread(target=talk)
        thread.start()
        yield listener.getsockname()[1]
        end_listening(listener)
        thread.join()
