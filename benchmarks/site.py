"""An SSH server, and the fresh programs on both of its sides that take a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.program import Program
from benchmarks.results import histogram
from benchmarks.ways import Login
from benchmarks.ways.libraries import Direct
from tests.delay import Delay
from tests.sshd import OpenSSHServer

MEASURED_WITHIN = 60


class Site:
    """The SSH server that all ways log in to.

    Args:
        server: the server.
        patience: seconds after which no further try is made to open a tunnel.

    """

    def __init__(self, server: OpenSSHServer, patience: float) -> None:
        self._patience = patience
        self.login = Login(server.user, server.host, server.port, server.keyfile)
        self.server = server

    def program(self, way: str, port: int | None = None, **variant: Any) -> Program:
        """Start a program; it reaches the server at another `port` if one is given."""
        login = replace(self.login, port=port or self.login.port)
        known_hosts = Path(self.server.known_hosts).read_text()
        known_hosts = known_hosts.replace(f":{self.login.port} ", f":{login.port} ")
        settings = {"login": asdict(login), "variant": variant}
        return Program(["benchmarks.traffic", way], settings, known_hosts)

    @contextmanager
    def connected(
        self,
        way: str,
        kinds: tuple[str, str],
        size: int,
        *,
        sockets: int = 1,
        delay: float = 0,
        **variant: Any,
    ) -> Iterator[tuple[Program, Program, dict[str, int]]]:
        """Give a program that is connected through `way` to a peer, the peer, and the tries.

        Args:
            way: its name.
            kinds: the types of the program's and of the peer's sockets.
            size: of the messages, in bytes.
            sockets: how many pairs.
            delay: seconds that it takes to the server, or, without a tunnel, to the peer.
            variant: see `Way`.

        """
        with ExitStack() as stack:
            peer = stack.enter_context(self.program(Direct.name))
            port = None
            if delay and way != Direct.name:
                port = stack.enter_context(Delay(self.login.port, delay)).port
            program = stack.enter_context(self.program(way, port, **variant))
            addrs = peer.ask("bind", kind=kinds[1], size=size, sockets=sockets)
            if delay and way == Direct.name:
                addrs = [stack.enter_context(_delayed(addr, delay)) for addr in addrs]
            request = {"kind": kinds[0], "size": size, "addrs": addrs, "within": self._patience}
            opened = program.ask("connect", self._patience + MEASURED_WITHIN, **request)
            yield program, peer, opened

    def throughput(
        self,
        way: str,
        size: int,
        direction: str,
        *,
        seconds: float,
        warm_up: float = 0,
        busy: bool = False,
        sockets: int = 1,
        delay: float = 0,
        **variant: Any,
    ) -> dict[str, float]:
        """Send messages `"up"` from the program to the peer, or `"down"`, for so many seconds.

        Returns:
            `rate` in MB/s at the receiver, `cpu` in seconds per GB of the tunnel's own processes
            (if there are any), `tries` that the opening took, and what `Traffic.do_receive` says.

        """
        kinds = ("PUSH", "PULL") if direction == "up" else ("PULL", "PUSH")
        with self.connected(way, kinds, size, sockets=sockets, delay=delay, **variant) as (
            program,
            peer,
            opened,
        ):
            if busy:
                program.ask("be_busy")
            sender, receiver = (program, peer) if direction == "up" else (peer, program)
            tunnel = program.processes()
            spent = cpu_seconds(tunnel)
            receiver.begin("receive", size=size, warm_up=warm_up)
            sender.begin("send", size=size, seconds=warm_up + seconds)
            figures: dict[str, float] = receiver.answer(MEASURED_WITHIN)
            if tunnel:
                figures["cpu"] = (cpu_seconds(tunnel) - spent) / (figures["bytes"] / 1e9)
            return {name: float(f"{value:.4g}") for name, value in figures.items()} | opened

    def round_trips(
        self, way: str, size: int, count: int, *, within: float, busy: bool = False
    ) -> dict[str, Any]:
        """Make round trips of messages of `size` bytes; return their `histogram`."""
        with self.connected(way, ("REQ", "REP"), size) as (program, peer, opened):
            if busy:
                program.ask("be_busy")
            peer.begin("echo")
            times = program.ask(
                "round_trips", within + MEASURED_WITHIN, size=size, count=count, within=within
            )
            return {"histogram": histogram(times), **opened}


@contextmanager
def _delayed(addr: str, delay: float) -> Iterator[str]:
    host, _, port = addr.rpartition(":")
    with Delay(int(port), delay) as link:
        yield f"{host}:{link.port}"


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return what the processes have spent, in user and system mode."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))
