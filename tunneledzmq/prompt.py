"""Asking the user at the terminal."""

from __future__ import annotations

import getpass
import os

__all__ = ["ask_on_terminal"]


def ask_on_terminal(text: str, echo: bool) -> str | None:
    """Ask for a secret, or with `echo` for something that may be seen.

    Returns:
        The answer; `None` without a terminal, and where it is another program's at the moment.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    with open(terminal, "r+b", buffering=0) as raw:
        # A program in the background would be stopped, not asked.
        if os.tcgetpgrp(raw.fileno()) != os.getpgrp():
            return None
        if not echo:
            return getpass.getpass(text)
        raw.write(text.encode())
        return raw.readline().decode(errors="replace").rstrip("\n")
