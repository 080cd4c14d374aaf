"""A program under test: a process of its own, with a home directory and a mark."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.peers import ROOT

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MARK = "TUNNELEDZMQ_BENCHMARK"


class Hangs(Exception):
    """The program does not answer."""


class Program:
    """A module of the benchmarks that obeys JSON lines, and what there is around its process.

    Whatever it starts bears its mark in the environment, is found by it, and ends with it.

    Args:
        module: the module and its arguments.
        settings: its first line.
        known_hosts: what stands in that file of its home directory.

    """

    def __init__(self, module: Sequence[str], settings: dict[str, Any], known_hosts: str) -> None:
        self._mark = uuid.uuid4().hex
        self._answers: queue.Queue[str] = queue.Queue()
        with _undisturbed():
            self._home = Path(tempfile.mkdtemp(prefix="benchmark-"))
        try:
            self._start(module, known_hosts)
            self._write(settings)
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, timeout: float = 20, **arguments: Any) -> Any:
        """Have the program do something, and return its answer.

        Raises:
            Hangs: it does not answer in time.
            RuntimeError: it ended.

        """
        self.begin(do, **arguments)
        return self.answer(timeout)

    def begin(self, do: str, **arguments: Any) -> None:
        """Have the program begin with something."""
        self._asked = do
        self._write({"do": do, **arguments})

    def answer(self, timeout: float = 20) -> Any:
        """Return its answer to what it has begun with; see `ask`."""
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise Hangs(self._asked) from None
        if not line:
            raise RuntimeError(f"the program ended:\n{(self._home / 'stderr').read_text()}")
        return json.loads(line)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that it has started, orphans included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.pid != self.process.pid
                    and process.environ().get(MARK) == self._mark
                    and _runs(process)
                ):
                    found.append(process)
        return found

    def listeners(self) -> list[str]:
        """Return the addresses on which it, or a process that it has started, listens."""
        found = []
        pids = [process.pid for process in self.processes()]
        for pid in pids if self.process.returncode is not None else [*pids, self.process.pid]:
            with contextlib.suppress(psutil.Error):
                found += [
                    connection.laddr.ip
                    for connection in psutil.Process(pid).net_connections("tcp")
                    if connection.status == psutil.CONN_LISTEN
                ]
        return found

    def threads(self) -> int:
        """Return how many threads it has."""
        with contextlib.suppress(psutil.Error):
            if self.process.poll() is None:
                return int(psutil.Process(self.process.pid).num_threads())
        return 0

    def left(self, threads: int) -> list[str]:
        """Return what is there, beyond the program itself and so many of its threads."""
        left = [process.name() for process in self.processes()]
        left += ["listener"] * bool(self.listeners())
        left += ["thread"] * max(0, self.threads() - threads)
        left += ["directory"] * len(list(self.temporary.iterdir()))
        return left

    def close(self) -> None:
        """End it and whatever it has started, and remove its home."""
        with _undisturbed():
            if hasattr(self, "process"):  # it may not have come to be started
                self._end(self.process)
            deadline = time.monotonic() + 5
            while self._home.exists() and time.monotonic() < deadline:
                self._end_others()  # also what was only being started a moment ago
                shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _start(self, module: Sequence[str], known_hosts: str) -> None:
        # Open to all, so that what keeps other users out is the way's own doing.
        self._home.chmod(0o755)
        self.temporary = self._home / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)
        self._errors = (self._home / "stderr").open("wb")
        self._write_home(known_hosts)
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("SSH_AUTH_SOCK", "SSH_ASKPASS")},
            "HOME": str(self._home),
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.temporary),
            "PATH": f"{self._home / 'bin'}:{os.environ['PATH']}",
            MARK: self._mark,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdin
        with contextlib.suppress(OSError):
            process.stdin.close()
        self._errors.close()

    def _end_others(self) -> None:
        left = self.processes()
        for orphan in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()
        deadline = time.monotonic() + 5
        # A zombie is gone: the orphans' new parent may take its time.
        while any(map(_runs, left)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _write_home(self, known_hosts: str) -> None:
        directory = self._home / ".ssh"
        directory.mkdir(mode=0o700)
        (directory / "known_hosts").write_text(known_hosts)
        (directory / "config").write_text(
            f"UserKnownHostsFile {directory / 'known_hosts'}\n"
            "GlobalKnownHostsFile /dev/null\nIdentitiesOnly yes\nIdentityAgent none\n"
        )
        # OpenSSH looks for its files in the home that the system knows, not in $HOME.
        ssh = self._home / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "$HOME/.ssh/config" "$@"\n')
        ssh.chmod(0o755)

    def _write(self, line: dict[str, Any]) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Have signals that end the benchmark wait for the end of the body."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
