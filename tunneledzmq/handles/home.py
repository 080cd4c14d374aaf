"""Where a gateway lives: in a process of its own, or on a thread of this one."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from ..exceptions import GatewayError
from ..shared.directory import STDERR
from ..shared.environment import environment_of_others
from ..shared.interpreter import absolute_entries, find_interpreter, is_called_python
from ..shared.system.descriptors import beyond_standard_streams
from ..shared.system.leg import HAS_UNIX_SOCKETS
from .records import log

__all__ = ["Home", "end_threads", "start_process", "start_thread", "use_interpreter"]

# The child takes over this program's sys.path as it is: "-m" would put the working directory in
# front of it, and could not find a package that the program itself found in a place of its own. The
# standard library comes first: a module of the program's may have the name of one that it never
# needs itself (calendar, email).
# The package itself stays empty there: a gateway has no use for zmq, which takes long to import.
# Its first word is the proof that it runs this, and is no copy of the program. Who lists processes
# sees the beginning of it, which says whose it is.
_BOOTSTRAP = (
    "'tunneledzmq gateway';"
    "import os, sys, types;"
    "proof, control = int(sys.argv[1]), int(sys.argv[2]);"
    "sys.path[:] = [os.path.dirname(os.__file__), *sys.argv[4:]];"
    "os.environ.pop('TUNNELEDZMQ_GATEWAY', None);"
    "proof < 0 or (os.write(proof, b'!'), os.close(proof));"
    "sys.modules['tunneledzmq'] = package = types.ModuleType('tunneledzmq');"
    "package.__path__ = [sys.argv[3]];"
    "from tunneledzmq.gateway.__main__ import main; main(control)"
)

# Where it is found.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Environment variable of a process that was started to be a gateway. A gateway takes it away; who
# has it is a copy of the program, which must not start copies in turn.
_MARK = "TUNNELEDZMQ_GATEWAY"

# Seconds for an interpreter of an unusual name to prove that it is one.
_PROOF_TIMEOUT = 10.0

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

    def abandon(self) -> None:
        """End a gateway that has nothing to deliver yet, and whose control pipe has ended."""
        ...

    def after_fork(self) -> None:
        """Let go of what a forked child has inherited. Takes no locks: their owners are gone."""
        ...


# Why there is no interpreter, once that is known.
_no_interpreter: str | None = None

# Another interpreter than the program's, and its sys.path.
_other: tuple[str, Sequence[str]] | None = None


def use_interpreter(interpreter: str, path: Sequence[str]) -> None:
    """Have gateways started with another interpreter than the program's, and its ``sys.path``.

    That of the program may not have what a gateway needs.
    """
    global _other
    _other = interpreter, path


def start_process(control: socket.socket, directory: str, lock: int) -> Home:
    """Start a gateway process that speaks over `control`; a thread where there is no interpreter.

    Raises:
        GatewayError: it cannot be started.
    """
    interpreter, path = _other or (find_interpreter(), sys.path)
    if interpreter is None:
        _warn(f"the program carries its own Python inside. {_ADVICE}")
    elif getattr(sys, "frozen", False) and not _is_there_as_files():
        _warn("no other one could read this package, which the program carries inside")
    elif _no_interpreter is None:
        _check_copy()
        try:
            return _Process(interpreter, path, control, directory, lock)
        except _NoInterpreter as exc:
            _warn(f"{exc}. {_ADVICE}")
    return start_thread(control, directory, lock)


def start_thread(control: socket.socket, directory: str, lock: int) -> Home:
    """Start a gateway on a thread that speaks over `control`."""
    _check_copy()
    return _Thread(control)


class _NoInterpreter(Exception):
    """What was started for one is something else."""


_ADVICE = "If there is one: multiprocessing.set_executable('/path/to/python')"


def _is_there_as_files() -> bool:
    main = os.path.join(_PACKAGE, "gateway", "__main__.py")
    return os.path.exists(main) or os.path.exists(f"{main}c")


def _warn(why: str) -> None:
    """Tell once that there is no interpreter."""
    global _no_interpreter
    if _no_interpreter is None:
        log(
            "tunneledzmq",
            logging.WARNING,
            "gateways live in threads of this program and share its GIL, since there is no Python "
            f"interpreter to start them with: {why}",
        )
    _no_interpreter = why


def _check_copy() -> None:
    if _MARK in os.environ:
        raise GatewayError(
            errno.ELOOP,
            "this process was started to be a gateway, and is a copy of the program: "
            f"{sys.executable} is no Python interpreter; see multiprocessing.set_executable()",
        )


class _Process:
    def __init__(
        self,
        interpreter: str,
        path: Sequence[str],
        control: socket.socket,
        directory: str,
        lock: int,
    ) -> None:
        self._stderr = os.path.join(directory, STDERR)
        proof = proves = -1
        try:
            # Takes 20 ms, and only now it is needed.
            from ..shared.system.process import CAN_PROVE, start

            if not is_called_python(interpreter):
                if not CAN_PROVE:
                    raise _NoInterpreter(f"{interpreter} does not have the name of one")
                proof, proves = map(beyond_standard_streams, os.pipe())
            with open(self._stderr, "ab", opener=_private) as stderr:
                self._popen = start(
                    [interpreter, "-I", "-c", _BOOTSTRAP, str(proves)],
                    [_PACKAGE, *absolute_entries(path)],
                    control,
                    (lock, proves) if proves >= 0 else (lock,),
                    stderr,
                    {**environment_of_others(), _MARK: "1"},
                )
        except OSError as exc:
            if isinstance(exc, (FileNotFoundError, PermissionError)):
                raise _NoInterpreter(f"{interpreter}: {exc.strerror}") from exc
            raise GatewayError(
                exc.errno, f"cannot start a gateway process ({interpreter}): {exc}"
            ) from exc
        finally:
            if proves >= 0:
                os.close(proves)
        self.pid: int | None = self._popen.pid
        if proof >= 0:
            self._prove(interpreter, proof)

    def _prove(self, interpreter: str, proof: int) -> None:
        """Wait for the word of the child's that it runs a gateway, or end it."""
        try:
            ready, _, _ = select.select([proof], [], [], _PROOF_TIMEOUT)
            if ready and os.read(proof, 1):
                return
        finally:
            os.close(proof)
        from ..shared.system.process import kill_all

        kill_all(self._popen)
        raise _NoInterpreter(f"{interpreter} does not run Python code that it is given")

    def wait(self) -> str:
        status = self._popen.wait()
        said = b""
        with suppress(OSError), open(self._stderr, "rb") as stderr:
            stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - _STDERR_TAIL))
            said = stderr.read()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        text = said.decode(errors="replace").strip()
        return f"the gateway process ended ({how})" + (f": {text}" if text else "")

    def abandon(self) -> None:
        self._popen.kill()
        self._popen.wait()

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
        try:
            self._thread.start()
        except RuntimeError:  # there are none left
            self._gateway.after_fork()
            raise
        _threads.add(self)

    def wait(self) -> str:
        self._thread.join()
        _threads.discard(self)
        return "the gateway thread ended"

    def abandon(self) -> None:
        _threads.discard(self)

    def after_fork(self) -> None:
        _threads.discard(self)
        self._gateway.after_fork()

    def hang_up(self) -> None:
        """Let the gateway hear end of file: it then delivers what it holds."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RD)

    def join(self, timeout: float) -> None:
        """Wait for the gateway's end, at most `timeout` seconds."""
        self._thread.join(timeout)


# Those that run.
_threads: set[_Thread] = set()


def end_threads() -> None:
    """Let the gateways on threads deliver what they hold: the program ends."""
    threads = list(_threads)
    for thread in threads:
        thread.hang_up()
    end = time.monotonic() + _EXIT_TIMEOUT
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
