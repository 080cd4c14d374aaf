"""Which program runs Python code: not every program that does so is an interpreter."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

from .system.paths import absolute

__all__ = ["absolute_entries", "find_interpreter", "is_called_python"]

_NAME = re.compile(r"(?:python|pypy|graalpy)[\w.-]*\Z", re.IGNORECASE)


def find_interpreter() -> str | None:
    """Return the path of an interpreter; `None` where the program carries its own inside.

    What ``multiprocessing.set_executable()`` was told comes first: programs that embed Python, and
    frozen ones that have an interpreter beside them, say so by it.
    """
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = spawn.get_executable() if spawn is not None else None
    if chosen and os.fsdecode(chosen) != sys.executable:
        return os.fsdecode(chosen)
    # PyInstaller and its like set sys.frozen: sys.executable is the program.
    return None if getattr(sys, "frozen", False) else sys.executable or None


def is_called_python(path: str) -> bool:
    """Tell whether a program has the name of an interpreter."""
    return _NAME.match(os.path.basename(path)) is not None


def absolute_entries(path: Iterable[str]) -> Iterator[str]:
    """Return the entries of a ``sys.path``, as they are to be found from everywhere."""
    for entry in map(os.fspath, path):
        with suppress(FileNotFoundError):  # the working directory has been removed
            yield entry if os.path.isabs(entry) else absolute(entry, os.getcwd())
