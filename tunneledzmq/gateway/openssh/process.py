"""The process of an ssh master, which never outlives its gateway."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .helper import MASTER

if TYPE_CHECKING:
    from .said import Said

__all__ = ["MasterProcess"]

# One shell waits for the end of file of its input, which comes when the gateway ends, however it
# ends; the other one for the end of ssh. Then both take the rest along, which are one process
# group: also what ssh has started, a ProxyCommand. (The standard output is closed then, which tells
# us; ssh itself closes its own when it has logged in.) The variable tells what ssh starts which
# process is the master: an ssh that the master has started for a hop has another number.
_WATCH = f"""
exec 3<&0
(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 &
/bin/sh -c 'export {MASTER}=$$; exec "$@"' "$0" "$@" </dev/null >/dev/null 3<&-
kill -KILL 0
"""

# A pipe in packet mode keeps what one write() wrote apart from the next. ssh says each thing in one
# write(), and what a server has it repeat may hold line feeds (Linux; elsewhere lines must do).
_PACKETS = getattr(os, "O_DIRECT", 0) if sys.platform == "linux" else 0

# Seconds for it to end when it is killed, which the kernel may not let it.
_KILL_GRACE = 1.0

# How ssh ends what it says.
_END = b"\r\n"

# Bytes of a line that may lack its end.
_MAX_PARTIAL = 4096

# Bytes of the pipe, which has room for one packet in each 4 KiB.
_PIPE_SIZE = 1 << 18


class MasterProcess:
    """An ``ssh`` in a session of its own: Ctrl-C in the terminal is for the program.

    Args:
        command: the command line.
        environment: its environment variables.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.stderr, says = _make_pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "ssh-of-tunneledzmq", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=says,
                bufsize=0,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self.stderr)
            raise
        finally:
            os.close(says)
        # Mutex for the end: once the process may be waited for, its id may be another's.
        self._lock = threading.Lock()
        self._ended = False
        assert self._process.stdout is not None
        self.life = self._process.stdout.fileno()
        # What was said without an end of the line, yet.
        self._partial = b""

    def read_stderr(self, said: Said) -> bool:
        """Add what it has said since to `said`; `False` at the end."""
        try:
            while data := os.read(self.stderr, 1 << 16):
                for statement in self._statements(data):
                    said.add(statement)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _statements(self, data: bytes) -> list[bytes]:
        """Cut what was read into what was said at once."""
        if _PACKETS and data.endswith(_END):
            # ssh has said it, whatever somebody else has begun to say.
            begun, self._partial = self._partial, b""
            return [begun, data]
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[-_MAX_PARTIAL:]
        return lines

    def kill(self) -> None:
        """End it at once, from any thread."""
        with self._lock:
            if not self._ended:
                with suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End it, and let go of it. Takes a second at most."""
        self.kill()
        with self._lock:
            self._ended = True
            self._close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_GRACE)

    def after_fork(self) -> None:
        """Close a forked child's copies of the pipes, without which it would hold ssh alive."""
        self._process.returncode = 0
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self.stderr >= 0:
            os.close(self.stderr)
            self.stderr = -1


def _make_pipe() -> tuple[int, int]:
    """Make a pipe that is read without waiting."""
    if sys.platform == "linux":
        ours, theirs = os.pipe2(os.O_CLOEXEC | _PACKETS)
        with suppress(OSError):
            fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    else:
        ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    return ours, theirs
