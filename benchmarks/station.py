"""What runs in the process of a program under test: it obeys JSON lines on its standard input."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from typing import Any

import zmq

from benchmarks.ways import Login, Way


class Station:
    """Answers each line that it reads by the method that the line names (`do_...`).

    Args:
        way_class: what it connects through.

    """

    def __init__(self, way_class: type[Way]) -> None:
        self._output = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what the ways print is not mixed with the answers
        settings = json.loads(sys.stdin.readline())
        self._way_class = way_class
        self._login = Login(**settings["login"])
        self._variant: dict[str, Any] = settings["variant"]
        self._sockets: list[zmq.Socket[bytes]] = []

    def run(self) -> None:
        self._context = self._new_way().context()
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(self, "do_" + request.pop("do"))(**request)
            self._output.write(json.dumps(answer) + "\n")

    def _new_way(self) -> Way:
        return self._way_class(self._login, **self._variant)

    def _open(self, addr: str, within: float = 60) -> tuple[Way, int]:
        """Open a tunnel, if need be again and again; tell how many tries it took."""
        deadline = time.monotonic() + within
        for tries in itertools.count(1):
            way = self._new_way()
            try:
                way.open(addr)
                if way.is_up():
                    return way, tries
            except Exception:
                if not way.takes_tries:
                    raise
            if not way.takes_tries or time.monotonic() > deadline:
                break
        raise RuntimeError(f"no tunnel came up in {tries} {'try' if tries == 1 else 'tries'}")
