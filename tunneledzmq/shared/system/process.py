"""How a gateway process starts, and what it is deaf to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import IO, NoReturn

__all__ = [
    "CAN_PROVE",
    "become",
    "deafen",
    "hear_of_children",
    "hears_of_children",
    "kill_all",
    "let_go_of_stderr",
    "open_control",
    "raise_limits",
    "start",
]

# Not SIG_IGN, which the commands of a config file would inherit.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def deafen() -> None:
    """Ignore the signals to end: they are meant for the program."""
    for name in _SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _ignore)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _blocking(sock: socket.socket) -> socket.socket:
    """Return a socket that came from a program, where gevent may have made it non-blocking."""
    sock.setblocking(True)
    return sock


if sys.platform == "win32":
    CAN_PROVE = False

    def start(
        command: Sequence[str],
        arguments: Sequence[str],
        control: socket.socket,
        held: Sequence[int],
        stderr: IO[bytes],
        environment: Mapping[str, str],
    ) -> subprocess.Popen[bytes]:
        """Start a process that runs Python code, out of reach of Ctrl-C and without a window.

        Args:
            command: the interpreter, and what stands before the number for :func:`open_control`.
            arguments: what stands behind it.
            control: the socket that it gets.
            held: descriptors that it inherits, where it can.
            stderr: its standard error.
            environment: its environment.

        Raises:
            OSError: it cannot be started.
        """
        # In a virtual environment, sys.executable starts another process, of which we would not
        # know the number.
        python, *rest = command
        if python == sys.executable:
            python = getattr(sys, "_base_executable", None) or python
        process = subprocess.Popen(
            [python, *rest, "0", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            # Without a console, and so without a process that sees to one.
            creationflags=subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP,
            cwd=os.environ.get("SYSTEMDRIVE", "C:") + "\\",
        )
        assert process.stdin is not None
        with suppress(OSError), process.stdin as stdin:  # it may have ended
            stdin.write(control.share(process.pid).hex().encode() + b"\n")
        return process

    def open_control(number: int) -> socket.socket:
        """Return the socket that :func:`start` gave to this process.

        Raises:
            SystemExit: the program has ended meanwhile.
        """
        with open(number, "rb") as stdin:
            given = stdin.readline()
        if not given.endswith(b"\n"):
            raise SystemExit
        return _blocking(socket.fromshare(bytes.fromhex(given.decode())))

    def kill_all(process: subprocess.Popen[bytes]) -> None:
        """End a process that was started here."""
        process.kill()
        process.wait()

    def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        """Be another program from now on, or what waits for it.

        Raises:
            OSError: it cannot be started.
        """
        for name in ("SIGINT", "SIGBREAK"):
            signal.signal(getattr(signal, name), _ignore)  # it is for that one, too
        sys.exit(exit_status(subprocess.Popen(command, env=environment).wait()))

    def exit_status(status: int) -> int:
        """Return what `sys.exit` takes for the status of a process."""
        # Such as 0xC000013A, after Ctrl-C: it takes them with their sign.
        return status - (1 << 32) if status >= 1 << 31 else status

    def hear_of_children() -> None:
        """Nothing is in the way: there is no such signal."""

    def hears_of_children() -> bool:
        """Tell whether this process hears how its children end."""
        return True

    def raise_limits() -> None:
        """There is none to raise."""

    def let_go_of_stderr() -> None:
        """Let the file be removed to which this process says what goes wrong."""
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)

else:
    import resource

    CAN_PROVE = True
    """Whether a process can have descriptors to give a proof by."""

    def start(
        command: Sequence[str],
        arguments: Sequence[str],
        control: socket.socket,
        held: Sequence[int],
        stderr: IO[bytes],
        environment: Mapping[str, str],
    ) -> subprocess.Popen[bytes]:
        """Start a process that runs Python code, out of reach of Ctrl-C and without a window.

        Args:
            command: the interpreter, and what stands before the number for :func:`open_control`.
            arguments: what stands behind it.
            control: the socket that it gets.
            held: descriptors that it inherits, where it can.
            stderr: its standard error.
            environment: its environment.

        Raises:
            OSError: it cannot be started.
        """
        return subprocess.Popen(
            [*command, str(control.fileno()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(control.fileno(), *held),
            env=environment,
            start_new_session=True,
            cwd="/",
        )

    def open_control(number: int) -> socket.socket:
        """Return the socket that :func:`start` gave to this process."""
        return _blocking(socket.socket(fileno=number))

    def kill_all(process: subprocess.Popen[bytes]) -> None:
        """End a process that was started here, with all that it has started."""
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        """Be another program from now on, or what waits for it.

        Raises:
            OSError: it cannot be started.
        """
        os.execvpe(command[0], list(command), environment)

    def exit_status(status: int) -> int:
        """Return what `sys.exit` takes for the status of a process."""
        return status

    def hear_of_children() -> None:
        """Take back what a program has chosen for its own signals, and its children inherit.

        To ignore SIGCHLD keeps the exit status of commands from whoever waits for them.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def hears_of_children() -> bool:
        """Tell whether this process hears how its children end."""
        return signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN

    def raise_limits() -> None:
        """Make room for descriptors: each connection takes one, and each tunnel another."""
        with suppress(ValueError, OSError):
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def let_go_of_stderr() -> None:
        """Nothing is in the way: files can be removed while they are open."""
