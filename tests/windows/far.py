"""SSH servers, their keys, links, peers and terminals on Linux, for tests that run under Wine.

`serve` runs on Linux. On Windows, what is one of `KINDS` is made there, and whatever is asked of it
is done there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.managers import BaseManager, BaseProxy
from multiprocessing.reduction import ForkingPickler
from pathlib import Path, WindowsPath
from types import SimpleNamespace
from typing import Any, NamedTuple

from tests import peers, sshd

WHERE = "TUNNELEDZMQ_FAR_SIDE"
"""The variable that tells where they are made: a port, the secret for it, and a directory."""

KINDS = ("Console", "Keys", "OpenSSHServer", "Peer", "Relay")


class Session(NamedTuple):
    """A process on Linux, as `psutil.Process` tells it from others."""

    pid: int
    create_time: float


class Keys:
    """What needs `ssh-keygen`."""

    def keygen(self, *arguments: str | Path) -> None:
        sshd.keygen(*arguments)

    def fingerprint(self, keyfile: str) -> str:
        return sshd.fingerprint(keyfile)

    def __exit__(self, *exc_info: object) -> None:
        pass


class Far(BaseProxy):
    """Something on Linux; it ends with its `with`."""

    _exposed_ = ("__getattribute__", "call")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        is_method, value = self._callmethod("call", (name, None, None))
        return partial(self._call, name) if is_method else value

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._callmethod("call", (name, args, kwargs))[1]

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._callmethod("call", ("__exit__", (None, None, None), {}))


class Near:
    """What a `Far` speaks to: one of `KINDS`."""

    alive: list[Near] = []  # noqa: RUF012

    def __init__(self, kind: str, args: Any, kwargs: Any) -> None:
        from tests.faults.injection import Relay
        from tests.peers import Peer
        from tests.sshd import OpenSSHServer
        from tests.windows.console import Console

        kinds = {kind.__name__: kind for kind in (Console, Keys, OpenSSHServer, Peer, Relay)}
        self._thing: Any = kinds[kind](*args, **kwargs)
        Near.alive.append(self)

    def call(self, name: str, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Call a method, or tell without arguments whether it is one, and else what it is."""
        value = getattr(self._thing, name)
        if args is None:
            return (True, None) if callable(value) else (False, value)
        answer = value(*args, **kwargs)
        if name == "sessions":
            answer = [Session(process.pid, process.create_time()) for process in answer]
        return True, answer

    def end(self) -> None:
        """End it."""
        self._thing.__exit__(None, None, None)


class _Manager(BaseManager):
    pass


_Manager.register("make", Near, Far)


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Make servers and peers for whoever is told what this yields, until the body ends.

    Its directory is for files that both see.
    """
    secret = secrets.token_hex(16)
    server = _Manager(("127.0.0.1", 0), secret.encode()).get_server()
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(prefix="tz-windows-") as directory:
            yield f"{server.address[1]} {secret} {directory}"
    finally:
        for near in Near.alive:
            with contextlib.suppress(Exception):
                near.end()


def _serve(server: Any) -> None:
    with contextlib.suppress(SystemExit):
        server.serve_forever()


def make(kind: str, *args: Any, **kwargs: Any) -> Any:
    """Make one of `KINDS` on Linux."""
    port, secret, _ = os.environ[WHERE].split()
    manager = _Manager(("127.0.0.1", int(port)), secret.encode())
    manager.connect()
    return manager.make(kind, args, kwargs)  # type: ignore[attr-defined]


def take_over() -> None:
    """Have the tests' servers and peers made on Linux from now on."""
    assert sys.platform == "win32"
    # Files are Linux's: what is told of them there are its paths.
    ForkingPickler.register(WindowsPath, lambda path: (Path, (_on_linux(path),)))
    tempfile.tempdir = "Z:" + os.environ[WHERE].split()[2].replace("/", "\\")
    peers.Peer = partial(make, "Peer")  # type: ignore[assignment,misc]
    sshd.OpenSSHServer = partial(make, "OpenSSHServer")  # type: ignore[assignment,misc]
    sshd.keygen = lambda *arguments: make("Keys").keygen(*arguments)
    sshd.fingerprint = lambda keyfile: make("Keys").fingerprint(_on_linux(keyfile))
    from tests.faults import injection

    injection.Relay = _relay  # type: ignore[assignment,misc]


def _on_linux(path: str | Path) -> str:
    """Return what a path is called there: Linux's files are on Windows's drive Z:."""
    return os.path.abspath(path).removeprefix("Z:").replace("\\", "/")


def _relay(server: Any) -> Any:
    names = ("host", "port", "user", "keyfile", "authorized_keys", "known_hosts")
    return make("Relay", SimpleNamespace(**{name: getattr(server, name) for name in names}))
