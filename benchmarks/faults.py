"""The same faults, applied to every way through SSH.

Each trial is a program of its own (`Trial`), which this one tells what to do (`Program`), and whose
traffic is counted where it arrives (`tests.peers`). A program that does not answer in time hangs,
which is a result. Whatever a program has left behind is found by a mark in its environment, and
ended after the trial.
"""

from __future__ import annotations

import errno
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import zmq

from benchmarks.environment import machine, versions
from benchmarks.program import Hangs, Program
from benchmarks.station import Station
from benchmarks.ways import WAYS, Login, Way
from tests.peers import Peer, free_port
from tests.sshd import OpenSSHServer, generate_key, public_key

UP_WITHIN = 2.0
HEALED_WITHIN = 10.0
LOST_MESSAGES, LOST_SIZE = 2000, 10_000
STALLED_MESSAGES, STALLED_SIZE = 4000, 10_000
NOBODY = 65534
HANGS = "hangs"

# ---- The program under test ----


class Trial(Station):
    """A program that uses one way."""

    def __init__(self, way_class: type[Way]) -> None:
        super().__init__(way_class)
        self._way = self._new_way()

    def do_try(self, addr: str) -> dict[str, Any]:
        """Open a tunnel, make a round trip, close it; tell what the program is told."""
        self._way = self._new_way()
        sock = self._context.socket(zmq.REQ)
        try:
            self._way.open(addr)
            self._way.connect(sock)
        except Exception as exc:
            sock.close(0)
            number = exc.errno if isinstance(exc, zmq.ZMQError) else None
            return {
                "error": type(exc).__name__,
                "errno": errno.errorcode.get(number or 0),
                "text": str(exc),
            }
        sock.send(b"hello")
        works = bool(sock.poll(int(UP_WITHIN * 1000)))
        sock.close(0)
        self._way.close()
        return {"works": works}

    def do_open(self, kind: str, addr: str) -> dict[str, Any]:
        """Open a tunnel, again and again until it is up, and connect a socket."""
        self._way, _ = self._open(addr)
        sock = self._context.socket(getattr(zmq, kind))
        sock.sndhwm = 0
        if kind == "DEALER":
            sock.rcvhwm = 1
        self._way.connect(sock)
        self._sockets.append(sock)
        return {"local": self._way.local}

    def do_more(self, kind: str, count: int) -> dict[str, Any]:
        """Connect further sockets through the tunnel; stop at the first that is refused."""
        for _ in range(count):
            try:
                sock = self._context.socket(getattr(zmq, kind))
                self._way.connect(sock)
            except Exception as exc:
                return {"error": type(exc).__name__, "sockets": len(self._sockets)}
            self._sockets.append(sock)
        return {"sockets": len(self._sockets)}

    def do_round_trips(self, within: float) -> int:
        """Make a round trip on every socket; return on how many it succeeds."""
        poller = zmq.Poller()
        for sock in self._sockets:
            sock.send(b"hello")
            poller.register(sock, zmq.POLLIN)
        deadline = time.monotonic() + within
        waiting = len(self._sockets)
        while waiting and time.monotonic() < deadline:
            for sock, _ in poller.poll(100):
                sock.recv()
                poller.unregister(sock)
                waiting -= 1
        return len(self._sockets) - waiting

    def do_send(self, count: int, size: int) -> None:
        for _ in range(count):
            self._sockets[0].send(bytes(size))

    def do_beat(self, after: float, within: float) -> float | None:
        """Send the time until one sent later than `after` comes back; return when it did."""
        sock = self._sockets[0]
        deadline = time.monotonic() + within
        while (now := time.monotonic()) < deadline:
            sock.send(str(now).encode())
            while sock.poll(50):
                if float(sock.recv()) > after:
                    return time.monotonic()
        return None

    def do_close(self) -> None:
        """Close all sockets, and terminate the context."""
        for sock in self._sockets:
            sock.close()
        self._context.term()

    def do_stop(self) -> None:
        self._way.close()


# ---- The faults ----


@dataclass
class Cell:
    """What one way does under one fault: for the table, and for the JSON file."""

    text: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How often things are tried."""

    opens: int = 20
    runs: int = 10
    sockets: int = 300
    breaks: int = 3
    """Tries of what is broken: sessions, servers, names, keys."""


QUICK = Scale(opens=10, runs=3, sockets=50, breaks=1)


class Site:
    """An SSH server with a way's programs around it."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.server = OpenSSHServer()
        self.login = Login(
            self.server.user, self.server.host, self.server.port, self.server.keyfile
        )
        self.known_hosts = Path(self.server.known_hosts).read_text()

    def program(
        self,
        *,
        login: Login | None = None,
        known_hosts: str | None = None,
        variant: dict[str, Any] | None = None,
    ) -> Program:
        known = self.known_hosts if known_hosts is None else known_hosts
        settings = {"login": asdict(login or self.login), "variant": variant or {}}
        return Program(["benchmarks", "faults", "--trial", self.way], settings, known)


