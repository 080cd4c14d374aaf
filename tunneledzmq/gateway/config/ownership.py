"""Who may have written a config file."""

from __future__ import annotations

import grp
import os
import pwd
import stat

__all__ = ["open_to_others"]


def open_to_others(status: os.stat_result) -> bool:
    """Tell whether somebody else than its owner and root may have written a file."""
    if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)


def _is_private(gid: int) -> bool:
    # Where each user has a group of his own, files are writable by it (as Debian's ssh has it).
    try:
        owner, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return owner.pw_gid == gid and set(group.gr_mem) <= {owner.pw_name}
