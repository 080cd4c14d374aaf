"""A way to a server that is silent until it is opened: a login takes as long as the test wants."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.peers import end_listening
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions


class Gate:
    """A way to a server, which is silent until it is opened."""

    def __init__(self, server: OpenSSHServer) -> None:
        self._server = server
        self._open = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.came = threading.Semaphore(0)
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.open()
        end_listening(self._listener)
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                self.came.release()
                threading.Thread(target=self._carry, args=(sock,), daemon=True).start()
        except OSError:
            pass

    def _carry(self, sock: socket.socket) -> None:
        self._open.wait()
        with socket.create_connection((self._server.host, self._server.port)) as there, sock:
            ways = [
                threading.Thread(target=self._copy, args=pair, daemon=True)
                for pair in ((sock, there), (there, sock))
            ]
            for way in ways:
                way.start()
            for way in ways:
                way.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@contextmanager
def gate(server: OpenSSHServer) -> Iterator[Gate]:
    made = Gate(server)
    try:
        yield made
    finally:
        made.close()


def through(way: Gate, options: SSHOptions) -> SSHOptions:
    """Return options that log in to the server behind a gate."""
    server = f"{options.address.user}@127.0.0.1:{way.port}"
    return replace(options, server=server, strict_host_key_checking="no", known_hosts=os.devnull)
