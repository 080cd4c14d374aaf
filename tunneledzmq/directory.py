"""The private directories of gateways, where their Unix sockets live, and of the demo's server."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress

__all__ = ["STDERR", "RuntimeDirectory", "is_ours", "remove", "sweep"]

PREFIXES = {owner: f"tunneledzmq-{owner}-" for owner in ("gateway", "server")}
"""How the names of the directories start, by whose they are."""

STDERR = "stderr"
"""Name of the file in it for what a gateway says before it dies."""


class RuntimeDirectory:
    """A directory with mode 0700, removed by whoever of program and gateway ends last.

    Its `lock` is a descriptor that both hold; once nobody holds it any more the directory is
    stale, and the next :func:`sweep` of any program of the same user removes it.

    Args:
        owner: whose it is, one of `PREFIXES`.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, owner: str = "gateway") -> None:
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIXES[owner], dir=_base())
            try:
                self.lock = _lock(self.path)
            except (BlockingIOError, FileNotFoundError):
                continue  # swept by another program before it was locked
            except OSError:
                os.rmdir(self.path)
                raise
            if os.path.exists(self.path):
                return
            os.close(self.lock)

    def remove(self) -> None:
        """Remove the directory and let go of its lock."""
        self.release()
        remove(self.path)

    def release(self) -> None:
        """Let go of the lock; the other side removes the directory."""
        lock, self.lock = self.lock, -1
        if lock != -1:
            with suppress(OSError):
                os.close(lock)


def remove(path: str) -> None:
    """Remove the directory at `path` with all that is in it."""
    shutil.rmtree(path, ignore_errors=True)
    # That takes descriptors. Where there are none, there is no socket in it yet.
    with suppress(OSError):
        os.unlink(os.path.join(path, STDERR))
    with suppress(OSError):
        os.rmdir(path)


def sweep() -> None:
    """Remove what programs left behind that were killed together with their gateways."""
    base = _base()
    with suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if not is_ours(entry.name):
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                    lock = _lock(entry.path)
                    try:
                        remove(entry.path)
                    finally:
                        os.close(lock)


def is_ours(path: str) -> bool:
    """Tell by its name whether this package has made the directory at `path`."""
    return os.path.basename(path).startswith(tuple(PREFIXES.values()))


def _base() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    with suppress(OSError):
        status = os.stat(runtime)
        if status.st_uid == os.getuid() and os.access(runtime, os.W_OK | os.X_OK):
            return runtime
    return tempfile.gettempdir()


def _lock(path: str) -> int:
    """Open and lock a directory; an OSError means that somebody holds it."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
