"""All faults at random, under traffic of all patterns: `python -m tests.soak --minutes N`.

Each message is in a ledger. What ZeroMQ itself would have lost on a disconnect may be lost: what
was on its way when a fault struck, and for PUB/SUB what was published while the subscriber was
away. Nothing may come twice, nothing out of order, and after each fault all patterns must be back
within 5 s. At the end nothing may be left, and the gateway must not have grown.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import zmq

from tests.faults.injection import (
    Relay,
    kill_gateway,
    kill_server,
    kill_session,
    restart,
    stopped,
    the_gateway,
    what_is_left,
)
from tests.leaks import gateways
from tests.logins import options_for
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext

RECOVERY = 5.0
"""Seconds in which all patterns must be back after a fault."""

MEMORY = 100_000_000
"""What a gateway may take at most, in bytes."""

IN_FLIGHT = 8_000_000
"""What may be on its way when a fault strikes, in bytes: windows, and buffers of the kernels."""

SIZES = (16, 200, 2_000, 20_000)


@dataclass
class Ledger:
    """What was sent and what arrived in one direction of one pattern, by number."""

    name: str
    may_miss: bool = False
    """Whether ZeroMQ drops by itself: PUB for who is away, REQ an answer it does not wait for."""
    sent: int = 0
    received: int = 0
    lost: int = 0
    twice: int = 0
    disordered: int = 0
    last: int = -1
    sizes: dict[int, int] = field(default_factory=dict)
    """Sizes of those that are on their way, by number."""
    missing: set[int] = field(default_factory=set)
    """Numbers of those that later ones have overtaken."""
    lost_bytes: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def send(self, size: int) -> bytes:
        """Make the next message."""
        with self._lock:
            number = self.sent
            self.sent += 1
            self.sizes[number] = size
        return number.to_bytes(8, "big").ljust(size, b".")

    def unsend(self, data: bytes) -> None:
        """Take back the last message, which the socket did not take."""
        with self._lock:
            self.sent -= 1
            del self.sizes[int.from_bytes(data[:8], "big")]

    def receive(self, data: bytes) -> None:
        """Note that a message arrived."""
        number = int.from_bytes(data[:8], "big")
        with self._lock:
            if number in self.missing:
                self.disordered += 1
            elif number <= self.last:
                self.twice += 1
            for overtaken in range(self.last + 1, number):
                self._lose(overtaken)
            if self.sizes.pop(number, len(data)) != len(data):
                self.disordered += 1  # it is not the one that was sent
            self.received += 1
            self.last = max(self.last, number)

    def settle(self) -> None:
        """Count as lost what has not arrived in the end."""
        with self._lock:
            for number in list(self.sizes):
                self._lose(number)

    def _lose(self, number: int) -> None:
        if number in self.sizes:
            self.lost += 1
            self.lost_bytes += self.sizes.pop(number)
            self.missing.add(number)


class Pattern:
    """A socket here, a peer there, and a thread for each, with a ledger for each direction."""

    def __init__(
        self,
        name: str,
        kinds: tuple[int, int],
        ctx: TunneledContext,
        options: SSHOptions,
        seed: int,
    ) -> None:
        self.name = name
        self._random = random.Random(seed)
        self._far_ctx = zmq.Context()
        self._far = self._far_ctx.socket(kinds[1])
        self._far.rcvhwm = 100
        # A ROUTER drops what exceeds it.
        self._far.sndhwm = 0 if kinds[1] in (zmq.ROUTER, zmq.REP) else 100
        self._far.rcvtimeo = self._far.sndtimeo = 50
        self._far.linger = 0
        self._far.bind("tcp://127.0.0.1:*")
        self._near = ctx.socket(kinds[0])
        self._near.sndhwm = self._near.rcvhwm = 100
        self._near.rcvtimeo = self._near.sndtimeo = 50
        if kinds[0] == zmq.REQ:
            # Without these a request whose answer was lost blocks a REQ for ever, tunnel or not.
            self._near.req_relaxed = self._near.req_correlate = 1
        if kinds[0] == zmq.SUB:
            self._near.subscribe(b"")
        self._near.connect(self._far.last_endpoint.decode(), ssh=options)
        self.tunnel = self._near.tunnels[0]
        self.there = Ledger(f"{name} there")
        self.back = Ledger(f"{name} back", may_miss=kinds[0] in (zmq.SUB, zmq.REQ))
        self._kinds = kinds
        self._stopping = threading.Event()
        self.drained = threading.Event()
        self.beats = 0
        """Messages that arrived at the end of a way."""
        self.failure: BaseException | None = None
        works = {
            zmq.PUSH: (self._send_there, self._take_there),
            zmq.PULL: (self._take_back, self._send_back),
            zmq.SUB: (self._take_back, self._send_back),
            zmq.REQ: (self._ask, self._answer),
            zmq.DEALER: (self._ask_in_advance, self._answer),
        }[kinds[0]]
        self._threads = [
            threading.Thread(target=self._run, args=(work, end), name=f"{name}-{end}")
            for work, end in zip(works, ("near", "far"), strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ledgers(self) -> list[Ledger]:
        return [ledger for ledger in (self.there, self.back) if ledger.sent]

    def quiet(self) -> None:
        """Send nothing more."""
        self._stopping.set()

    def end(self, linger: int = 2000) -> None:
        """Receive what is still on its way, and close."""
        self.quiet()
        self.drained.set()
        for thread in self._threads:
            thread.join()
        self._near.close(linger)
        self._far_ctx.destroy(linger=0)

    def _run(self, work: Callable[[], None], end: str) -> None:
        try:
            while not self.drained.is_set():
                with suppress(zmq.Again):
                    work()
        except BaseException as exc:
            self.failure = exc

    def _message(self, ledger: Ledger) -> bytes:
        return ledger.send(self._random.choice(SIZES))

    def _send(self, sock: zmq.Socket[bytes], ledger: Ledger) -> bool:
        if self._stopping.wait(0.002):
            time.sleep(0.01)
            return False
        message = self._message(ledger)
        try:
            sock.send(message)
        except zmq.Again:
            ledger.unsend(message)
            return False
        return True

    def _take(self, sock: zmq.Socket[bytes], ledger: Ledger) -> None:
        ledger.receive(sock.recv())
        self.beats += 1

    def _send_there(self) -> None:
        self._send(self._near, self.there)

    def _take_there(self) -> None:
        self._take(self._far, self.there)

    def _send_back(self) -> None:
        self._send(self._far, self.back)

    def _take_back(self) -> None:
        self._take(self._near, self.back)

    def _ask(self) -> None:
        if self._send(self._near, self.there) and self._near.poll(500):
            self._take(self._near, self.back)

    def _ask_in_advance(self) -> None:
        self._send(self._near, self.there)
        while self._near.poll(0):
            self._take(self._near, self.back)

    def _answer(self) -> None:
        frames = self._far.recv_multipart()
        self.there.receive(frames[-1])
        with self.back._lock:
            self.back.sent += 1
            self.back.sizes[int.from_bytes(frames[-1][:8], "big")] = len(frames[-1])
        with suppress(zmq.Again):
            self._far.send_multipart(frames)


class Faults:
    """The faults, by name."""

    def __init__(self, server: OpenSSHServer, relay: Relay, rng: random.Random) -> None:
        self._server = server
        self._relay = relay
        self._random = rng

    def session_killed(self) -> None:
        kill_session(self._server)

    def server_killed_and_restarted(self) -> None:
        kill_server(self._server)
        time.sleep(self._random.uniform(0, 2))
        restart(self._server)

    def gateway_killed(self) -> None:
        kill_gateway()

    def gateway_stopped_for_a_while(self) -> None:
        with stopped(the_gateway()):
            time.sleep(self._random.uniform(0.1, 1))

    def link_cut(self) -> None:
        self._relay.cut_connections()

    def link_swallows_packets(self) -> None:
        self._relay.lose_connections()
        time.sleep(4)  # until server_alive_* finds it: 1 s, 2 questions

    def link_stands_still(self) -> None:
        self._relay.hold_packets()
        time.sleep(self._random.uniform(0.1, 1.5))
        self._relay.pass_packets()

    def link_is_slow(self) -> None:
        self._relay.pass_packets(delay=0.02)
        time.sleep(self._random.uniform(0.5, 1.5))
        self._relay.pass_packets()

    def cut_twice(self) -> None:
        self._relay.cut_connections()
        time.sleep(self._random.uniform(0, 0.3))
        self._relay.cut_connections()


FAULTS = [name for name in vars(Faults) if not name.startswith("_")]

LOSSLESS = {"gateway_stopped_for_a_while", "link_stands_still", "link_is_slow"}
"""Faults that break no connection, so that nothing may be lost."""


class Soak:
    """One run."""

    def __init__(self, minutes: float, seed: int) -> None:
        self.seconds = minutes * 60
        self.seed = seed
        self.random = random.Random(seed)
        self.recoveries: dict[str, list[float]] = {}
        self.complaints: list[str] = []
        self.memory = 0
        self.faults = 0
        self.lossy = 0

    def run(self, show: Callable[[str], None]) -> None:
        with ExitStack() as stack:
            server = stack.enter_context(OpenSSHServer())
            relay = stack.enter_context(Relay(server))
            options = options_for(
                relay, server_alive_interval=1, server_alive_count_max=2, connect_timeout=3
            )
            ctx = TunneledContext()
            patterns = [
                Pattern(name, kinds, ctx, options, self.random.randrange(1 << 30))
                for name, kinds in {
                    "PUSH/PULL": (zmq.PUSH, zmq.PULL),
                    "PULL/PUSH": (zmq.PULL, zmq.PUSH),
                    "REQ/REP": (zmq.REQ, zmq.REP),
                    "DEALER/ROUTER": (zmq.DEALER, zmq.ROUTER),
                    "SUB/PUB": (zmq.SUB, zmq.PUB),
                }.items()
            ]
            locals_ = [pattern.tunnel.local for pattern in patterns]
            faults = Faults(server, relay, self.random)
            end = time.monotonic() + self.seconds
            round_: list[str] = []
            try:
                while time.monotonic() < end and not self.complaints:
                    if not round_:
                        # Each fault has its turn in each round, in an order of its own.
                        round_ = self.random.sample(FAULTS, len(FAULTS))
                    self._strike(round_.pop(), faults, patterns, show)
                    with suppress(psutil.Error, ValueError):
                        self.memory = max(self.memory, the_gateway().memory_info().rss)
                if locals_ != [pattern.tunnel.local for pattern in patterns]:
                    self.complaints.append("a local endpoint changed")
                self._finish(patterns, ctx, server, relay)
            finally:
                for pattern in patterns:
                    pattern.end(linger=0)
                ctx.destroy(linger=0)
                for process in gateways():
                    with suppress(psutil.NoSuchProcess):
                        process.wait(5)
            self._check(patterns)
            self.patterns = patterns

    def _strike(
        self, name: str, faults: Faults, patterns: list[Pattern], show: Callable[[str], None]
    ) -> None:
        time.sleep(self.random.uniform(0, 1))
        show(name.replace("_", " "))
        self.faults += 1
        self.lossy += name not in LOSSLESS
        lost = self._lost(patterns)
        getattr(faults, name)()
        start = time.monotonic()
        before = [pattern.beats for pattern in patterns]
        # Two beats: the first may have been received already when the fault struck.
        while late := [
            pattern.name
            for pattern, beats in zip(patterns, before, strict=True)
            if pattern.beats < beats + 2
        ]:
            if time.monotonic() > start + RECOVERY:
                self.complaints.append(f"after {name}: {', '.join(late)} not back in {RECOVERY} s")
                return
            time.sleep(0.005)
        self.recoveries.setdefault(name, []).append(time.monotonic() - start)
        lost = self._lost(patterns) - lost
        if lost and name in LOSSLESS and not self.lossy:
            self.complaints.append(f"{lost} messages were lost by {name}, which breaks nothing")

    @staticmethod
    def _lost(patterns: list[Pattern]) -> int:
        ledgers = [ledger for pattern in patterns for ledger in pattern.ledgers]
        return sum(ledger.lost for ledger in ledgers if not ledger.may_miss)

    def _finish(
        self, patterns: list[Pattern], ctx: TunneledContext, server: OpenSSHServer, relay: Relay
    ) -> None:
        for pattern in patterns:
            pattern.quiet()
        deadline = time.monotonic() + 5
        still = -1
        while (now := sum(pattern.beats for pattern in patterns)) != still:
            still = now
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        for pattern in patterns:
            pattern.end()
            if pattern.failure is not None:
                self.complaints.append(f"{pattern.name}: {pattern.failure!r}")
        ctx.term()
        relay.end_lost_connections()
        deadline = time.monotonic() + 5
        while left := what_is_left(server):
            if time.monotonic() > deadline:
                self.complaints.append(f"left behind: {', '.join(left)}")
                break
            time.sleep(0.01)

    def _check(self, patterns: list[Pattern]) -> None:
        if self.memory > MEMORY:
            self.complaints.append(f"a gateway took {self.memory / 1e6:.0f} MB")
        for ledger in (ledger for pattern in patterns for ledger in pattern.ledgers):
            ledger.settle()
            if ledger.twice:
                self.complaints.append(f"{ledger.name}: {ledger.twice} came twice")
            if ledger.disordered:
                self.complaints.append(f"{ledger.name}: {ledger.disordered} out of order")
            if not ledger.received:
                self.complaints.append(f"{ledger.name}: nothing arrived")
            if not ledger.may_miss and ledger.lost_bytes > self.lossy * IN_FLIGHT:
                self.complaints.append(
                    f"{ledger.name}: {ledger.lost_bytes / 1e6:.1f} MB were lost, which is more "
                    f"than can have been in flight at {self.lossy} faults"
                )
            if not ledger.may_miss and not self.lossy and ledger.lost:
                self.complaints.append(f"{ledger.name}: {ledger.lost} lost without a fault")

    def summary(self) -> str:
        lines = [f"{'way':20} {'sent':>9} {'received':>9} {'lost':>7} {'twice':>6} {'disorder':>9}"]
        for ledger in (ledger for pattern in self.patterns for ledger in pattern.ledgers):
            lines.append(
                f"{ledger.name:20} {ledger.sent:9} {ledger.received:9} {ledger.lost:7} "
                f"{ledger.twice:6} {ledger.disordered:9}"
            )
        lines += ["", f"{'fault':30} {'times':>6} {'median s':>9} {'longest s':>10}"]
        for name, times in sorted(self.recoveries.items()):
            ordered = sorted(times)
            lines.append(
                f"{name.replace('_', ' '):30} {len(times):6} {ordered[len(times) // 2]:9.2f} "
                f"{ordered[-1]:10.2f}"
            )
        reconnects = {pattern.name: pattern.tunnel.reconnects for pattern in self.patterns}
        lines += [
            "",
            f"{self.faults} faults, {max(reconnects.values())} reconnects, "
            f"gateway at most {self.memory / 1e6:.0f} MB, seed {self.seed}",
        ]
        return "\n".join(lines)


def shown(seconds: float, stack: ExitStack) -> Callable[[str], None]:
    """Return what shows the progress: a bar on a terminal, else lines."""
    if not sys.stdout.isatty():
        start = time.monotonic()
        return lambda what: print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)
    from rich.progress import Progress

    progress = stack.enter_context(Progress(transient=True))
    task = progress.add_task("soak", total=seconds)
    start = time.monotonic()
    return lambda what: progress.update(task, description=what, completed=time.monotonic() - start)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="the faults' order (default: a new one)")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="tz-"))
    (directory / "run").mkdir(mode=0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "run")
    soak = Soak(arguments.minutes, seed)
    try:
        with ExitStack() as stack:
            soak.run(shown(soak.seconds, stack))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(soak.summary())
    for complaint in soak.complaints:
        print(f"FAILED: {complaint}")
    return 1 if soak.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
