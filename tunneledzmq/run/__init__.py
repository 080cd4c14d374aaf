"""``python -m tunneledzmq run``: an unchanged program, with its connects through an SSH server."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from ..arguments import add_ssh_arguments, ssh_fields
from ..options import SSHOptions
from ..shared.directory import RuntimeDirectory
from ..shared.system.process import become, exit_status
from .report import summary
from .settings import Settings, environment

__all__ = ["main"]

_DESCRIPTION = """\
Run a program, and have its ZeroMQ sockets connect through an SSH server: every connect to a tcp://
address, of the program itself and of all Python processes that it starts. The addresses are seen
from the server, loopback too. The program need not know of this.
"""

_EPILOG = """\
It works by a directory in PYTHONPATH: Python processes that do not read it (python -I, -E, or with
an environment of their own) connect directly.

exit status:
  that of PROGRAM; 2 if the command line is wrong; 126 or 127 if PROGRAM cannot be run

examples:
  tunneledzmq run --ssh me@bastion -- python worker.py tcp://10.0.1.2:5555
  tunneledzmq run --ssh inner -J me@bastion --except 127.0.0.1 -v -- locust --worker

"""

# What is meant for the program, and sent to us.
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
# What a terminal sends to both.
_LEFT_TO_IT = ("SIGINT", "SIGQUIT", "SIGBREAK")


def main(argv: list[str]) -> int:
    """Run a program.

    Args:
        argv: the command line after ``run``.

    Returns:
        The exit status. Without ``-v`` the program takes the place of this one.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        fields = {**ssh_fields(arguments), "persist": arguments.persist}
        SSHOptions(**fields)
        settings = Settings.make(fields, arguments.excepts, arguments.local)
    except (ValueError, TypeError) as exc:
        parser.error(str(exc))
    command = [arguments.program, *arguments.arguments]
    try:
        if not arguments.verbose:
            become(command, environment(settings))
        directory = RuntimeDirectory("run")
        try:
            status = _run(command, environment(settings._replace(report=directory.path)))
            print(summary(directory.path, arguments.ssh), end="", file=sys.stderr, flush=True)
        finally:
            directory.remove()
    except OSError as exc:
        print(f"tunneledzmq run: {command[0]}: {exc.strerror}", file=sys.stderr)
        return 127 if isinstance(exc, FileNotFoundError) else 126
    if status < 0:
        # As if we were the program.
        with suppress(OSError):  # not for SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return exit_status(status)


def _run(command: list[str], env: dict[str, str]) -> int:
    """Run a command to its end, and return its status, negative for a signal."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
    for names, handler in ((_FORWARDED, forward), (_LEFT_TO_IT, _ignore)):
        for name in names:
            number = getattr(signal, name, None)
            if number is None:
                continue  # the system has no such signal
            # What is ignored (nohup) stays so, for the program as well.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        process = subprocess.Popen(command, env=env)
        for number in early:
            process.send_signal(number)
        return process.wait()
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _ignore(number: int, frame: FrameType | None) -> None:
    # Not SIG_IGN, which the program would inherit.
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunneledzmq run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --ssh SERVER [options] -- PROGRAM [ARGS]",
        allow_abbrev=False,
    )
    add_ssh_arguments(parser, timeout_help="for each login (default: 10, or the config file's)")
    parser.add_argument(
        "--except",
        dest="excepts",
        metavar="PATTERN",
        action="append",
        default=[],
        help="connect directly to what matches, as HOST or HOST:PORT, with *, ? and [...]; may be "
        "repeated (default: nothing, not even loopback)",
    )
    parser.add_argument(
        "--persist",
        metavar="SECONDS",
        type=float,
        default=10,
        help="how long a process keeps a session that none of its sockets uses, for the next one "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--local",
        metavar="ENDPOINT",
        help="the local leg: tcp://127.0.0.1:* for programs that take Peer-Address for an IP "
        "address (default: a Unix socket that is private to the user)",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="tell at the end who has connected to what"
    )
    parser.add_argument("program", metavar="PROGRAM", help="found as a shell does")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER)
    return parser
