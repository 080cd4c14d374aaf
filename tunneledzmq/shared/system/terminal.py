"""Asking at the terminal of this program."""

from __future__ import annotations

import os
import sys

__all__ = ["ask_on_terminal"]

if sys.platform == "win32":
    import getpass

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
    import termios
    import time
    from contextlib import suppress
    from io import RawIOBase
    from typing import Any

    # Seconds within which it is seen that the terminal shows again what is typed.
    _STEP = 0.05

    # As getpass has it: what was typed ahead of the question is no answer.
    _FLUSH = termios.TCSAFLUSH | getattr(termios, "TCSASOFT", 0)

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
            if not _in_foreground(raw):
                return None
            try:
                return _read_visibly(raw, text) if echo else _read_hidden(raw, text)
            except EOFError:
                raw.write(b"\n")  # nobody has ended the line of the question
                raise
            except termios.error as exc:
                raise OSError(*exc.args) from exc

    def _in_foreground(terminal: RawIOBase) -> bool:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()

    def _read_visibly(terminal: RawIOBase, text: str) -> str:
        terminal.write(text.encode())
        line = terminal.readline()
        if not line:
            raise EOFError
        return line.decode(errors="surrogateescape").rstrip("\n")

    def _read_hidden(terminal: RawIOBase, text: str) -> str:
        """Read a line that is not shown.

        Ctrl-Z has the shell show again what is typed, for its own sake, and it does not take that
        back for who is continued: as with ssh, the question is asked again then. No handler of
        SIGCONT could do that, as any thread may ask.
        """
        import locale  # not before it is needed: it takes a millisecond

        encoding = locale.getpreferredencoding(False)
        question = text.encode(encoding, "replace")
        line = b""
        before = termios.tcgetattr(terminal.fileno())
        try:
            _hide(terminal, before)
            terminal.write(question)
            # It must not wait in read(), where it would be continued.
            with open("/dev/tty", "rb", buffering=0, opener=_open_unblocked) as keyboard:
                while b"\n" not in line:
                    now = termios.tcgetattr(terminal.fileno())
                    if now[3] & termios.ECHO and _in_foreground(terminal):
                        line, before = b"", now
                        _hide(terminal, before)
                        terminal.write(question)
                    # In the background this stops us, or fails, as it does for whoever reads.
                    data = keyboard.read(4096)
                    if data is None:
                        time.sleep(_STEP)
                    elif data:
                        line += data.replace(b"\r", b"\n")
                    elif line:
                        break
                    else:
                        raise EOFError
        finally:
            # In the background it is the shell's, and to change it would stop us.
            with suppress(OSError, termios.error):
                if _in_foreground(terminal):
                    termios.tcsetattr(terminal.fileno(), _FLUSH, before)
        terminal.write(b"\n")
        return line.partition(b"\n")[0].decode(encoding, "surrogateescape")

    def _open_unblocked(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK)

    def _hide(terminal: RawIOBase, settings: list[Any]) -> None:
        """Have a terminal with these settings not show what is typed."""
        hidden = [*settings[:3], settings[3] & ~termios.ECHO, *settings[4:]]
        termios.tcsetattr(terminal.fileno(), _FLUSH, hidden)
