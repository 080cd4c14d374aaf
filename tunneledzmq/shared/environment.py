"""What environment the programs get that are started here: one that a frozen program spoils."""

from __future__ import annotations

import os
import sys

__all__ = ["environment_of_others"]

_LIBRARIES = "LD_LIBRARY_PATH"
# Where PyInstaller keeps what it was before.
_BEFORE = "LD_LIBRARY_PATH_ORIG"


def environment_of_others() -> dict[str, str]:
    """Return the environment variables for a program that is not ours.

    One that PyInstaller has frozen looks for shared libraries in its bundle, and whatever it starts
    would find the bundle's there in place of the system's (PyInstaller's manual, "Launching
    external programs from the frozen application").
    """
    environment = dict(os.environ)
    bundle = getattr(sys, "_MEIPASS", None)
    # The program may have seen to it itself.
    if bundle is not None and environment.get(_LIBRARIES, "").split(os.pathsep)[0] == bundle:
        del environment[_LIBRARIES]
        before = environment.pop(_BEFORE, None)
        if before is not None:
            environment[_LIBRARIES] = before
    return environment
