"""A program at a console of Windows: for Linux, that is a program at a terminal."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time

from tests.peers import ROOT
from tests.polling import wait_for_end

PYTHON = ""
"""The command that runs Windows's Python."""


class Console:
    """Runs Python's source at a console of its own; ends it with its `with`.

    Args:
        source: the source.
        arguments: its arguments.

    """

    def __init__(self, source: str, *arguments: str) -> None:
        import pty
        import termios

        self._seen = b""
        self._terminal, end = pty.openpty()
        settings = termios.tcgetattr(end)
        # What is typed is for Windows's console: a return is one, and it is not shown before.
        settings[0] &= ~termios.ICRNL
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(end, termios.TCSANOW, settings)
        environment = {**os.environ, "TERM": "xterm"}
        environment.pop("TUNNELEDZMQ_OWN_NETWORK", None)
        self._process = subprocess.Popen(
            [PYTHON, "-c", source, *arguments],
            stdin=end,
            stdout=end,
            stderr=end,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        os.close(end)

    def shown(self) -> str:
        """Return what it has shown by now."""
        text = self._seen.decode(errors="replace")
        text = re.sub("\x1b\\[(\\d*)C", lambda match: " " * int(match[1] or 1), text)
        return re.sub("\x1b(\\[[?0-9;]*[A-Za-z]|\\][^\x07]*\x07)|\r", "", text)

    def read_until(self, text: str, timeout: float = 100) -> str:
        """Wait until it shows a text, and return all that it has shown by then.

        Raises:
            AssertionError: it did not, or has ended.

        """
        deadline = time.monotonic() + timeout
        while text not in self.shown():
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown()!r}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    self._seen += os.read(self._terminal, 1 << 16)
                except OSError as exc:
                    raise AssertionError(f"no {text!r} in all of {self.shown()!r}") from exc
        return self.shown()

    def type(self, text: str) -> None:
        """Type something: a return is `\\r`, Ctrl-C `\\x03`."""
        os.write(self._terminal, text.encode())

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        wait_for_end(self._process)
        os.close(self._terminal)
