"""The process of an ssh master, which may be one that the kernel does not let die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.polling import wait_until
from tunneledzmq.gateway.openssh.process import MasterProcess


@pytest.fixture
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[MasterProcess]:
    """A master that is stopped, and that no signal reaches until the test is over."""
    process = MasterProcess(["sleep", "60"], os.environ)
    group = process._process.pid
    killpg = os.killpg
    killpg(group, signal.SIGSTOP)
    monkeypatch.setattr(os, "killpg", lambda group, number: None)
    yield process
    killpg(group, signal.SIGKILL)
    wait_until(lambda: process._process.poll() is not None)


def test_nobody_waits_long_for_one_that_does_not_die(unkillable: MasterProcess) -> None:
    began = time.monotonic()
    ending = threading.Thread(target=unkillable.end, daemon=True)
    ending.start()
    time.sleep(0.2)
    asked = time.monotonic()
    # The gateway's thread, which gives an attempt up.
    giving_up = threading.Thread(target=unkillable.kill, daemon=True)
    giving_up.start()
    giving_up.join(5)
    assert time.monotonic() - asked < 0.5
    ending.join(5)
    assert time.monotonic() - began < 2
