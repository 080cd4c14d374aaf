"""What is sent to a server, and what comes from it."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from tunneledzmq.gateway.sshtunnel.link import Link
from tunneledzmq.gateway.traffic.pump import Pump


def test_a_server_that_does_not_read_is_not_read_either() -> None:
    """More than a few megabytes of answers do not pile up."""
    ours, theirs = socket.socketpair()
    pump = Pump()
    link = Link(ours, pump)
    link.settimeout(0.05)
    with theirs:
        theirs.setblocking(False)
        answers = bytes(1 << 20)
        while not link._flooded:
            link.send(answers)
        theirs.send(b"one more question")
        with pytest.raises(TimeoutError):
            link.recv(100)
        spent = time.process_time()
        with pytest.raises(TimeoutError):
            link.recv(100)
        assert time.process_time() - spent < 0.04  # it waits, and does not look again and again
        link.settimeout(5)
        reader = threading.Thread(target=read_all, args=(theirs,))
        reader.start()
        assert link.recv(100) == b"one more question"
        link.abort()
        reader.join()
    pump.close()


def test_what_came_before_a_reset_is_read_and_then_it_is_told() -> None:
    """Whoever meets it by sending does not have to know."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    pump = Pump()
    link = Link(ours, pump)
    link.settimeout(5)
    theirs.sendall(b"last words")
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    for _ in range(3):
        link.send(b"a question")
        time.sleep(0.01)
    assert link.recv(100) == b"last words"
    with pytest.raises(ConnectionResetError):
        link.recv(100)
    link.abort()
    pump.close()


def read_all(sock: socket.socket) -> None:
    sock.setblocking(True)
    while sock.recv(1 << 20):
        pass