@contextmanager
def site(way: str) -> Iterator[Site]:
    found = Site(way)
    try:
        yield found
    finally:
        found.server.stop()


def opens(site: Site, scale: Scale) -> Cell:
    outcomes: Counter[str] = Counter()
    with Peer("router") as peer, site.program() as program:
        for _ in range(scale.opens):
            try:
                outcomes[_told(program.ask("try", addr=peer.address))] += 1
            except Hangs:
                outcomes[HANGS] = scale.opens - outcomes.total()
                break
    others = ", ".join(f"{n} {what}" for what, n in outcomes.items() if what != "connects")
    text = f"{outcomes['connects']} of {scale.opens}"
    return Cell(f"{text} ({others})" if others else text, dict(outcomes))


def left_after_close(site: Site, scale: Scale) -> Cell:
    with Peer("router") as peer, site.program() as program:
        program.ask("open", timeout=60, kind="REQ", addr=peer.address)
        program.ask("round_trips", within=5)
        program.ask("close")
        return _left(program, threads=1, within=2)


def left_after_kill(site: Site, scale: Scale) -> Cell:
    with Peer("router") as peer, site.program() as program:
        program.ask("open", timeout=60, kind="REQ", addr=peer.address)
        program.ask("round_trips", within=5)
        program.process.kill()
        program.process.wait()
        return _left(program, threads=0, within=5)


def _left(program: Program, threads: int, within: float) -> Cell:
    deadline = time.monotonic() + within
    while (left := program.left(threads)) and time.monotonic() < deadline:
        time.sleep(0.05)
    counts = Counter("process" if what.startswith("python") else what for what in left)
    words = [f"{n} {what}s" if n > 1 else what for what, n in counts.items()]
    return Cell(", ".join(words) or "nothing", dict(counts))


def _lossless(site: Site, runs: int, variant: dict[str, Any]) -> tuple[list[int], list[str]]:
    """Return how many messages arrived in each run, and where runs hung."""
    hung = []
    arrived = []
    for _ in range(runs):
        with Peer("collector") as peer, site.program(variant=variant) as program:
            try:
                program.ask("open", timeout=60, kind="PUSH", addr=peer.address)
                program.ask("send", count=LOST_MESSAGES, size=LOST_SIZE)
                program.ask("close")
                program.ask("stop", timeout=10)
            except Hangs as exc:
                hung.append(str(exc))
            arrived.append(_settled(peer, LOST_MESSAGES, quiet=1.5))
    return arrived, hung


def _settled(peer: Peer, expected: int, quiet: float) -> int:
    """Return how many messages have arrived: all of them, or no more for `quiet` seconds."""
    seen, since = 0, time.monotonic()
    while seen != expected and time.monotonic() - since < quiet:
        count: int = peer.report()["messages"]
        if count != seen:
            seen, since = count, time.monotonic()
        time.sleep(0.02)
    return seen


def nothing_lost(site: Site, scale: Scale) -> Cell:
    texts, figures = [], {}
    variants: dict[str, dict[str, Any]] = {"": {}}
    if site.way == "sshtunnel by hand":
        variants = {"`stop()`": {}, "`with`": {"force": True}}
    for name, variant in variants.items():
        arrived, hung = _lossless(site, scale.runs, variant)
        text = f"{arrived.count(LOST_MESSAGES)} of {scale.runs}"
        notes = [name] * bool(name) + [f"{n} hung in {do}" for do, n in Counter(hung).items()]
        texts.append(f"{text} ({', '.join(notes)})" if notes else text)
        figures[name.strip("`") or "default"] = {"arrived": arrived, "hung": hung}
    return Cell(", ".join(texts), figures)


def session_killed(site: Site, scale: Scale) -> Cell:
    return _healing(site, scale, _kill_session)


def server_restarted(site: Site, scale: Scale) -> Cell:
    return _healing(site, scale, _restart_server)


def _kill_session(server: OpenSSHServer) -> float:
    server.kill_sessions()
    return time.monotonic()


def _restart_server(server: OpenSSHServer) -> float:
    server.kill()
    time.sleep(1)  # the outage
    server.restart()
    return time.monotonic()


