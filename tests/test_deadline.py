"""What hangs after a test has failed becomes a failure too, and says where it hung."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from tests.deadline import ending
from tests.peers import ROOT
from tests.programs import Program, run_program

SUITE = """
import contextlib, time
import pytest

@pytest.fixture
def first():
    yield
    hang_in_the_first_fixture()

@pytest.fixture
def second():
    yield
    hang_in_the_second_fixture()

def hang_in_the_first_fixture():
    time.sleep(50)

def hang_in_the_second_fixture():
    time.sleep(50)

def hang_in_the_exit():
    time.sleep(50)

def test_fails(first, second):
    assert False

@pytest.mark.timeout(0.3)
def test_hangs():
    with contextlib.ExitStack() as stack:
        stack.callback(hang_in_the_exit)
        time.sleep(50)

def test_passes(first):
    pass

def test_goes_on():
    pass
"""


def test_a_failed_test_ends(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    run = (
        "import sys, pytest; from tests import deadline;"
        "deadline.TEARDOWN = deadline.AGAIN = 0.3;"
        "sys.exit(pytest.main(sys.argv[1:], [deadline]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", run, "-c", os.devnull, "-q", "--tb=native", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "2 failed, 2 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    for place in ("first_fixture", "second_fixture", "exit"):
        assert f"in hang_in_the_{place}\n" in done.stdout


def test_a_context_that_does_not_end_is_a_failure() -> None:
    context = zmq.Context()
    shadow = zmq.Context.shadow(context.underlying)
    sock = shadow.socket(zmq.PULL)  # which libzmq waits for, and `context` does not know of
    with (
        pytest.raises(pytest.fail.Exception, match="the end of a context took longer"),
        ending(context, 0.2),
    ):
        pass
    sock.close()
    shadow.term()


def test_a_program_does_not_outlive_its_block() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(50)"]
    with pytest.raises(ZeroDivisionError), Program(command) as program:
        raise ZeroDivisionError
    assert program.returncode == -9


def test_a_program_that_takes_too_long_says_where_it_waits() -> None:
    source = """
        import os, time
        def child():
            while True:
                time.sleep(50)
        def parent():
            time.sleep(50)
        if os.fork():
            parent()
        child()
        """
    with pytest.raises(AssertionError, match=r"in parent\n(?s:.*)still running after 1 s"):
        run_program(source, timeout=1)
