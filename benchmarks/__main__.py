"""Measurements of this package beside today's ways to take ZeroMQ through SSH."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import faults, first_reply
from benchmarks.ways import WAYS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    faults_parser = benchmarks.add_parser("faults", help="print the README's table of faults")
    faults_parser.add_argument("--quick", action="store_true", help="fewer tries of each fault")
    faults_parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    faults_parser.add_argument("--trial", choices=list(WAYS), help=argparse.SUPPRESS)
    reply_parser = benchmarks.add_parser("first-reply", help="a fresh program's first reply")
    reply_parser.add_argument("--rounds", type=int, default=9, help="fresh programs of each kind")
    arguments = parser.parse_args()
    if arguments.benchmark == "first-reply":
        first_reply.run(arguments.rounds)
    elif arguments.trial:
        faults.Trial(WAYS[arguments.trial]).run()
    else:
        faults.run(quick=arguments.quick, json_file=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
