"""Paths that mean the same in every working directory."""

from __future__ import annotations

import os
import sys

__all__ = ["absolute"]

if sys.platform == "win32":

    def absolute(path: str, directory: str) -> str:
        """Return what a path means in a directory."""
        return os.path.normpath(os.path.join(directory, path))

else:

    def absolute(path: str, directory: str) -> str:
        """Return what a path means in a directory."""
        # Not normalized: from behind a symbolic link, ".." does not lead back.
        return os.path.join(directory, path)
