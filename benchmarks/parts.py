"""What is measured: the parts of the table, their cells, and the ways that take part in each."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks import first_reply
from benchmarks.site import MEASURED_WITHIN, Site, cpu_seconds
from benchmarks.ways import ALL_WAYS
from benchmarks.ways.libraries import Direct, Tunneledzmq, TunneledzmqOpenSSH
from benchmarks.ways.programs import SSHProgram, SSHProgramGCM

OURS = Tunneledzmq.name
OURS_OPENSSH = TunneledzmqOpenSSH.name
SSH = SSHProgram.name
BESIDE_SSH = (OURS, OURS_OPENSSH, SSH)

SIZES = {"1 KiB": 1 << 10, "16 KiB": 16 << 10, "256 KiB": 256 << 10, "4 MiB": 4 << 20}
DIRECTIONS = ("up", "down")
ROUND_TRIP_SIZE = 1 << 10
BULK, BULK_SIZE = "256 KiB", SIZES["256 KiB"]
DELAY = 0.05
SOCKETS_AT_ONCE = 8


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int = 5
    sizes: tuple[str, ...] = tuple(SIZES)
    seconds: float = 1.0
    """Traffic of a throughput."""
    round_trips: int = 2000
    round_trips_within: float = 10.0
    """Seconds after which a way has made enough round trips, however few."""
    busy_seconds: float = 2.0
    delay_warm_up: float = 3.0
    """Traffic over a link with a delay that is not counted: windows grow by round trips."""
    delay_seconds: float = 2.0
    sockets: int = 1000
    idle_seconds: float = 2.0
    patience: float = 15.0
    """Seconds in which a way may try again and again to open a tunnel."""
    limit: float = float("inf")
    """Seconds of the whole run after which what is left is left out."""


QUICK = Scale(
    rounds=1,
    sizes=("1 KiB", "256 KiB"),
    seconds=0.3,
    round_trips=500,
    round_trips_within=2.0,
    busy_seconds=0.5,
    delay_warm_up=1.5,
    delay_seconds=0.7,
    sockets=300,
    idle_seconds=1.0,
    patience=2.0,
    limit=98.0,
)


class Part(ABC):
    """One kind of measurement, in cells that are compared each for itself."""

    name: ClassVar[str]

    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    @abstractmethod
    def cells(self) -> list[str]:
        """Return the names of the cells."""

    def ways(self, cell: str) -> tuple[str, ...]:
        """Return the names of the ways that are measured, in turns."""
        return BESIDE_SSH

    def missing(self, cell: str, way: str) -> str | None:
        """Return why a way cannot be measured, or `None`."""
        return ALL_WAYS[way].missing()

    @abstractmethod
    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        """Take one measurement, and return its figures."""


class Throughput(Part):
    """MB/s at the receiver, and CPU seconds per GB of the tunnel's own processes."""

    name = "throughput"

    def cells(self) -> list[str]:
        return [f"{size} {direction}" for size in self.scale.sizes for direction in DIRECTIONS]

    def ways(self, cell: str) -> tuple[str, ...]:
        # That one is there for its CPU time only.
        return tuple(w for w in ALL_WAYS if w != SSHProgramGCM.name or cell.startswith(BULK))

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        size, _, direction = cell.rpartition(" ")
        return site.throughput(way, SIZES[size], direction, seconds=self.scale.seconds)


class RoundTrip(Part):
    """Microseconds from a request of 1 KiB to its reply."""

    name = "round trip"

    def cells(self) -> list[str]:
        return ["1 KiB"]

    def ways(self, cell: str) -> tuple[str, ...]:
        return tuple(way for way in ALL_WAYS if way != SSHProgramGCM.name)

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        count, within = self.scale.round_trips, self.scale.round_trips_within
        return site.round_trips(way, ROUND_TRIP_SIZE, count, within=within)


class Busy(Part):
    """The same while a thread of the program computes in pure Python."""

    name = "busy"
    ROUND_TRIP = "1 KiB round trip"

    def cells(self) -> list[str]:
        return [f"{BULK} up", f"{BULK} down", self.ROUND_TRIP]

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        seconds = self.scale.busy_seconds
        if cell == self.ROUND_TRIP:
            count = self.scale.round_trips
            return site.round_trips(way, ROUND_TRIP_SIZE, count, within=seconds, busy=True)
        direction = cell.rpartition(" ")[2]
        return site.throughput(way, BULK_SIZE, direction, seconds=seconds, busy=True)


class Delayed(Part):
    """Throughput where the way to the server takes 50 ms, and the way back."""

    name = "delay"

    def cells(self) -> list[str]:
        return [f"{BULK} down", f"{BULK} up"]

    def ways(self, cell: str) -> tuple[str, ...]:
        return (Direct.name, *BESIDE_SSH)  # the first shows what the relay itself can do

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        return site.throughput(
            way,
            BULK_SIZE,
            cell.rpartition(" ")[2],
            seconds=self.scale.delay_seconds,
            warm_up=self.scale.delay_warm_up,
            delay=DELAY,
        )


class FirstReply(Part):
    """From the start of a fresh program to its first reply."""

    name = "first reply"

    def cells(self) -> list[str]:
        return ["fresh program"]

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        return {"seconds": first_reply.measure(way, site.server)}


class Scaling(Part):
    """Many sockets over one login."""

    name = "sockets"

    def cells(self) -> list[str]:
        return [f"{self.scale.sockets:,} sockets"]

    def ways(self, cell: str) -> tuple[str, ...]:
        return (OURS, OURS_OPENSSH)

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        with site.program(Direct.name) as peer, site.program(way) as program:
            [addr] = peer.ask("bind", kind="ROUTER", size=ROUND_TRIP_SIZE)
            peer.begin("echo")
            count = self.scale.sockets
            rate = program.ask("many", MEASURED_WITHIN, addr=addr, count=count)
            tunnel = program.processes()
            memory = sum(process.memory_info().rss for process in tunnel)
            spent, start = cpu_seconds(tunnel), time.perf_counter()
            time.sleep(self.scale.idle_seconds)  # what it costs to have them lie there
            idle = (cpu_seconds(tunnel) - spent) / (time.perf_counter() - start)
            return {"sockets": count, "rate": rate, "memory": memory, "idle": idle}


class Connections(Part):
    """Sockets at once, over one SSH connection and spread over two."""

    name = "connections"
    WAYS: ClassVar[dict[str, dict[str, Any]]] = {
        "connections=1": {},
        "connections=2": {"connections": 2},
    }

    def cells(self) -> list[str]:
        return [f"{SOCKETS_AT_ONCE} sockets, {BULK} {direction}" for direction in DIRECTIONS]

    def ways(self, cell: str) -> tuple[str, ...]:
        return tuple(self.WAYS)

    def missing(self, cell: str, way: str) -> str | None:
        return Tunneledzmq.missing(**self.WAYS[way])

    def measure(self, site: Site, cell: str, way: str) -> dict[str, Any]:
        return site.throughput(
            OURS,
            BULK_SIZE,
            cell.rpartition(" ")[2],
            seconds=self.scale.seconds,
            sockets=SOCKETS_AT_ONCE,
            **self.WAYS[way],
        )


PARTS: dict[str, type[Part]] = {
    part.name.replace(" ", "-"): part
    for part in (FirstReply, Scaling, RoundTrip, Busy, Delayed, Connections, Throughput)
}
