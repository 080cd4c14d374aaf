"""Asking the user at the terminal."""

from __future__ import annotations

import getpass
import os
from io import RawIOBase

__all__ = ["EndOfInput", "ask_on_terminal"]


class EndOfInput(Exception):
    """The user was asked, and gave no answer (Ctrl-D)."""


def ask_on_terminal(text: str, echo: bool) -> str | None:
    """Ask for a secret, or with `echo` for something that may be seen.

    Returns:
        The answer; `None` without a terminal, and where it is another program's at the moment.

    Raises:
        EndOfInput: the user has ended the input.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    with open(terminal, "r+b", buffering=0) as raw:
        # A program in the background would be stopped, not asked.
        if os.tcgetpgrp(raw.fileno()) != os.getpgrp():
            return None
        try:
            return _read_visibly(raw, text) if echo else getpass.getpass(text)
        except EOFError as exc:
            raise EndOfInput from exc


def _read_visibly(terminal: RawIOBase, text: str) -> str:
    terminal.write(text.encode())
    line = terminal.readline()
    if not line:
        raise EOFError
    return line.decode(errors="replace").rstrip("\n")
