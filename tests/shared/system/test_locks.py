"""Locks on files."""

from __future__ import annotations

import os
from pathlib import Path

from tunneledzmq.shared.system.locks import lock_file


def test_a_file_that_is_locked_is_read_from_where_it_stood(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    try:
        os.lseek(descriptor, 1, os.SEEK_SET)
        lock_file(descriptor)
        assert os.read(descriptor, 10) == b"ext"
    finally:
        os.close(descriptor)
