"""The command line: ``python -m tunneledzmq``."""

from __future__ import annotations

import sys

__all__ = ["main"]

USAGE = """\
usage: tunneledzmq COMMAND [...]

commands:
  check   test a tunnel step by step
  demo    run the main job on an SSH server of its own
  run     run a program with its connects through a server

`tunneledzmq COMMAND --help` tells more.

options:
  --version, --help
"""


def main() -> int:
    """Run the command that the arguments name; return the exit status."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command == "check":
        from .check import main as check

        return check(rest)
    if command == "demo":
        from .demo import main as demo

        return demo(rest)
    if command == "run":
        from .run import main as run

        return run(rest)
    if command == "--version":
        from . import __version__

        print(f"tunneledzmq {__version__}")
        return 0
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    print(f"tunneledzmq: no command {command!r}\n{USAGE}", end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
