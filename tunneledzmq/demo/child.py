"""A process that answers requests, and ends when the process that started it does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

__all__ = ["ChildProcess", "reply", "requests"]


# The child takes over this program's sys.path as it is: "-m" would put the working directory in
# front of it, and could not find a package that the program itself found in a place of its own. The
# beginning is what a list of processes shows.
_BOOTSTRAP = (
    "'tunneledzmq demo';"
    "import importlib, sys; module, sys.path[:] = sys.argv[1], sys.argv[2:];"
    "importlib.import_module(module).main()"
)


class ChildProcess:
    """Run a module's ``main()`` as a process and exchange JSON lines with it.

    The standard input of the process is its life line: when it ends, because :meth:`stop` closed it
    or because this program died, the process ends too.

    Args:
        module: its name. It answers `config` when it is ready.
        config: the first request; never in ``argv`` or the environment, where others could read it.
        timeout: seconds that the process has for the start, for an answer and for the end.

    Raises:
        RuntimeError: if the process did not start within ``timeout``.
    """

    def __init__(self, module: str, config: dict[str, Any], *, timeout: float = 30) -> None:
        self._module = module
        self._timeout = timeout
        self._lock = threading.Lock()
        """Keeps a request and its answer together."""
        # A file, since a pipe that nobody reads would stop a process that logs a lot.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOTSTRAP, module, *map(os.path.abspath, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # Ctrl-C in the terminal is for this program, which then stops the process in order.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self.ready: dict[str, Any] = {}
        """What the process said when it was ready."""
        try:
            self.ready = self.request(config)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the process still runs."""
        return self._process.poll() is None

    def request(self, request: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            RuntimeError: if the process died, said that it failed, or gave no answer within
                ``timeout`` seconds (it is killed then).
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        seconds = self._timeout if timeout is None else timeout
        with self._lock:
            start = time.monotonic()
            expiry = threading.Timer(seconds, self._process.kill)
            expiry.daemon = True
            expiry.start()
            try:
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
            except (OSError, ValueError):
                line = b""  # Died, or stopped: said below.
            finally:
                expiry.cancel()
        if not line.endswith(b"\n"):
            late = time.monotonic() >= start + seconds
            raise RuntimeError(
                f"{self._module} gave no answer in {seconds:g} s" if late else self._obituary()
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self._module}: {answer['error']}")
        return answer

    def _obituary(self) -> str:
        if self._stderr.closed:
            return f"{self._module} has been stopped"
        status = self._process.wait(self._timeout)
        self._stderr.seek(0)
        last_words = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"{self._module} ended (status {status})", *last_words])

    def stop(self) -> None:
        """End the process, and wait until it has ended. May be called again."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            with contextlib.suppress(OSError):  # It died with a request on its way.
                stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._timeout)
        finally:  # Also after another Ctrl-C.
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            stdout.close()
            self._stderr.close()


def requests() -> Iterator[dict[str, Any]]:
    """In the process: yield the requests, until the parent closes the pipe or dies."""
    # Unbuffered: a thread that waits here must not hold a lock that the interpreter's end needs.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        for line in stdin:
            yield json.loads(line)


def reply(answer: dict[str, Any]) -> None:
    """In the process: answer a request."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
