"""One run: faults strike in turn, and after each it is checked that all goes on."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import psutil

from tests.closing_server import ClosingServer
from tests.faults.injection import Relay, what_is_left
from tests.leaks import gateways
from tests.logins import Server, arguments_for
from tests.polling import wait_until
from tests.programs import ObedientProgram
from tests.soak.faults import Faults
from tests.soak.patterns import PATTERNS, Way, ways
from tests.sshd import OpenSSHServer

RECOVERY = 5.0
"""Seconds in which all busy patterns must be back after a fault."""

MEMORY = 100_000_000
"""What a gateway may take at most, in bytes."""

HALF = """
    from tests.soak.half import Half
    half = Half(tunnelled=tunnelled)
"""


class Soak:
    """One run.

    Args:
        minutes: for how long faults strike.
        seed: what decides their order, and what they do.
        backend: of the tunnels.
        faults: those that strike.

    """

    def __init__(self, minutes: float, seed: int, backend: str, faults: Sequence[str]) -> None:
        self.seconds = minutes * 60
        self.seed = seed
        self.backend = backend
        self.kinds = faults
        self.random = random.Random(seed)
        self.recoveries: dict[str, list[float]] = {}
        self.complaints: list[str] = []
        self.memory = 0
        self.faults = 0
        self.reconnects: dict[str, int] = {}
        self.ways: list[Way] = []
        # Holes that are no session's, by pattern.
        self._more_holes: Counter[str] = Counter()

    def run(self, show: Callable[[str], None]) -> None:
        """Run, and note what is wrong."""
        with ExitStack() as stack:
            openssh = stack.enter_context(OpenSSHServer())
            servers: dict[str, Server] = {
                "openssh": openssh,
                "closing": stack.enter_context(ClosingServer()),
            }
            relays = {name: stack.enter_context(Relay(servers[name])) for name in servers}
            ssh = {
                name: arguments_for(
                    relay,
                    server_alive_interval=1,
                    server_alive_count_max=2,
                    connect_timeout=3,
                    backend=self.backend,
                )
                for name, relay in relays.items()
            }
            self._far = stack.enter_context(ObedientProgram(HALF, tunnelled=False))
            self._near = stack.enter_context(ObedientProgram(HALF, tunnelled=True))
            faults = Faults(openssh, relays, self._near, self._far, ssh, self.random)
            try:
                self._begin(ssh)
                self._strike_until_the_end(faults, relays, show)
                self._finish(faults)
                self._leave_nothing(openssh, relays)
            except AssertionError as exc:
                self.complaints.append(str(exc))
                self._near.kill()

    def summary(self) -> str:
        """Return the figures."""
        lines = [f"{'way':24} {'sent':>9} {'received':>9} {'lost':>7} {'holes':>6}"]
        lines += [
            f"{way.name:24} {way.sent:9} {way.received:9} {way.lost:7} {way.holes:6}"
            for way in self.ways
        ]
        lines += ["", f"{'what happened':42} {'times':>6} {'median s':>9} {'longest s':>10}"]
        for name, times in sorted(self.recoveries.items()):
            ordered = sorted(times)
            lines.append(
                f"{name.replace('_', ' '):42} {len(times):6} {ordered[len(times) // 2]:9.2f} "
                f"{ordered[-1]:10.2f}"
            )
        lines += [
            "",
            f"{self.faults} faults, {max(self.reconnects.values(), default=0)} reconnects, "
            f"gateway at most {self.memory / 1e6:.0f} MB, seed {self.seed}",
        ]
        return "\n".join(lines)

    def _begin(self, ssh: dict[str, dict[str, Any]]) -> None:
        for pattern in PATTERNS:
            options = dict(ssh[pattern.server])
            if pattern.alone:
                options["connect_timeout"] += 1  # other options, another session
            addr = self._far.tell(
                f"half.open({pattern.name!r}, {int(pattern.far)}, {pattern.far_manner!r}, "
                f"pace={pattern.pace})"
            )
            self._near.do(
                f"half.open({pattern.name!r}, {int(pattern.near)}, {pattern.near_manner!r}, "
                f"addr={addr!r}, ssh={options}, hwm={pattern.hwm}, naps={pattern.naps}, "
                f"pace={pattern.pace})"
            )
        self._locals = self._of_tunnels("local")
        self._wait_until_all_beat("the start")

    def _strike_until_the_end(
        self, faults: Faults, relays: dict[str, Relay], show: Callable[[str], None]
    ) -> None:
        end = time.monotonic() + self.seconds
        round_: list[str] = []
        while time.monotonic() < end:
            # Each has its turn in each round, in an order of its own.
            round_ = round_ or self.random.sample(self.kinds, len(self.kinds))
            name = round_.pop()
            time.sleep(self.random.uniform(0, 1))
            show(name.replace("_", " "))
            self.faults += 1
            getattr(faults, name)()
            taken = self._wait_until_all_beat(name)
            self.recoveries.setdefault(name, []).append(taken)
            if name == "link_swallows_packets":
                self._let_the_server_know(relays, faults)
            self._check_gateways()

    def _wait_until_all_beat(self, after: str) -> float:
        """Wait until something has arrived of each busy pattern; return the seconds it took."""
        start = time.monotonic()
        before = self._beats()
        while True:
            now = self._beats()
            # Two beats: the first may have been on its way already.
            late = [name for name, beats in before.items() if now[name] < beats + 2]
            taken = time.monotonic() - start
            if not late:
                return taken
            assert taken <= RECOVERY, f"after {after}: {', '.join(late)} not back in {RECOVERY} s"
            time.sleep(0.05)

    def _beats(self) -> dict[str, int]:
        reports = {"near": self._near.tell("half.report()"), "far": self._far.tell("half.report()")}
        failures = {
            name: worker["failure"]
            for report in reports.values()
            for name, worker in report.items()
            if worker["failure"]
        }
        assert not failures, f"failed: {failures}"
        return {
            pattern.name: reports[pattern.beating][pattern.name]["received"]
            for pattern in PATTERNS
            if pattern.busy
        }

    def _let_the_server_know(self, relays: dict[str, Relay], faults: Faults) -> None:
        """End what the server takes for a connection still.

        Meanwhile a PUSH behind it has dealt to two in turn, and lost every other message.
        """
        relays["openssh"].end_lost_connections()
        time.sleep(4)  # the sleepers wake
        for name, report in self._near.tell("half.report()").items():
            excess = report["holes"] - faults.breaks["openssh"]
            self._more_holes[name] = max(self._more_holes[name], excess)

    def _check_gateways(self) -> None:
        for gateway in gateways():
            with suppress(psutil.Error):
                self.memory = max(self.memory, gateway.memory_info().rss)
        assert self.memory <= MEMORY, f"a gateway took {self.memory / 1e6:.0f} MB"

    def _of_tunnels(self, what: str) -> dict[str, Any]:
        return {name: tunnel[what] for name, tunnel in self._near.tell("half.tunnels()").items()}

    def _finish(self, faults: Faults) -> None:
        assert self._of_tunnels("local") == self._locals, "a local endpoint changed"
        for half in (self._near, self._far):
            half.do("half.quiet()")
        self._wait_until_nothing_moves()
        self.reconnects = self._of_tunnels("reconnects")
        near = self._near.tell("half.end()", timeout=15)
        far = self._far.tell("half.end()", timeout=15)
        self.ways = ways(near, far)
        for pattern in PATTERNS:
            reconnects, breaks = self.reconnects[pattern.name], faults.breaks[pattern.server]
            if reconnects > breaks:
                self.complaints.append(
                    f"{pattern.name}: {reconnects} reconnects, though only {breaks} sessions were "
                    "broken"
                )
        for way in self.ways:
            breaks = faults.breaks[way.pattern.server]
            holes = breaks + self._more_holes[way.pattern.name] * (way.direction == "back")
            self.complaints += way.complaints(breaks, holes)

    def _wait_until_nothing_moves(self) -> None:
        deadline = time.monotonic() + 20
        before = -1
        while time.monotonic() < deadline:
            now = sum(
                worker["received"]
                for half in (self._near, self._far)
                for worker in half.tell("half.report()").values()
            )
            if now == before:
                break
            before = now
            time.sleep(1)

    @staticmethod
    def _leave_nothing(server: OpenSSHServer, relays: dict[str, Relay]) -> None:
        for relay in relays.values():
            relay.end_lost_connections()
        with suppress(AssertionError):
            wait_until(lambda: not what_is_left(server), timeout=5)
        left = what_is_left(server)
        assert not left, f"left behind: {', '.join(left)}"
