"""A process that makes one trial after the other: `python -m tests.differential.worker JSON`.

It is told a seed by a line on its standard input, and answers with a line. Its tunnels share one
SSH session, which a tunnel that stays keeps up; a program with a session of its own logs in.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

import zmq

from tests.differential.generate import generate
from tests.differential.program import Program
from tests.differential.run import Run
from tests.differential.trial import Trial, Verdict
from tests.differential.ways import PORT, Direct, OwnSession, SharedSession, Way, own_host
from tunneledzmq import SSHOptions

HANG = 300
"""Seconds in which a trial must be done, with all that is run again."""


@dataclass(frozen=True)
class Task:
    """What a worker is told."""

    seed: int
    shrink: float = 0
    """Seconds for making a difference small."""
    direct_only: bool = False
    """Whether only to see if plain TCP survives it: libzmq has assertions that fail by chance."""


class Worker:
    """Makes trials.

    Args:
        options: for the login at the server; `None` compares plain TCP with itself.
    """

    def __init__(self, options: SSHOptions | None) -> None:
        self._options = options
        if options is not None:
            self._keep_session(options)

    def verdict(self, task: Task) -> Verdict:
        program = generate(task.seed)
        if task.direct_only:
            for _ in range(5):
                Run(program, Direct()).run()
            return Verdict("same", [])
        trial = Trial(program, self._way)
        verdict = trial.verdict()
        if verdict.outcome == "different" and task.shrink:
            small = trial.shrink(task.shrink)
            if small.outcome == "different":
                verdict.found, verdict.listing = small.found, small.listing
            verdict.hung |= small.hung
        return verdict

    def _way(self, program: Program) -> Way:
        if self._options is None:
            return Direct()
        if program.own_session:
            return OwnSession(self._options)
        return SharedSession(self._options)

    def _keep_session(self, options: SSHOptions) -> None:
        self._peer = zmq.Context().socket(zmq.PAIR)
        address = f"tcp://{own_host()}:{PORT}"
        self._peer.bind(address)
        self._keeper = SharedSession(options)
        self._kept = self._keeper.socket(zmq.PAIR)
        self._keeper.connect(self._kept, address)


def main(arguments: dict[str, Any] | None) -> None:
    worker = Worker(None if arguments is None else SSHOptions(**arguments))
    print("{}", flush=True)
    for line in sys.stdin:
        faulthandler.dump_traceback_later(HANG, exit=True)
        verdict = worker.verdict(Task(**json.loads(line)))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(asdict(verdict)), flush=True)
        if verdict.hung:
            break  # threads that wait for ever are no company for the next program


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    # Contexts that hang must not keep the process.
    os._exit(0)
