"""Locks on directories and files, which end with the processes that hold them."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable

__all__ = ["lock_directory", "lock_file", "unlock"]

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
    import ctypes
    import errno
    import msvcrt
    from ctypes import wintypes

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.CreateMutexW.restype = wintypes.HANDLE
    _ERROR_ALREADY_EXISTS = 183

    # Who locks what there is keeps others from reading it; nothing is ever there.
    _BEYOND = (1 << 31) - 16

    def lock_directory(path: str) -> int:
        """Lock a directory; an OSError means that somebody holds it.

        It is a mutex with the directory's name: an open file in it could not be removed.
        """
        name = "Global\\" + os.path.basename(path)
        lock = _kernel.CreateMutexW(None, False, name)
        if not lock:
            raise ctypes.WinError(ctypes.get_last_error())
        if ctypes.get_last_error() == _ERROR_ALREADY_EXISTS:
            unlock(lock)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        return int(lock)

    def unlock(lock: int) -> None:
        """Let go of a directory."""
        _kernel.CloseHandle(wintypes.HANDLE(lock))

    def lock_file(descriptor: int) -> None:
        """Lock a file for writing, unless somebody keeps it locked."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return  # NUL, in which there is nothing to tear

        def lock() -> None:
            before = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError as exc:  # with no number in Wine
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from exc
            finally:  # what is read next is what would have been
                os.lseek(descriptor, before, os.SEEK_SET)

        _try_for_a_moment(lock)

else:
    import fcntl

    from .descriptors import beyond_standard_streams

    def lock_directory(path: str) -> int:
        """Lock a directory; an OSError means that somebody holds it."""
        lock = beyond_standard_streams(
            os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock

    def unlock(lock: int) -> None:
        """Let go of a directory."""
        os.close(lock)

    def lock_file(descriptor: int) -> None:
        """Lock a file for writing, unless somebody keeps it locked."""
        _try_for_a_moment(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))
