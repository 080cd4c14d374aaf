"""ssh-agents: real ones, and such as fail."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.polling import wait_for_end, wait_until
from tests.sshd import public_key


@contextlib.contextmanager
def running_agent(path: Path) -> Iterator[str]:
    """Run a real agent without keys, which listens at `path`."""
    environment = {**os.environ, "SSH_ASKPASS": "/bin/false", "DISPLAY": ":0"}
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    try:
        wait_until(lambda: _listens(path), what="ssh-agent listens")
        yield str(path)
    finally:
        process.terminate()
        wait_for_end(process)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def add_to_agent(agent: str, *arguments: str | Path) -> None:
    """Run `ssh-add`."""
    subprocess.run(
        ["ssh-add", "-q", *map(str, arguments)],
        check=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "SSH_AUTH_SOCK": agent},
    )


class FailingAgent:
    """An agent that answers each request with `answer`, or not at all.

    Args:
        path: where it listens.
        answer: `None` for silence.
        keyfile: a key that it lists all the same.

    """

    def __init__(
        self, path: Path, answer: bytes | None = None, *, keyfile: str | Path | None = None
    ) -> None:
        self.path = str(path)
        self.requests = 0
        self._answer = answer
        self._keys = _list_of(keyfile) if keyfile else None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(50)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._connections.append(connection)
            request = connection.recv(1 << 16)
            if request == b"end":
                return
            self.requests += 1
            listing = request[4:5] == b"\x0b"
            answer = self._keys if listing and self._keys else self._answer
            if answer is not None:
                with contextlib.suppress(OSError):
                    connection.sendall(answer)

    def __enter__(self) -> FailingAgent:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
            last.sendall(b"end")
            self._thread.join()
        for connection in [*self._connections, self._listener]:
            connection.close()
        os.unlink(self.path)


def _list_of(keyfile: str | Path) -> bytes:
    blob = base64.b64decode(public_key(keyfile).split()[1])
    body = b"\x0c" + (1).to_bytes(4, "big") + _string(blob) + _string(b"a comment")
    return _string(body)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
