"""Programs that can only connect directly, since no Python is in between."""

from __future__ import annotations

import mmap
import shutil

__all__ = ["is_linked_with_libzmq"]


def is_linked_with_libzmq(program: str) -> bool:
    """Tell whether a program is surely one that uses libzmq itself: an ELF file that names it.

    No Python interpreter does, nor does a shell. What loads it later is not found out.
    """
    path = shutil.which(program)
    if path is None:
        return False
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # As the name of a library stands in its table of strings (ELF, DT_NEEDED).
            return data[:4] == b"\x7fELF" and data.find(b"\0libzmq.so") != -1
    except (OSError, ValueError):  # it may only be executed, or is empty
        return False
