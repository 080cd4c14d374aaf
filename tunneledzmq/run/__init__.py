"""``python -m tunneledzmq run``: an unchanged program, with its connects through an SSH server."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from ..arguments import add_ssh_arguments, ssh_fields
from ..manual import Parser
from ..options import SSHOptions
from ..shared.directory import RuntimeDirectory
from ..shared.system.process import become, exit_status
from ..words import speak_of_flags
from .native import is_linked_with_libzmq
from .report import summary
from .settings import Settings, environment

__all__ = ["cannot_run", "main"]

_DESCRIPTION = """\
Run a program, and have its ZeroMQ sockets connect through an SSH server: every connect to a tcp://
address, of the program itself and of all Python processes that it starts. The addresses are seen
from the server, loopback too. The program need not know of this.
"""

_EPILOG = """\
This is for Python alone: programs in other languages, and libraries that use libzmq past pyzmq,
connect directly, without a server and without a word. It works by a directory in PYTHONPATH: so do
Python processes that do not read that (python -I, -E, or with an environment of their own). -v
tells at the end who was tunnelled.

exit status:
  that of PROGRAM
  2    the command line is wrong
  126  PROGRAM is found, but cannot be run
  127  PROGRAM is not found

examples:
  tunneledzmq run --ssh me@bastion -- python worker.py tcp://10.0.1.2:5555
  tunneledzmq run --ssh inner -J me@bastion --except 127.0.0.1 -v -- locust
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
    speak_of_flags()
    parser = _parser()
    if argv and not argv[0].startswith("-"):
        parser.error(f"{argv[0]} is taken for PROGRAM, since it comes first: --ssh goes before it")
    arguments = parser.parse_args(argv)
    try:
        fields = {**ssh_fields(arguments), "persist": arguments.persist}
        SSHOptions(**fields)
        settings = Settings.make(fields, arguments.excepts, arguments.local)
    except (ValueError, TypeError) as exc:
        parser.error(str(exc))
    command = [arguments.program, *arguments.arguments]
    if argv[-len(command) :] != command:
        # argparse takes the first "--" away, also where it is the program's.
        command = argv[-len(command) - 1 :]
    if is_linked_with_libzmq(command[0]):
        print(
            f"tunneledzmq run: warning: {command[0]} uses libzmq itself, not by Python: it "
            f"connects directly, not through {arguments.ssh}",
            file=sys.stderr,
        )
    try:
        if not arguments.verbose:
            become(command, environment(settings))
        status = _run_and_tell(command, settings)
    except OSError as exc:
        return cannot_run(command[0], exc)
    if status < 0:
        # As if we were the program.
        with suppress(OSError):  # not for SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return exit_status(status)


def cannot_run(program: str, error: OSError) -> int:
    """Say why a program cannot be run, in a shell's words; return the exit status that it has."""
    # A directory that may not be searched, met on the way, is no matter of the program's.
    there = shutil.which(program, os.F_OK) is not None
    status, text = 126, error.strerror
    if not there and not os.path.dirname(program):
        status, text = 127, "command not found"
    elif there and isinstance(error, FileNotFoundError):
        text = f"bad interpreter: {text}"
    elif isinstance(error, FileNotFoundError):
        status = 127
    print(f"tunneledzmq run: {program}: {text}", file=sys.stderr)
    return status


def _run_and_tell(command: list[str], settings: Settings) -> int:
    """Run a command to its end, tell who has connected to what, and return its status."""
    try:
        directory = RuntimeDirectory("run")
    except OSError as exc:
        print(f"tunneledzmq run: no place for the report of -v: {exc.strerror}", file=sys.stderr)
        return 126
    try:
        status = _run(command, environment(settings._replace(report=directory.path)))
        print(summary(directory.path), end="", file=sys.stderr, flush=True)
    finally:
        directory.remove()
    return status


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


def _parser() -> Parser:
    parser = Parser(
        prog="tunneledzmq run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="%(prog)s --ssh SERVER [options]\n                       -- PROGRAM [ARGS]",
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
    rest = parser.add_argument(
        "arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="the program's own"
    )
    rest.required = False  # so that an error names the program alone
    return parser