def _healing(site: Site, scale: Scale, harm: Callable[[OpenSSHServer], float]) -> Cell:
    """Break the connection a few times, and time how long its traffic stands still."""
    times: list[float] = []
    with Peer("router") as peer, site.program() as program:
        program.ask("open", timeout=60, kind="DEALER", addr=peer.address)
        if program.ask("beat", after=0, within=10) is None:
            return Cell("no traffic")
        for _ in range(scale.breaks):
            broken = harm(site.server)
            healed = program.ask("beat", after=broken, within=HEALED_WITHIN)
            if healed is None:
                return Cell("never", {"seconds": times})
            times.append(round(healed - broken, 3))
    return Cell(f"{statistics.median(times):.2f} s", {"seconds": times})


def stalled_reader(site: Site, scale: Scale) -> Cell:
    with Peer("router") as peer, site.program() as program:
        program.ask("open", timeout=60, kind="DEALER", addr=peer.address)
        program.ask("send", count=STALLED_MESSAGES, size=STALLED_SIZE)
        arrived = _settled(peer, STALLED_MESSAGES, quiet=4)
    megabytes = arrived * STALLED_SIZE / 1e6
    text = "go on" if arrived == STALLED_MESSAGES else f"stop after {megabytes:.0f} MB"
    return Cell(text, {"arrived": arrived, "sent": STALLED_MESSAGES})


def many_sockets(site: Site, scale: Scale) -> Cell:
    with Peer("router") as peer, site.program() as program:
        try:
            program.ask("open", timeout=60, kind="REQ", addr=peer.address)
            more = program.ask("more", timeout=60, kind="REQ", count=scale.sockets - 1)
            works = program.ask("round_trips", timeout=60, within=45)
        except Hangs as exc:
            return Cell(f"{HANGS} in {exc}")
    return Cell(f"{works} of {scale.sockets}", {"works": works, **more})


def unknown_host_key(site: Site, scale: Scale) -> Cell:
    return _strange_host_key(site, scale, "")


def changed_host_key(site: Site, scale: Scale) -> Cell:
    other = generate_key(site.server.directory / "other_host_key")
    known = f"[{site.login.host}]:{site.login.port} {public_key(other)}\n"
    return _strange_host_key(site, scale, known)


def _strange_host_key(site: Site, scale: Scale, known_hosts: str) -> Cell:
    texts, figures = [], {}
    variants: dict[str, dict[str, Any]] = {"": {}}
    if site.way == "zmq.ssh (paramiko)":
        variants[" with `password=`"] = {"password": "secret"}
    for name, variant in variants.items():
        cell = _tries(site, scale, known_hosts=known_hosts, variant=variant)
        texts.append(cell.text + name)
        figures[name.strip(" `") or "default"] = cell.figures
    return Cell("; ".join(texts), figures)


def no_such_host(site: Site, scale: Scale) -> Cell:
    return _tries(site, scale, login=replace(site.login, host="no-such-host.invalid"))


def refused(site: Site, scale: Scale) -> Cell:
    return _tries(site, scale, login=replace(site.login, port=free_port()))


def wrong_key(site: Site, scale: Scale) -> Cell:
    stranger = generate_key(site.server.directory / "stranger")
    return _tries(site, scale, login=replace(site.login, keyfile=str(stranger)))


def _tries(site: Site, scale: Scale, **arguments: Any) -> Cell:
    """Try a few times: some ways tell it now and then."""
    tries = [_try(site, **arguments) for _ in range(scale.breaks)]
    told = dict.fromkeys(words for words, _ in tries)
    return Cell(" or ".join(told), {"answers": [answer for _, answer in tries]})


def _try(
    site: Site,
    *,
    login: Login | None = None,
    known_hosts: str | None = None,
    variant: dict[str, Any] | None = None,
) -> tuple[str, dict[str, Any]]:
    login = login or site.login
    with (
        Peer("router") as peer,
        site.program(login=login, known_hosts=known_hosts, variant=variant) as program,
    ):
        try:
            answer: dict[str, Any] = program.ask("try", timeout=25, addr=peer.address)
        except Hangs:
            return HANGS, {}
    if "text" in answer:
        text = answer["text"].replace(login.keyfile, "KEYFILE").replace(str(login.port), "PORT")
        # User, files and processes are this machine's.
        text = re.sub(r"/(tmp|root|home|usr|work)/[^\s:'\",)]*", "FILE", text)
        answer["text"] = " ".join(re.sub(r"\b\w+@", "USER@", text).split())[:400]
    return _told(answer), answer


def _told(answer: dict[str, Any]) -> str:
    """Say what the program is told, in the table's words."""
    if "works" in answer:
        return "connects" if answer["works"] else "silent"
    if answer["error"] == "SSHExited":
        return "ssh's stderr"
    if answer["error"] == "AskedForPassword":
        return "asks for a password"
    number = f" ({answer['errno']})" if answer["errno"] else ""
    return f"`{answer['error']}`{number}"


