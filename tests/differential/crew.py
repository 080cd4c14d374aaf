"""Workers side by side: programs mostly wait, so that there may be many more than processors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from tests.differential.trial import Verdict
from tests.differential.worker import Task
from tests.peers import ROOT

ENDED = "ended"
"""The outcome of a trial whose process has ended, as by an assertion of libzmq."""


class _Process:
    """A worker's process."""

    def __init__(self, arguments: dict[str, Any] | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.differential.worker", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            # Ctrl-C is for us.
            start_new_session=True,
        )
        self._errors: list[str] = []
        assert self._process.stderr
        self._reader = threading.Thread(target=self._errors.extend, args=[self._process.stderr])
        self._reader.start()
        self._answer()

    def verdict(self, task: Task) -> Verdict:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if not answer:
            self._reader.join()
            errors = "".join(self._errors[-30:])
            return Verdict(ENDED, [f"the program ended with {self._process.wait()}:\n{errors}"])
        return Verdict(**json.loads(answer))

    def close(self) -> None:
        """Let it end, and wait until it has."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._process.stderr.close()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


# libzmq's own end, now and then, with plain TCP as well (libzmq 4.3.5).
_LIBZMQ = "Assertion failed: _input_stopped"


class Crew:
    """As many workers as there are to be, each with a thread here that tells it what to do.

    Args:
        size: how many.
        arguments: of the `SSHOptions`; `None` compares plain TCP with itself.
        tasks: what to do; asked for by one thread at a time.
        report: told each task and its verdict, by one thread at a time.
    """

    def __init__(
        self,
        size: int,
        arguments: dict[str, Any] | None,
        tasks: Iterator[Task],
        report: Callable[[Task, Verdict], None],
    ) -> None:
        self._arguments = arguments
        self._tasks = tasks
        self._report = report
        # Mutex for the two.
        self._lock = threading.Lock()
        self._ready = threading.Barrier(size)
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(size)]

    def run(self) -> None:
        """Do all tasks; after Ctrl-C those that have begun."""
        for thread in self._threads:
            thread.start()
        try:
            self._join()
        except KeyboardInterrupt:
            with self._lock:
                self._tasks = iter(())
            self._join()
        for failure in self._failures:
            raise failure

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except threading.BrokenBarrierError:
            return
        except BaseException as exc:
            self._failures.append(exc)
            self._ready.abort()

    def _work(self) -> None:
        process = _Process(self._arguments)
        try:
            # A machine that starts processes is no fair place for a program.
            self._ready.wait()
            while True:
                with self._lock:
                    task = next(self._tasks, None)
                if task is None:
                    return
                verdict = process.verdict(task)
                if verdict.hung or verdict.outcome == ENDED:
                    process.close()
                    process = _Process(self._arguments)
                if verdict.outcome == ENDED:
                    alone = process.verdict(replace(task, direct_only=True))
                    known = any(_LIBZMQ in line for line in verdict.found)
                    discarded = known or alone.outcome == ENDED
                    verdict.outcome = "discarded" if discarded else "different"
                    if alone.outcome == ENDED:
                        process.close()
                        process = _Process(self._arguments)
                with self._lock:
                    self._report(task, verdict)
        finally:
            process.close()
