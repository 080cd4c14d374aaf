"""How many random cases a test tries, and which."""

from __future__ import annotations

import os


def seeds_of(variable: str, default: int) -> range:
    """Return the seeds that a variable of the environment asks for: ``COUNT`` or ``START:END``."""
    start, _, end = os.environ.get(variable, str(default)).rpartition(":")
    return range(int(start or 0), int(end))


def chunks(seeds: range, size: int) -> list[range]:
    """Cut seeds into pieces for several workers."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]
