"""The directories of logins: short, however many there were, and each login's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tunneledzmq.gateway.openssh.forwarder import OpenSSHForwarder
from tunneledzmq.shared.directory import RuntimeDirectory


def test_paths_do_not_grow_with_the_number_of_logins() -> None:
    forwarder = forwarder_in(made := RuntimeDirectory())
    seen = set()
    for _ in range(200):
        directory = forwarder._own_directory()
        seen.add(len(directory))
        os.rmdir(directory)
    made.remove()
    assert len(seen) == 1


def test_no_login_gets_the_directory_of_one_that_was_left_behind() -> None:
    forwarder = forwarder_in(made := RuntimeDirectory())
    left = Path(forwarder._own_directory())
    for _ in range(100):
        directory = forwarder._own_directory()
        assert Path(directory) != left
        os.rmdir(directory)
    with pytest.raises(FileExistsError, match=left.parent.name):
        [forwarder._own_directory() for _ in range(100)]
    made.remove()


def forwarder_in(directory: RuntimeDirectory) -> OpenSSHForwarder:
    anything: Any = None
    return OpenSSHForwarder(anything, directory.path, anything)
