"""Who has connected to what: each process writes it down, and ``run -v`` shows it at the end."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from ..options import SSHOptions

__all__ = ["Report", "summary"]

# Characters of a command line that the summary shows.
_SHOWN = 60


class Report:
    """What one process has done: a file of its own, with a line for each connect.

    Args:
        directory: where the file is, which is named by the process' number.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def begin(self) -> None:
        """Note that the process uses `zmq`."""
        self._write({"program": shlex.join(sys.argv) or sys.executable})

    def connect(self, addr: str, ssh: SSHOptions | None) -> None:
        """Note a connect. May be called by any thread, and after a fork."""
        self._write({"addr": addr, "directly": ssh is None})

    def _write(self, line: dict[str, object]) -> None:
        # The directory is gone when the program is: what is left of it goes on without.
        with suppress(OSError):
            path = os.path.join(self._directory, str(os.getpid()))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, json.dumps(line).encode() + b"\n")
            finally:
                os.close(descriptor)


def summary(directory: str, server: str) -> str:
    """Return what all processes have done, in lines."""
    if not os.path.isdir(directory):
        return f"tunneledzmq run: nobody knows who connected: {directory} was removed meanwhile\n"
    lines = []
    processes = connects = 0
    for path in sorted(Path(directory).glob("[0-9]*"), key=lambda path: int(path.name)):
        notes = [json.loads(line) for line in path.read_text().splitlines()]
        program = next((note["program"] for note in notes if "program" in note), "a forked process")
        ways = Counter((note["addr"], note["directly"]) for note in notes if "addr" in note)
        processes += 1
        connects += ways.total()
        shown = program if len(program) <= _SHOWN else f"{program[:_SHOWN]}..."
        for (addr, directly), count in sorted(ways.items()):
            way = "directly (--except)" if directly else f"through {server}"
            times = f", {count} times" if count > 1 else ""
            lines.append(f"process {path.name} ({shown}): {addr} {way}{times}")
    total = (
        f"Python processes that use zmq: {processes}; connects to tcp:// addresses: {connects}"
        if processes
        else "no Python process has imported zmq; those that ignore PYTHONPATH connect directly"
    )
    return "".join(f"tunneledzmq run: {line}\n" for line in [*lines, total])
