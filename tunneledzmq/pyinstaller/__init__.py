"""What PyInstaller is to know of this package; it finds this by the entry point."""

from __future__ import annotations

import os

__all__ = ["hook_directories"]


def hook_directories() -> list[str]:
    """Return the directory of the hook beside this module (PyInstaller's "hook-dirs")."""
    return [os.path.dirname(__file__)]
