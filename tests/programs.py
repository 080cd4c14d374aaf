"""Programs that use the package, run in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, AnyStr

from tests.peers import ROOT

# What a shell starts in the background, or nohup, ignores SIGINT, and so do its children.
PROLOGUE = """\
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import zmq
from tunneledzmq import *
given = json.loads(sys.argv[1])
options = SSHOptions(**given.pop("options")) if "options" in given else None
globals().update(given)
"""


class Program(subprocess.Popen[AnyStr]):
    """A process in a session of its own: if it runs at the end of its `with`, it is killed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, start_new_session=True, **kwargs)

    def kill_all(self) -> None:
        """Kill it and its children, which may hold its output open; not once it has been reaped."""
        if self.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)

    def __exit__(self, *exc_info: Any) -> None:
        self.kill_all()
        super().__exit__(*exc_info)


def start_program(source: str, *, prefix: Sequence[str] = (), **given: Any) -> Program[str]:
    """Start a program that has no terminal.

    Args:
        source: its source; it finds `json`, `sys`, `zmq` and the package's names imported.
        prefix: words before the command line, such as `ip netns exec NAME`.
        given: its global variables; `options` are keywords of an `SSHOptions`.

    """
    text = PROLOGUE + textwrap.dedent(source)
    return Program(
        [*prefix, sys.executable, "-c", text, json.dumps(given)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
    )


def run_program(
    source: str, *, prefix: Sequence[str] = (), timeout: float = 30, **given: Any
) -> str:
    """Run a program to its end (see `start_program`), and return what it printed.

    Raises:
        AssertionError: it failed, wrote to its standard error, or took longer than `timeout`.

    """
    with start_program(source, prefix=prefix, **given) as program:
        try:
            output, errors = program.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGABRT)  # it says where it waits
            try:
                output, errors = program.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                program.kill_all()
                output, errors = program.communicate(timeout=5)
            errors += f"\nstill running after {timeout} s"
    assert program.returncode == 0 and not errors, f"{program.returncode}:\n{output}\n{errors}"
    return output
