"""Random programs on plain TCP and through a tunnel: `python -m tests.differential --seconds N`.

Each program has a seed, which `--replay` runs once more. The exit status is 1 if one differed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.differential.compare import kind
from tests.differential.crew import Crew
from tests.differential.generate import generate
from tests.differential.trial import Verdict
from tests.differential.worker import Task
from tests.logins import arguments_for
from tests.sshd import OpenSSHServer

SHOWN = 10
"""Differences that are shown in full, and made small, unless told otherwise."""


class Campaign:
    """All the programs of a run, and what came of them."""

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        self._arguments = arguments
        self._seed = seed
        self._start = time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self.different: list[int] = []

    def tasks(self) -> Iterator[Task]:
        """Return what is to be done, until there is no more time."""
        seed, end = self._seed, self._start + self._arguments.seconds
        last = None if self._arguments.programs is None else seed + self._arguments.programs
        while time.monotonic() < end and (last is None or seed < last):
            shown = len(self.different) < self._arguments.show
            yield Task(seed, self._arguments.shrink if shown else 0)
            seed += 1

    def report(self, task: Task, verdict: Verdict) -> None:
        self._outcomes[verdict.outcome] += 1
        if verdict.outcome == "once" and not self._arguments.strict:
            print(f"once, and never again: {task.seed}: {verdict.found[0]}", flush=True)
            return
        if verdict.outcome in ("same", "discarded"):
            if verdict.outcome == "discarded" and self._arguments.verbose:
                print(f"discarded {task.seed}: {verdict.found[0]}", flush=True)
            return
        self.different.append(task.seed)
        self._kinds[kind(generate(task.seed), verdict.found)] += 1
        if len(self.different) > self._arguments.show:
            print(f"DIFFERENT: {task.seed} ({verdict.again}): {verdict.found[0]}", flush=True)
            return
        print(f"DIFFERENT: --replay {task.seed} (seen again: {verdict.again})")
        for line in (*verdict.found, *verdict.listing.splitlines()):
            print(f"  {line}")
        print(flush=True)

    @property
    def share(self) -> float:
        """How many of the programs differ, in percent; all of them if none ran."""
        count = sum(self._outcomes.values())
        return 100 * len(self.different) / count if count else 100.0

    def summary(self) -> str:
        seconds = time.monotonic() - self._start
        count = sum(self._outcomes.values())
        lines = [
            f"{count} programs in {seconds:.0f} s ({count / seconds:.1f} a second): "
            f"{self._outcomes['same']} the same, {self._outcomes['different']} different, "
            f"{self._outcomes['once']} once and never again, "
            f"{self._outcomes['discarded']} discarded, since plain TCP itself differs; "
            f"seeds from {self._seed}"
        ]
        lines += [f"{number:6} {kind}" for kind, number in self._kinds.most_common()]
        return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first program's (default: a new one)")
    parser.add_argument("--seconds", type=float, help="how long (default: 60, or all --programs)")
    parser.add_argument("--programs", type=int, help="how many at most")
    parser.add_argument("--jobs", type=int, default=12, help="how many at once (default: 12)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run just the program of a seed")
    parser.add_argument(
        "--shrink", type=float, default=30, help="seconds to make a difference small (default: 30)"
    )
    parser.add_argument(
        "--show", type=int, default=SHOWN, help=f"differences shown in full (default: {SHOWN})"
    )
    parser.add_argument(
        "--strict", action="store_true", help="count what was not seen again as different, too"
    )
    parser.add_argument(
        "--tolerate",
        type=float,
        default=0,
        metavar="PERCENT",
        help="the share of programs that may differ without failing the run (default: 0)",
    )
    parser.add_argument("--verbose", action="store_true", help="say what is discarded, and why")
    parser.add_argument(
        "--itself",
        action="store_true",
        help="compare plain TCP with itself: what differs then is a fault of the comparison",
    )
    arguments = parser.parse_args()
    if arguments.replay is not None:
        arguments.seed, arguments.programs, arguments.jobs = arguments.replay, 1, 1
        print(generate(arguments.replay))
    if arguments.seconds is None:
        arguments.seconds = 60 if arguments.programs is None else float("inf")
    return arguments


def main() -> int:
    arguments = parse()
    seed = random.SystemRandom().randrange(1 << 40) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="tz-"))
    (directory / "run").mkdir(mode=0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "run")
    try:
        with ExitStack() as stack:
            login: dict[str, Any] | None = None
            if not arguments.itself:
                login = arguments_for(stack.enter_context(OpenSSHServer()))
            campaign = Campaign(arguments, seed)
            Crew(arguments.jobs, login, campaign.tasks(), campaign.report).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(campaign.summary())
    return 0 if campaign.share <= arguments.tolerate else 1


if __name__ == "__main__":
    sys.exit(main())
