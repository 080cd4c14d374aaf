"""``python -m tunneledzmq demo``: a tunnel at work, with an SSH server that needs no setup."""

from __future__ import annotations

import argparse
import importlib.util
import sys

import zmq

__all__ = ["main"]

_EXTRAS = ("asyncssh", "rich")


def main(argv: list[str]) -> int:
    """Run the demo.

    Args:
        argv: the command line after ``demo``.

    Returns:
        The exit status: 0; 1 if something failed or was left behind; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    missing = [name for name in _EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        return _fail(f"{' and '.join(missing)} not found: pip install 'tunneledzmq[demo]'")
    try:
        if arguments.json is not None:
            open(arguments.json, "a").close()  # rather than find out at the end
        from .show import run

        results = run(arguments.seconds, arguments.json, embedded=arguments.embedded)
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, OSError, zmq.ZMQError) as exc:
        return _fail(str(exc))
    return 1 if None in results.gone.values() else 0


def _fail(message: str) -> int:
    print(f"tunneledzmq demo: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunneledzmq demo",
        description="Measure a tunnel beside direct TCP. Needs no configuration; all of it stays "
        "on this machine. The SSH server is OpenSSH's where that is installed, else one in Python.",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=1.0,
        help="how long each measurement takes for each route (default: %(default)s)",
    )
    parser.add_argument(
        "--embedded", action="store_true", help="use the SSH server in Python in any case"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE, too")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be between 0.1 and 3600")
    return seconds
