"""The process of an ssh master, which never outlives its gateway."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .said import Said

__all__ = ["MasterProcess"]

# One shell waits for the end of file of its input, which comes when the gateway ends, however it
# ends; the other one for the end of ssh. Then both take the rest along, which are one process
# group: also what ssh has started, a ProxyCommand. (The standard output is closed then, which tells
# us; ssh itself closes its own when it has logged in.)
_WATCH = """
exec 3<&0
(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 &
"$@" </dev/null >/dev/null 3<&-
kill -KILL 0
"""


class MasterProcess:
    """An ``ssh`` in a session of its own: Ctrl-C in the terminal is for the program.

    Args:
        command: the command line.
        environment: its environment variables.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "ssh-of-tunneledzmq", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        # Mutex for the end: once the process is waited for, its id may be another's.
        self._lock = threading.Lock()
        self._ended = False
        assert self._process.stdout is not None and self._process.stderr is not None
        self.life = self._process.stdout.fileno()
        self.stderr = self._process.stderr.fileno()
        os.set_blocking(self.stderr, False)

    def read_stderr(self, said: Said) -> bool:
        """Add what it has said since to `said`; `False` at the end."""
        try:
            while data := os.read(self.stderr, 1 << 16):
                said.feed(data)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def kill(self) -> None:
        """End it at once, from any thread."""
        with self._lock:
            if not self._ended:
                with suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End it, and let go of it."""
        self.kill()
        with self._lock:
            self._ended = True
            self._process.wait()
            self._close()

    def after_fork(self) -> None:
        """Close a forked child's copies of the pipes, without which it would hold ssh alive."""
        self._process.returncode = 0
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
