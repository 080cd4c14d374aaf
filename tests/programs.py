"""Programs that use the package, run in a process of their own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import IO, Any, AnyStr

from tests.peers import ROOT
from tests.polling import PATIENCE

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
        super().__init__(*args, start_new_session=sys.platform != "win32", **kwargs)

    def kill_all(self) -> None:
        """Kill it and its children, which may hold its output open; not once it has been reaped."""
        if self.returncode is None and sys.platform == "win32":
            self.kill()
        elif self.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)

    def __exit__(self, *exc_info: Any) -> None:
        self.kill_all()
        super().__exit__(*exc_info)


OBEY = """
import traceback
for line in sys.stdin:
    order = json.loads(line)
    answer = {}
    try:
        if "tell" in order:
            answer["value"] = eval(order["tell"])
        else:
            exec(order["do"])
    except BaseException:
        answer["error"] = traceback.format_exc()
    print(json.dumps(answer), flush=True)
"""


def start_program(
    source: str,
    *,
    prefix: Sequence[str] = (),
    stdin: int | IO[Any] = subprocess.DEVNULL,
    first: str = "",
    **given: Any,
) -> Program[str]:
    """Start a program that has no terminal.

    Args:
        source: its source; it finds `json`, `sys`, `zmq` and the package's names imported.
        prefix: words before the command line, such as `ip netns exec NAME`.
        stdin: its standard input.
        first: what it does before anything is imported.
        given: its global variables; `options` are keywords of an `SSHOptions`.

    """
    text = first + PROLOGUE + textwrap.dedent(source)
    return Program(
        [*prefix, sys.executable, "-c", text, json.dumps(given)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1",
            # Of zmq.asyncio, about the usual loop of Windows: it has a thread of its own there.
            "PYTHONWARNINGS": "ignore:Proactor event loop",
        },
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
            output, errors = program.communicate(timeout=timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            if sys.platform != "win32":
                program.send_signal(signal.SIGABRT)  # it says where it waits
            try:
                output, errors = program.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                program.kill_all()
                output, errors = program.communicate(timeout=5)
            errors += f"\nstill running after {timeout * PATIENCE} s"
    assert program.returncode == 0 and not errors, f"{program.returncode}:\n{output}\n{errors}"
    return output


class ObedientProgram:
    """A program that does what it is told, in statements and expressions of Python.

    It can be suspended, and asked afterwards what it has seen. What it does not do in time is an
    error, and it is killed then.

    Args:
        setup: its first statements; they find what `start_program` gives.
        given: see `start_program`.

    """

    def __init__(self, setup: str, **given: Any) -> None:
        self._program = start_program(OBEY, stdin=subprocess.PIPE, **given)
        try:
            self.do(textwrap.dedent(setup))
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._program.pid

    def do(self, statements: str, timeout: float = 30) -> None:
        """Have it do something, and wait until that is done."""
        self.begin(statements)
        self.finish(timeout)

    def begin(self, statements: str) -> None:
        """Have it do something; `finish` waits for it."""
        self._order(do=statements)

    def finish(self, timeout: float = 30) -> None:
        """Wait until it has done what was begun.

        Raises:
            AssertionError: it failed, or was not through in time.

        """
        self._answer(timeout)

    def tell(self, expression: str, timeout: float = 30) -> Any:
        """Return the value that an expression has there."""
        self._order(tell=expression)
        return self._answer(timeout)["value"]

    def close(self, timeout: float = 5) -> None:
        """Let it end, and kill it if it does not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._program.communicate(timeout=timeout)  # its orders end
        self.kill()

    def kill(self) -> None:
        """Kill it."""
        self._program.kill()
        self._program.communicate()

    def __enter__(self) -> ObedientProgram:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None:
            self.close()
        else:
            self.kill()

    def _order(self, **order: str) -> None:
        assert self._program.stdin
        self._program.stdin.write(json.dumps(order) + "\n")
        self._program.stdin.flush()

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._program.stdout
        if not select.select([self._program.stdout], [], [], timeout)[0]:
            self._program.send_signal(signal.SIGABRT)  # it says where it waits
            _, errors = self._program.communicate()
            raise AssertionError(f"still at it after {timeout} s:\n{errors}")
        line = self._program.stdout.readline()
        if not line:
            _, errors = self._program.communicate()
            raise AssertionError(f"ended with {self._program.returncode}:\n{errors}")
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer
