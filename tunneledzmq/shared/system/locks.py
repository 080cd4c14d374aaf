"""Locks on directories and files, which end with the processes that hold them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

__all__ = ["LOCK_IS_IN_THE_WAY", "lock_directory", "lock_file"]

# Seconds to wait for another process that adds a line to a file, and between looks: a lock may be
# anybody's who may read the file, and OpenSSH takes none.
_TIMEOUT = 1.0
_STEP = 0.002


def _try_for_a_moment(lock: Callable[[], None]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        try:
            lock()
        except (BlockingIOError, PermissionError):
            time.sleep(_STEP)
        else:
            return


if sys.platform == "win32":
    import msvcrt

    # Who locks what there is keeps others from reading it; nothing is ever there.
    _BEYOND = (1 << 31) - 16

    LOCK_IS_IN_THE_WAY = True

    def lock_directory(path: str, mark: str, *, create: bool) -> int:
        """Lock a directory by a file in it; an OSError means that somebody holds it.

        Args:
            path: the directory.
            mark: path of the file.
            create: whether to make the file.
        """
        flags = os.O_RDWR | os.O_NOINHERIT | (os.O_CREAT if create else 0)
        lock = os.open(mark, flags, 0o600)
        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            os.close(lock)
            raise BlockingIOError(exc.errno, exc.strerror, path) from exc
        return lock

    def lock_file(descriptor: int) -> None:
        """Lock a file for writing, unless somebody keeps it locked."""

        def lock() -> None:
            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

        _try_for_a_moment(lock)

else:
    import fcntl

    LOCK_IS_IN_THE_WAY = False
    """Whether a directory cannot be removed while its lock is held, by whomever."""

    def lock_directory(path: str, mark: str, *, create: bool) -> int:
        """Lock a directory; an OSError means that somebody holds it.

        Args:
            path: the directory.
            mark: path of a file in it, for systems that cannot lock directories.
            create: whether to make the file there.
        """
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock

    def lock_file(descriptor: int) -> None:
        """Lock a file for writing, unless somebody keeps it locked."""
        _try_for_a_moment(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))
