"""How the command line speaks: help and errors that fit the terminal, in its own words."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from typing import Any, NoReturn, TextIO

from .words import say

__all__ = ["Parser", "width_of"]

# Options of ssh's that are written otherwise here.
_OF_SSH = {
    "-l": "the user stands in --ssh: USER@HOST",
    "-o": "it stands in a file that -F names, or in ~/.ssh/config",
    "-p": "the port stands in --ssh: HOST:PORT",
}
_UNKNOWN = "unrecognized arguments: "

# What stands before the second column of a table.
_FIRST_COLUMN = re.compile(r" +(?:\S+ )*\S* {2,}| *")


class _Manual(argparse.RawDescriptionHelpFormatter):
    """Fits the text before and after the options into the terminal, with its tables as such.

    Indented lines stand for themselves, and commands are never taken apart.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_filled(block, width) for block in text.strip().split("\n\n")) + "\n"


def _filled(block: str, width: int) -> str:
    if "\n " not in block:
        return textwrap.fill(block, width)
    lines = []
    for line in block.splitlines():
        found = _FIRST_COLUMN.match(line)
        indent = " " * (found.end() if found else 0)
        is_command = line.startswith("  tunneledzmq ")
        lines += [line] if is_command else textwrap.wrap(line, width, subsequent_indent=indent)
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """A parser that speaks so."""

    def __init__(self, **given: Any) -> None:
        super().__init__(formatter_class=_Manual, **given)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end (argparse's seam)."""
        self.print_usage(sys.stderr)
        if message.startswith(_UNKNOWN) and (hint := _OF_SSH.get(message[len(_UNKNOWN) :][:2])):
            message += f"; {hint}"
        text, width = f"{self.prog}: error: {say(message)}", width_of(sys.stderr)
        if width is not None:
            text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
        self.exit(2, f"{text}\n")


def width_of(stream: TextIO) -> int | None:
    """Return the columns that a stream is shown in; `None` where nobody says."""
    if stream.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None
