"""Commands of the config file, run by the user's shell as OpenSSH runs them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from ...shared.directory import choose_base
from ...shared.system.job import Job, read_end
from ...shared.text import printable

__all__ = ["ShellCommand", "finish"]

# Bytes of what a command says that an error message shows.
_SAID_TAIL = 1000

# Seconds for a command to end by itself when its input ends, then on SIGHUP, then on SIGKILL.
_END_GRACE = 0.2
_HANGUP_GRACE = 0.3
_KILL_GRACE = 0.5

# Those that threads of their own are ending.
_closing: set[ShellCommand] = set()


def finish() -> None:
    """See to it that what was closed has ended, before the process does; takes a second at most."""
    for command in list(_closing):
        command.end()


def _start(work: Callable[[], object]) -> bool:
    thread = threading.Thread(target=work, name="tunneledzmq-command", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there are too many
        return False
    return True


def _open_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except FileNotFoundError:  # $TMPDIR and the usual places will not do
        return tempfile.TemporaryFile(dir=choose_base())


class ShellCommand:
    """A command that runs, with all that it starts.

    It gets a session of its own: Ctrl-C in the terminal is for the program, and the whole of it
    can be ended.

    Args:
        command: for the shell.
        directory: to run it in.
        stdin, stdout: as for `subprocess.Popen`.

    Raises:
        OSError: the shell cannot be started.
    """

    def __init__(
        self,
        command: str,
        directory: str,
        *,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.DEVNULL,
    ) -> None:
        self._pid = os.getpid()
        # Mutex for the end, which more than one thread may want.
        self._ending = threading.Lock()
        # Taken by the first who closes it.
        self._closed = threading.Lock()
        self._said: str | None = None
        # Its exit status, negative for a signal; `None` as long as it runs, and if we ended it.
        self.status: int | None = None
        # A file, since a pipe must be read by somebody as long as there is anything that writes.
        self._stderr = _open_file()
        try:
            self._job = Job(command, directory, stdin=stdin, stdout=stdout, stderr=self._stderr)
        except BaseException:
            self._stderr.close()
            raise
        self._process = self._job.process

    def wait(self, timeout: float) -> int | None:
        """Wait for its end; return its exit status, or `None` if it runs on."""
        with suppress(subprocess.TimeoutExpired):
            self.status = self._process.wait(timeout)
        return self.status

    def close(self) -> None:
        """Have a thread of its own end it. Never waits."""
        if self._pid != os.getpid():
            self.end()
        elif self._closed.acquire(blocking=False):
            _closing.add(self)
            if not _start(self._close):
                self._job.kill()

    def _close(self) -> None:
        try:
            self.end()
        finally:
            _closing.discard(self)

    def end(self) -> None:
        """End it, if it has not ended yet, and reap it. Takes a second at most.

        One that we may not kill (it is root's), or that the kernel does not let die, is left
        behind, and reaped when it has ended.
        """
        if self._pid != os.getpid():  # a forked child: it is its parent's
            self._process.returncode = 0
            self._stderr.close()
            return
        with self._ending:
            if self._said is not None:
                return
            if self.wait(_END_GRACE) is None:
                self._job.hang_up()
                self._has_ended(_HANGUP_GRACE)
            # Also for what it has left behind.
            self._job.kill()
            if not self._has_ended(_KILL_GRACE):
                _start(self._process.wait)
            self._said = self._read_stderr()
            self._stderr.close()

    def _has_ended(self, timeout: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            return True
        return False

    def describe(self) -> str:
        """Say how it ended, and what it said; to be called after :meth:`end`."""
        if self.status is None:
            how = "it was still running"
        elif self.status < 0:
            how = f"killed by signal {-self.status}"
        else:
            how = f"exit status {self.status}"
        return f"{how}: {self._said}" if self._said else how

    def _read_stderr(self) -> str:
        text = read_end(self._stderr, _SAID_TAIL)
        return printable(text.strip(), _SAID_TAIL, lines=True)
