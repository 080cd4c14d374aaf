"""Who the user is, what files others may read or write, and where ssh's files are."""

from __future__ import annotations

import os
import stat
import sys

__all__ = [
    "COMMON_DIRECTORIES",
    "SYSTEM_SSH_DIRECTORY",
    "is_fit",
    "is_private",
    "open_to_others",
    "readable_by_others",
    "user_id",
    "user_name",
]

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    # "/tmp" would be one of the current drive's, and with Wine that of another system, which has
    # locks of its own.
    COMMON_DIRECTORIES: tuple[str, ...] = ()

    SYSTEM_SSH_DIRECTORY = os.path.join(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "ssh")

    def user_name() -> str | None:
        """Return whose process this is, as the system has it."""
        size = wintypes.DWORD(257)  # UNLEN + 1, lmcons.h
        name = ctypes.create_unicode_buffer(size.value)
        return name.value if ctypes.windll.advapi32.GetUserNameW(name, ctypes.byref(size)) else None

    def user_id() -> int:
        """Return 0: users have no numbers here, and that is what Windows's ssh has for ``%i``."""
        return 0

    # The mode of a file does not tell here who may read or write it. Files in a user's profile are
    # that user's alone, unless he has said otherwise.

    def open_to_others(status: os.stat_result) -> bool:
        """Tell whether somebody else than its owner and root may have written a file."""
        return False

    def readable_by_others(status: os.stat_result) -> bool:
        """Tell whether a file of ours can be read by others."""
        return False

    def is_private(status: os.stat_result) -> bool:
        """Tell whether a directory is ours, and closed to others."""
        return stat.S_ISDIR(status.st_mode)

    def is_fit(status: os.stat_result) -> bool:
        """Tell whether what we make in a directory cannot be taken away by others."""
        return stat.S_ISDIR(status.st_mode)

else:
    import grp
    import pwd

    COMMON_DIRECTORIES = ("/tmp",)
    """Where everybody may have temporary files, whatever the environment says."""

    SYSTEM_SSH_DIRECTORY = "/etc/ssh"
    """Where the system's ssh_config and ssh_known_hosts are."""

    def user_name() -> str | None:
        """Return whose process this is, as the system has it."""
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return None  # a number without a name, as in a container

    def user_id() -> int:
        """Return the user's number."""
        return os.getuid()

    def open_to_others(status: os.stat_result) -> bool:
        """Tell whether somebody else than its owner and root may have written a file."""
        if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
            return True
        return bool(status.st_mode & stat.S_IWGRP) and not _is_group_of_one(status.st_gid)

    def _is_group_of_one(gid: int) -> bool:
        # Where each user has a group of his own, files are writable by it (as Debian's ssh has it).
        try:
            owner, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
        except KeyError:
            return False
        return owner.pw_gid == gid and set(group.gr_mem) <= {owner.pw_name}

    def readable_by_others(status: os.stat_result) -> bool:
        """Tell whether a file of ours can be read by others."""
        return status.st_uid == os.getuid() and bool(stat.S_IMODE(status.st_mode) & 0o077)

    def is_private(status: os.stat_result) -> bool:
        """Tell whether a directory is ours, and closed to others."""
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.getuid()
            and not status.st_mode & 0o077
        )

    def is_fit(status: os.stat_result) -> bool:
        """Tell whether what we make in a directory cannot be taken away by others."""
        others_may_write = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        return status.st_uid in (0, os.getuid()) and not others_may_write
