"""Which of the suite's tests run on Windows, and why the others do not."""

from __future__ import annotations

FILES = (
    "tests/windows",
    "tests/test_connect.py",
)
