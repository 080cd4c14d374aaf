"""Where a gateway lives: in a process of its own, or on a thread of this one."""

from __future__ import annotations

import atexit
import errno
import os
import socket
import sys
import threading
from contextlib import suppress
from typing import Protocol

from ..exceptions import GatewayError
from ..shared.directory import STDERR
from ..shared.system.leg import HAS_UNIX_SOCKETS

__all__ = ["Home", "start_process", "start_thread"]

# The child takes over this program's sys.path as it is: "-m" would put the working directory in
# front of it, and could not find a package that the program itself found in a place of its own.
# The package itself stays empty there: a gateway has no use for zmq, which takes long to import.
_BOOTSTRAP = (
    "import sys, types; control, sys.path[:] = int(sys.argv[1]), sys.argv[3:];"
    "sys.modules['tunneledzmq'] = package = types.ModuleType('tunneledzmq');"
    "package.__path__ = [sys.argv[2]];"
    "from tunneledzmq.gateway.__main__ import main; main(control)"
)

# Where it is found.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Bytes of a dead gateway's stderr that an error message shows.
_STDERR_TAIL = 2000

# Seconds that the end of the program waits for gateways on threads to deliver what they hold.
_EXIT_TIMEOUT = 10.0


class Home(Protocol):
    """A running gateway."""

    pid: int | None

    def wait(self) -> str:
        """Wait for the gateway's end and tell how it ended."""
        ...

    def after_fork(self) -> None:
        """Let go of what a forked child has inherited. Takes no locks: their owners are gone."""
        ...


def start_process(control: socket.socket, directory: str, lock: int) -> Home:
    """Start a gateway process that speaks over `control`.

    Raises:
        GatewayError: the process cannot be started.
    """
    return _Process(control, directory, lock)


def start_thread(control: socket.socket, directory: str, lock: int) -> Home:
    """Start a gateway on a thread that speaks over `control`."""
    return _Thread(control)


class _Process:
    def __init__(self, control: socket.socket, directory: str, lock: int) -> None:
        if not sys.executable:
            raise GatewayError(
                errno.ENOENT,
                "cannot start a gateway process: sys.executable is not set; "
                "TunneledContext(isolate=False) needs none",
            )
        self._stderr = os.path.join(directory, STDERR)
        path = [os.path.abspath(entry) for entry in sys.path]
        try:
            from ..shared.system.process import start  # takes 20 ms, and only now it is needed

            with open(self._stderr, "ab", opener=_private) as stderr:
                self._popen = start(_BOOTSTRAP, [_PACKAGE, *path], control, lock, stderr)
        except OSError as exc:
            raise GatewayError(
                exc.errno, f"cannot start a gateway process ({sys.executable}): {exc}"
            ) from exc
        self.pid: int | None = self._popen.pid

    def wait(self) -> str:
        status = self._popen.wait()
        said = b""
        with suppress(OSError), open(self._stderr, "rb") as stderr:
            stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - _STDERR_TAIL))
            said = stderr.read()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        text = said.decode(errors="replace").strip()
        return f"the gateway process ended ({how})" + (f": {text}" if text else "")

    def after_fork(self) -> None:
        # Not the child's child: it must not wait for it.
        self._popen.returncode = 0


class _Thread:
    pid: int | None = None

    def __init__(self, control: socket.socket) -> None:
        # All of it on the program's thread: a class that is made on another one (dataclasses call
        # exec) makes Python forget that it ends because of Ctrl-C, and with what status.
        from ..gateway.gateway import Gateway
        from ..gateway.sshtunnel import forwarder  # noqa: F401

        if HAS_UNIX_SOCKETS:
            from ..gateway.openssh import forwarder as openssh_forwarder  # noqa: F401

        # The program goes on using its own end; this one belongs to the gateway.
        self._control = control.dup()
        self._gateway = Gateway(self._control, own_process=False)
        self._thread = threading.Thread(
            target=self._gateway.run,
            name="tunneledzmq-gateway",
            daemon=True,
        )
        atexit.register(self._at_exit)
        self._thread.start()

    def wait(self) -> str:
        self._thread.join()
        atexit.unregister(self._at_exit)
        return "the gateway thread ended"

    def after_fork(self) -> None:
        atexit.unregister(self._at_exit)
        self._gateway.after_fork()

    def _at_exit(self) -> None:
        # End of file for the gateway, which then delivers what it holds.
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RD)
        self._thread.join(_EXIT_TIMEOUT)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
