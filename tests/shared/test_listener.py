"""What is said of a local endpoint that cannot be had."""

from __future__ import annotations

import errno
import os

import pytest

from tunneledzmq.shared.listener import cannot_listen


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EADDRINUSE, "local= takes another endpoint"),
        (errno.EMFILE, "raise the limit of open files (ulimit -n)"),
        (errno.ENFILE, "raise the limit of open files (ulimit -n)"),
    ],
)
def test_the_advice_is_for_what_is_missing(code: int, advice: str) -> None:
    text = cannot_listen("me@box:22", "ipc:///x", OSError(code, os.strerror(code)))
    assert text == (
        f"me@box:22: cannot listen on ipc:///x for the local leg: {os.strerror(code)}; {advice}"
    )
