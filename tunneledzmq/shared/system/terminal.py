"""Asking at the terminal of this program."""

from __future__ import annotations

import getpass
import os
import sys

__all__ = ["ask_on_terminal"]

if sys.platform == "win32":

    def ask_on_terminal(text: str, echo: bool) -> str | None:
        """Ask for a secret, or with `echo` for something that may be seen.

        Returns:
            The answer; `None` where the terminal is another program's at the moment.

        Raises:
            EOFError: there was none (Ctrl-Z).
            OSError: there is no terminal.
        """
        with open("CONIN$", encoding="utf-8") as terminal:
            if not echo:
                return getpass.getpass(text)
            with open("CONOUT$", "w", encoding="utf-8") as screen:
                screen.write(text)
            line = terminal.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

else:
    from io import RawIOBase

    def ask_on_terminal(text: str, echo: bool) -> str | None:
        """Ask for a secret, or with `echo` for something that may be seen.

        Returns:
            The answer; `None` where the terminal is another program's at the moment.

        Raises:
            EOFError: there was none (Ctrl-D).
            OSError: there is no terminal.
        """
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        with open(terminal, "r+b", buffering=0) as raw:
            # A program in the background would be stopped, not asked.
            if os.tcgetpgrp(raw.fileno()) != os.getpgrp():
                return None
            try:
                return _read_visibly(raw, text) if echo else getpass.getpass(text)
            except EOFError:
                raw.write(b"\n")  # nobody has ended the line of the question
                raise

    def _read_visibly(terminal: RawIOBase, text: str) -> str:
        terminal.write(text.encode())
        line = terminal.readline()
        if not line:
            raise EOFError
        return line.decode(errors="replace").rstrip("\n")
