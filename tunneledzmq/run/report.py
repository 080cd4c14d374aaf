"""Who has connected to what: each process writes it down, and ``run -v`` shows it at the end."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from ..endpoints import parse_remote
from ..options import SSHOptions
from ..tunnel import Tunnel

__all__ = ["Report", "summary"]

# Characters of a command line that the summary shows.
_SHOWN = 60


class Report:
    """What one process has done: a file of its own, with a line for each event.

    A line is written the moment that there is something to tell: a process may end at any time, and
    be forked, or become another program.

    Args:
        directory: where the file is, which is named by the process' number.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # What need not be told again, with the process that has told it.
        self._told: set[tuple[int, str, str, str | None]] = set()

    def begin(self) -> None:
        """Note that the process uses `zmq`."""
        self._write({"program": shlex.join(sys.argv) or sys.executable})

    def connect(self, addr: str, ssh: SSHOptions | None) -> None:
        """Note a connect. May be called by any thread, and after a fork."""
        with suppress(zmq.ZMQError):
            addr = str(parse_remote(addr))  # as its tunnel has it
        self._write({"addr": addr, "server": None if ssh is None else ssh.server})

    def news(self, tunnel: Tunnel, trouble: str | None) -> None:
        """Note that a tunnel's peer is reached, or why it is not. May be called by any thread."""
        server = tunnel._options.server
        if trouble is not None:
            for prefix in (tunnel.server, tunnel.remote.removeprefix("tcp://")):
                trouble = trouble.removeprefix(f"{prefix}: ")  # as the line says
        key = os.getpid(), tunnel.remote, server, trouble
        if key not in self._told:
            self._told.add(key)
            self._write({"addr": tunnel.remote, "server": server, "trouble": trouble})

    def _write(self, line: dict[str, object]) -> None:
        # The directory is gone when the program is: what is left of it goes on without.
        with suppress(OSError):
            path = os.path.join(self._directory, str(os.getpid()))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, json.dumps(line).encode() + b"\n")
            finally:
                os.close(descriptor)


class _Way(NamedTuple):
    """What a program has asked for."""

    program: str
    addr: str
    server: str | None
    """`None`: directly."""


def summary(directory: str) -> str:
    """Return what all processes have done, in lines."""
    if not os.path.isdir(directory):
        return f"tunneledzmq run: nobody knows who connected: {directory} was removed meanwhile\n"
    lines = []
    processes = connects = missed = 0
    for path in sorted(Path(directory).glob("[0-9]*"), key=lambda path: int(path.name)):
        notes = list(_notes(path))
        processes += 1
        for way, count in _connects(notes).items():
            how, well = _how(way, notes)
            connects += count
            missed += not well
            times = f", {count} times" if count > 1 else ""
            lines.append(f"process {path.name} ({way.program}): {way.addr} {how}{times}")
    total = (
        f"Python processes that use zmq: {processes}; connects to tcp:// addresses: {connects}"
        if processes
        else "no Python process has imported zmq; what is no Python, or ignores PYTHONPATH, "
        "connects directly"
    )
    total += f"; addresses that were not reached: {missed}" if missed else ""
    return "".join(f"tunneledzmq run: {line}\n" for line in [*lines, total])


def _notes(path: Path) -> Iterator[dict[str, Any]]:
    """Read what a process has written, which may have been killed in the middle of a line."""
    for line in path.read_bytes().splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def _connects(notes: Iterable[dict[str, Any]]) -> Counter[_Way]:
    found: Counter[_Way] = Counter()
    program = "a forked process"
    for note in notes:
        if "program" in note:
            program = note["program"]
            program = program if len(program) <= _SHOWN else f"{program[:_SHOWN]}..."
        elif "trouble" not in note:
            found[_Way(program, note["addr"], note["server"])] += 1
    return found


def _how(way: _Way, notes: Iterable[dict[str, Any]]) -> tuple[str, bool]:
    """Say how a process came to an address, and tell whether it did."""
    if way.server is None:
        return "directly (--except)", True
    news = [
        note["trouble"]
        for note in notes
        if "trouble" in note and (note["addr"], note["server"]) == (way.addr, way.server)
    ]
    if None in news:
        return f"through {way.server}", True
    why = news[-1] if news else "no answer from there before the end"
    return f"NOT reached over {way.server}: {why}", False
