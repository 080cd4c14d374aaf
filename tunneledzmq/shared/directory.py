"""The private directories of gateways, where their Unix sockets live, of the demo's server, and of
``run``."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress

from .system import account
from .system.fork import undivided
from .system.leg import HAS_UNIX_SOCKETS
from .system.locks import lock_directory, unlock

__all__ = [
    "STDERR",
    "RuntimeDirectory",
    "choose_base",
    "is_ours",
    "remove",
    "remove_abandoned",
    "remove_restored",
    "restore",
    "sweep",
]

PREFIXES = {owner: f"tunneledzmq-{owner}-" for owner in ("gateway", "server", "run")}
"""How the names of the directories start, by whose they are."""

STDERR = "stderr"
"""Name of the file in it for what a gateway says before it dies."""

# Name of the file by which a directory is known as one of ours.
_MARK = ".tunneledzmq"

# Bytes of chance in the name of a directory.
_RANDOM = 4

# What is left of the bytes that a Unix socket's path may have everywhere, with the longest names
# in a directory: those that ssh makes of its ControlPath.
_LONGEST_BASE = 103 - len("/tunneledzmq-gateway-12345678/s1/ssh.1234567890123456")

_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

# Locks on directories that were removed by somebody else and made anew, by their paths.
_restored: dict[str, int] = {}


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
        self.lock = -1
        while True:
            # Not mkdtemp(): interrupted by Ctrl-C, it keeps to itself what it has made.
            name = PREFIXES[owner] + os.urandom(_RANDOM).hex()
            self.path = os.path.join(choose_base(), name)
            try:
                os.mkdir(self.path, 0o700)
                _let_owner_in(self.path)
                self.lock = lock_directory(self.path)
                _mark(self.path)
                if os.path.exists(self.path):
                    return
            except FileExistsError:
                continue
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                self.remove()
                raise
            self.release()  # swept by another program before it was locked

    def remove(self) -> None:
        """Remove the directory and let go of its lock."""
        self.release()
        remove(self.path)

    def release(self) -> None:
        """Let go of the lock; the other side removes the directory."""
        lock, self.lock = self.lock, -1
        for descriptor in (lock, _restored.pop(self.path, -1)):
            if descriptor != -1:
                with suppress(OSError):
                    unlock(descriptor)


def remove(path: str) -> None:
    """Remove the directory at `path` with all that is in it."""
    lock = _restored.pop(path, -1)
    if lock != -1:
        unlock(lock)
    if os.path.islink(path):
        return
    try:
        names = os.listdir(path)
    except OSError:  # it takes descriptors
        names = [STDERR]
    for name in names:
        if name != _MARK:
            _remove_entry(os.path.join(path, name))
    # As long as anything is left in it, the next sweep must know it. Program and gateway may do
    # this at once: whoever comes last finds nothing but the other one's mark.
    mark = os.path.join(path, _MARK)
    for _ in range(10):
        with suppress(OSError):
            os.unlink(mark)
        try:
            os.rmdir(path)
            return
        except OSError:
            with suppress(OSError):  # it is gone
                os.symlink(os.curdir, mark)  # which takes no descriptor
        try:
            if os.listdir(path) != [_MARK]:
                return
        except OSError:
            return


def _remove_entry(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def restore(path: str) -> None:
    """Make a directory of ours anew if somebody has removed it, such as a cleaner of old files.

    Raises:
        OSError: it cannot be made, or somebody else has.
    """
    if not is_ours(path):
        return
    try:
        os.mkdir(path, 0o700)
        _let_owner_in(path)
    except FileExistsError:
        if _is_private(path):
            return
        raise PermissionError(errno.EACCES, "somebody else's directory", path) from None
    if path in _restored:
        unlock(_restored.pop(path))
    with suppress(BlockingIOError), undivided():
        _restored[path] = lock_directory(path)
    _mark(path)


def remove_restored() -> None:
    """Remove the directories that were made anew, and in which there is no socket any more."""
    for path in list(_restored):
        with suppress(OSError):
            if _has_no_socket(path):
                remove(path)


def remove_abandoned(path: str) -> None:
    """Remove a directory that its program has let go of, if there is no socket in it any more.

    The program could not: it was killed, or a socket was being put in another's place meanwhile.
    """
    with suppress(OSError):
        if _has_no_socket(path):
            _sweep_one(path)


def _has_no_socket(path: str) -> bool:
    return all(name.startswith(".") for name in os.listdir(path))


def sweep() -> None:
    """Remove what programs left behind that were killed together with their gateways."""
    for base in dict.fromkeys(_bases()):
        with suppress(OSError), os.scandir(base) as entries:
            for entry in entries:
                with suppress(OSError):
                    if is_ours(entry.name) and _is_private(entry.path):
                        _sweep_one(entry.path)


def _sweep_one(path: str) -> None:
    lock = lock_directory(path)
    try:
        if os.path.lexists(os.path.join(path, _MARK)):
            remove(path)
        else:
            os.rmdir(path)  # killed before it was marked, or not one of ours
    finally:
        unlock(lock)


def is_ours(path: str) -> bool:
    """Tell by its name whether this package has made the directory at `path`."""
    return os.path.basename(path).startswith(tuple(PREFIXES.values()))


def _let_owner_in(path: str) -> None:
    # A umask that is for files, if only for a moment in another thread, keeps the owner out, too.
    os.chmod(path, 0o700)


def _mark(path: str) -> None:
    mark = os.path.join(path, _MARK)
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | _NO_LINK, 0o600))


def choose_base() -> str:
    """Choose where the directories are made, and temporary files if need be.

    Raises:
        OSError: there is no place for them.
    """
    for base in _bases():
        return base
    raise OSError(
        errno.ENOENT,
        (
            "no directory for Unix sockets: TMPDIR and XDG_RUNTIME_DIR name none that exists, may "
            "be written by this user alone, and has a path of at most "
            f"{_LONGEST_BASE} bytes of UTF-8"
        )
        if HAS_UNIX_SOCKETS
        else "no directory for temporary files: TEMP and TMP name none that may be written",
    )


def _bases() -> Iterator[str]:
    # Not $XDG_RUNTIME_DIR first: it goes when the user logs out, and programs may stay.
    with suppress(OSError):
        yield from filter(_is_fit, [tempfile.gettempdir()])
    more = (os.environ.get("XDG_RUNTIME_DIR", ""), *account.COMMON_DIRECTORIES)
    yield from filter(_is_fit, more)


def _is_fit(base: str) -> bool:
    """Tell whether sockets in a directory there are ours alone, and can be named."""
    # pyzmq writes a path in UTF-8; what this locale cannot read of it is no text to that.
    with suppress(OSError, UnicodeEncodeError):
        base.encode()
        return (
            os.path.isabs(base)
            and (len(os.fsencode(base)) <= _LONGEST_BASE or not HAS_UNIX_SOCKETS)
            and account.is_fit(os.stat(base))
            and os.access(base, os.W_OK | os.X_OK)
        )
    return False


def _is_private(path: str) -> bool:
    return account.is_private(os.lstat(path))


def _after_fork() -> None:
    """Let go of the locks, which are the parent's."""
    while _restored:
        with suppress(OSError):
            unlock(_restored.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
