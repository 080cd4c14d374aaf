"""One program on both ways; a difference is told from chance, and made small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.differential.compare import differences, kind
from tests.differential.program import Program
from tests.differential.run import PATIENCE, Run
from tests.differential.seen import Seen
from tests.differential.ways import Direct, Way

PAUSE = 0.2
"""Seconds that a connect takes in a run on plain TCP, too: so much may depend on time."""

SHRINKING_PATIENCE = 1.5
"""Seconds: what is missing stays missing, and many programs are tried."""

TRIES = 8
"""How often plain TCP must do the same again before a tunnel that does not is blamed."""

NAMES = ("direct", "tunnelled")

WayFor = Callable[[Program], Way]


@dataclass
class Verdict:
    """What came of a trial."""

    outcome: str
    """`same`; `different`; `once`, which was not seen again; or `discarded`: plain TCP itself does
    not always do the same."""
    found: list[str]
    again: str = ""
    """How often the difference was seen when it was tried again, half of it with more time."""
    hung: bool = False
    """Whether threads of a run are left."""
    listing: str = ""


class Trial:
    """A program, and the way that is compared with plain TCP.

    Args:
        program: the program.
        way_for: returns the way for a run of it.
        patience: seconds for which it waits there for what was seen on plain TCP.
    """

    def __init__(self, program: Program, way_for: WayFor, patience: float = PATIENCE) -> None:
        self._program = program
        self._way_for = way_for
        self._patience = patience
        self._hung = False

    def verdict(self) -> Verdict:
        """Run it on both ways, and if they differ, more often."""
        first = self._direct(1)
        found = self._compare(first, self._other(first, 1))
        if not found:
            return Verdict("same", [], hung=self._hung)
        for tempo, judge, pause in ((1, first, 0), (1, first, PAUSE), (2, None, 0), (3, None, 0)):
            chance = self._compare(first, self._direct(tempo, judge, pause))
            if chance:
                return Verdict("discarded", chance, hung=self._hung)
        slow = self._direct(3)
        again = [self._compare(slow, self._other(slow, 3)) for _ in range(2)]
        again += [self._compare(first, self._other(first, 1)) for _ in range(2)]
        if any(again):
            for number in range(TRIES):
                chance = self._compare(first, self._direct(1, first if number % 2 else None))
                if chance:
                    return Verdict("discarded", chance, hung=self._hung)
        return Verdict(
            "different" if any(again) else "once",
            found,
            f"{sum(map(bool, again))} of {len(again)}",
            self._hung,
            str(self._program),
        )

    def shrink(self, seconds: float) -> Verdict:
        """Drop steps as long as it differs in the same way, and return what is left."""
        deadline = time.monotonic() + seconds
        smallest, found = self._program, self._difference(self._program)
        size = max(1, len(smallest.steps) // 2)
        wanted = kind(smallest, found) if found else ""
        while found and size and time.monotonic() < deadline:
            start = 0
            while start < len(smallest.steps) and time.monotonic() < deadline:
                candidate = smallest.without(start, start + size)
                less = self._difference(candidate)
                if less and kind(candidate, less) == wanted:
                    smallest, found = candidate, less
                else:
                    start += size
            size //= 2
        return Verdict("different" if found else "same", found, "", self._hung, str(smallest))

    def _difference(self, program: Program) -> list[str]:
        """Return how the ways differ, where plain TCP does the same twice."""
        trial = Trial(program, self._way_for, patience=SHRINKING_PATIENCE)
        first = trial._direct(1)
        found = trial._compare(first, trial._other(first, 1))
        if found and trial._compare(first, trial._direct(1, first)):
            found = []
        self._hung |= trial._hung
        return found

    def _compare(self, first: Seen, second: Seen) -> list[str]:
        return differences(self._program, first, second, NAMES)

    def _direct(self, tempo: float, first: Seen | None = None, pause: float = 0) -> Seen:
        """Run it on plain TCP; with `first`, as the tunnel runs it, waiting for the same."""
        return self._note(Run(self._program, Direct(pause), first, tempo=tempo).run())

    def _other(self, first: Seen, tempo: float) -> Seen:
        way = self._way_for(self._program)
        run = Run(self._program, way, first, tempo=tempo, patience=self._patience)
        return self._note(run.run())

    def _note(self, seen: Seen) -> Seen:
        self._hung |= seen.hung
        return seen
