"""Measurements of this package beside today's ways to take ZeroMQ through SSH.

Without a subcommand: the table of performance. A full run writes its figures, a Markdown table and
two plots into benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import faults, first_reply, performance
from benchmarks.parts import PARTS
from benchmarks.ways import WAYS


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.benchmark == "first-reply":
        first_reply.run(arguments.rounds)
    elif arguments.benchmark == "report":
        performance.rewrite(arguments.directory)
    elif arguments.benchmark == "faults" and arguments.trial:
        faults.Trial(WAYS[arguments.trial]).run()
    elif arguments.benchmark == "faults":
        faults.run(quick=arguments.quick, json_file=arguments.json)
    else:
        performance.run(
            quick=arguments.quick,
            rounds=arguments.rounds,
            only=arguments.only,
            output=arguments.output,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: two minutes")
    parser.add_argument("--rounds", type=_positive, help="how often each cell is measured (5)")
    parser.add_argument(
        "--only",
        type=_parts,
        default=[],
        metavar="PART,...",
        help=f"of {', '.join(PARTS)}; writes nothing unless told where",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write; a quick run writes nothing else"
    )
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="faults | first-reply | report")
    faults_parser = benchmarks.add_parser("faults", help="print the README's table of faults")
    faults_parser.add_argument("--quick", action="store_true", help="fewer tries of each fault")
    faults_parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    faults_parser.add_argument("--trial", choices=list(WAYS), help=argparse.SUPPRESS)
    reply_parser = benchmarks.add_parser("first-reply", help="a fresh program's first reply")
    reply_parser.add_argument("--rounds", type=_positive, default=9, help="programs of each kind")
    report_parser = benchmarks.add_parser("report", help="write table and plots of a run anew")
    report_parser.add_argument("directory", type=Path, nargs="?", default=performance.OUTPUT)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(
            f"no such part: {', '.join(unknown)} (there are {', '.join(PARTS)})"
        )
    return [name for name in PARTS if name in names]


if __name__ == "__main__":
    sys.exit(main())