ROUND_TRIP_AS_NOBODY = """
import os, sys, zmq
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
sock = zmq.Context().socket(zmq.REQ)
sock.linger = 0
sock.connect(sys.argv[1])
sock.send(b"hello")
print(sock.poll(2000))
"""


def another_user(site: Site, scale: Scale) -> Cell:
    if os.geteuid() != 0:
        return Cell("n/a")
    with Peer("router") as peer, site.program() as program:
        local = program.ask("open", timeout=60, kind="REQ", addr=peer.address)["local"]
        if program.ask("round_trips", within=5) != 1:
            return Cell("no traffic")
        source = ROUND_TRIP_AS_NOBODY.format(nobody=NOBODY)
        command = [sys.executable, "-c", source, local]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        anywhere = {"0.0.0.0", "::"} & set(program.listeners())
    text = "yes" if int(output) else "no"
    return Cell(f"{text}; listens on {anywhere.pop()}" if anywhere else text)


@dataclass(frozen=True)
class Row:
    """A fault, and what measures it; `alone` (with one other) where more load would change it."""

    title: str
    measure: Callable[[Site, Scale], Cell]
    alone: bool = False


ROWS = [
    Row("{scale.opens} opens: tunnels that came up", opens, alone=True),
    Row("left 2 s after close and term", left_after_close),
    Row("left 5 s after SIGKILL of the program", left_after_kill),
    Row("2,000 x 10 kB, close, term, stop: runs with nothing lost", nothing_lost, alone=True),
    Row("SSH session killed: traffic resumes after", session_killed),
    Row("sshd restarted: traffic resumes after", server_restarted),
    Row("a reader that stops: the same socket's writes", stalled_reader, alone=True),
    Row("{scale.sockets} sockets over one tunnel: that work", many_sockets, alone=True),
    Row("unknown host key", unknown_host_key),
    Row("changed host key", changed_host_key),
    Row("no such host: the program is told", no_such_host),
    Row("refused: the program is told", refused),
    Row("wrong key: the program is told", wrong_key),
    Row("round trip by another user of the machine", another_user),
]


# ---- The table ----


def run(*, quick: bool = False, json_file: Path | None = None) -> None:
    """Measure all, print the table, and write the figures to `json_file`."""
    scale = QUICK if quick else Scale()
    started = time.monotonic()
    cells: dict[str, dict[str, Cell]] = {}
    titles = {row: row.title.format(scale=scale) for row in ROWS}
    ways = [way for way in WAYS if not _is_missing(way)]
    with _progress(len(ROWS) * len(ways)) as advance:
        for workers, alone in ((6, False), (2, True)):
            with ThreadPoolExecutor(workers) as pool:
                futures = {
                    pool.submit(_measure, row, way, scale): (titles[row], way)
                    for row in ROWS
                    if row.alone == alone
                    for way in ways
                }
                for future in as_completed(futures):
                    title, way = futures[future]
                    cells.setdefault(title, {})[way] = future.result()
                    advance(f"{way}: {title}")
    cells = {title: {way: cells[title][way] for way in ways} for title in titles.values()}
    print("\n".join(_table(cells)))
    if json_file:
        figures = {
            "machine": machine(),
            "versions": versions(),
            "scale": asdict(scale),
            "seconds": round(time.monotonic() - started),
            "rows": {
                title: {w: asdict(c) for w, c in by_way.items()} for title, by_way in cells.items()
            },
        }
        json_file.parent.mkdir(exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


def _is_missing(way: str) -> bool:
    reason = WAYS[way].missing()
    if reason:
        print(f"{way} is left out: {reason}", file=sys.stderr)
    return reason is not None


def _measure(row: Row, way: str, scale: Scale) -> Cell:
    with site(way) as its_site:
        try:
            return row.measure(its_site, scale)
        except Hangs as exc:
            return Cell(f"{HANGS} in {exc}")
        except Exception as exc:
            print(f"{way}: {row.title}: {exc!r}", file=sys.stderr)
            return Cell(f"failed: `{type(exc).__name__}`", {"error": str(exc)[-300:]})


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    if not sys.stderr.isatty():
        yield lambda title: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("faults", total=total)
        yield lambda title: progress.update(task, advance=1, description=title)


def _table(cells: dict[str, dict[str, Cell]]) -> list[str]:
    ways = list(next(iter(cells.values())))
    lines = [f"| | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    for title, by_way in cells.items():
        lines.append(f"| {title} | {' | '.join(cell.text for cell in by_way.values())} |")
    return lines
