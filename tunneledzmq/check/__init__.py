"""``python -m tunneledzmq check``: a tunnel step by step, and what is wrong with it."""

from __future__ import annotations

import os
import sys

from ..arguments import add_ssh_arguments, ssh_fields
from ..manual import Parser
from ..options import SSHOptions
from ..words import speak_of_flags
from .show import choose
from .steps import Check

__all__ = ["main"]

_DESCRIPTION = """\
Test the way of a ZeroMQ socket through an SSH server to a peer, step by step, as
connect(ADDR, ssh=SERVER) would go it. Nothing is sent to the peer but the greeting of ZeroMQ's
protocol.
"""

_EPILOG = """\
steps:
  options       read the config file and the keys
  resolve       find the server by its name
  connect       connect to it, over its hops if it has some
  banner        hear that it speaks SSH
  host key      have it prove that it is the one that known_hosts knows
  authenticate  be let in
  forward       have it connect to ADDR
  zmtp          hear that what listens there speaks ZeroMQ's protocol
  round trip    of the SSH connection itself, the median of several

exit status:
  0  all steps went well
  1  one failed; the message says what to do
  2  the command line is wrong

examples:
  tunneledzmq check tcp://10.0.1.2:5555 --ssh me@bastion
  tunneledzmq check tcp://127.0.0.1:5555 --ssh inner -J me@bastion --json

"""


def main(argv: list[str]) -> int:
    """Check a tunnel.

    Args:
        argv: the command line after ``check``.

    Returns:
        The exit status: 0; 1 if a step failed; 2 if the command line is wrong; 130 after Ctrl-C.
    """
    speak_of_flags()
    parser = _parser()
    arguments = parser.parse_args(argv)
    show = choose(as_json=arguments.json)
    try:
        check = Check(arguments.addr, SSHOptions(**ssh_fields(arguments)), show.step)
    except (ValueError, TypeError) as exc:
        parser.error(str(exc))
    try:
        show.start(f"{arguments.addr} over {arguments.ssh}")
        ok = check.run()
        show.end(ok)
    except KeyboardInterrupt:
        return 130
    except OSError as exc:
        return _cannot_write(exc)
    return 0 if ok else 1


def _cannot_write(error: OSError) -> int:
    """Say that the outcome could not be written; not where nobody reads on (``| head -1``)."""
    # What is left in the buffer would fail once more at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 141  # 128 + SIGPIPE, as a shell has it
    print(f"tunneledzmq check: the outcome cannot be written: {error.strerror}", file=sys.stderr)
    return 1


def _parser() -> Parser:
    parser = Parser(
        prog="tunneledzmq check",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("addr", metavar="ADDR", help="tcp://HOST:PORT, as the server sees it")
    add_ssh_arguments(
        parser,
        timeout_help="for the login, and for the peer's greeting (default: 10, or the config "
        "file's)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
