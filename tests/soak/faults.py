"""What happens to the two sides and to what is between them, by name."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import zmq

from tests.draining import SIZE
from tests.faults.injection import Relay, kill_server, kill_session, restart, stopped
from tests.leaks import gateways, masters, runtime_directories
from tests.polling import wait_until
from tests.programs import ObedientProgram
from tests.sshd import OpenSSHServer

SERVERS = ("openssh", "closing")


class Faults:
    """The faults of one run.

    Args:
        server: the one that can be killed.
        relays: the links to the servers, by the servers' names.
        near: the program.
        far: its peers.
        ssh: how to log in, by the servers' names.
        rng: what decides.

    """

    def __init__(
        self,
        server: OpenSSHServer,
        relays: dict[str, Relay],
        near: ObedientProgram,
        far: ObedientProgram,
        ssh: dict[str, dict[str, Any]],
        rng: random.Random,
    ) -> None:
        self._server = server
        self._relays = relays
        self._near = near
        self._far = far
        self._ssh = ssh
        self._random = rng
        self._number = 0
        self.breaks: Counter[str] = Counter()
        """Sessions that were broken, by server."""

    # What breaks a session

    def session_killed(self) -> None:
        self._broken("openssh")
        kill_session(self._server)

    def server_killed_and_restarted(self) -> None:
        self._broken("openssh")
        kill_server(self._server)
        self._sleep(0, 2)
        restart(self._server)

    def gateways_killed(self) -> None:
        self._broken(*SERVERS)
        for gateway in gateways():
            gateway.kill()

    def link_cut(self) -> None:
        self._cut(self._random.choice(SERVERS))

    def cut_twice(self) -> None:
        server = self._random.choice(SERVERS)
        self._cut(server)
        self._sleep(0, 0.3)
        self._cut(server)

    def link_swallows_packets(self) -> None:
        self._broken("openssh")
        self._relays["openssh"].lose_connections()
        time.sleep(4)  # until server_alive_* finds it: 1 s, 2 questions

    def program_suspended_while_its_session_dies(self) -> None:
        with stopped(psutil.Process(self._near.pid)):
            self.link_cut()
            self._sleep(0.1, 2)

    def directory_removed(self) -> None:
        for directory in runtime_directories():
            shutil.rmtree(directory, ignore_errors=True)
        self._sleep(0, 1)
        self._cut("openssh")

    # What breaks nothing

    def gateways_suspended(self) -> None:
        with stopped(*gateways(), *masters()):
            self._sleep(0.1, 1)

    def program_suspended(self) -> None:
        with stopped(psutil.Process(self._near.pid)):
            self._sleep(0.1, 3)

    def peers_suspended(self) -> None:
        with stopped(psutil.Process(self._far.pid)):
            self._sleep(0.1, 3)

    def server_suspended(self) -> None:
        with stopped(*self._server.sessions()):
            self._sleep(0.1, 1)

    def link_stands_still(self) -> None:
        relay = self._relays[self._random.choice(SERVERS)]
        relay.hold_packets()
        self._sleep(0.1, 1)
        relay.pass_packets()

    def link_is_slow(self) -> None:
        relay = self._relays[self._random.choice(SERVERS)]
        relay.pass_packets(delay=0.02)
        self._sleep(0.5, 1.5)
        relay.pass_packets()

    # Sockets that live for a moment

    def peer_ends_with_everything_unread(self) -> None:
        """All arrives that has come before the reader wakes, whatever becomes of the session."""
        server, count = self._random.choice(SERVERS), self._random.randint(1, 150)
        name = self._name("unread")
        addr = self._far.tell(f"half.burst({count})")
        hwm = self._random.randint(1, 5)
        self._open(self._near, name, zmq.PULL, addr=addr, ssh=self._ssh[server], hwm=hwm)
        wait_until(lambda: self._far.tell("half.burst_has_ended()"), what=f"{name} has ended")
        wait_until(
            lambda: self._near.tell(f"half.bytes_received({name!r})") >= count * SIZE,
            what=f"{name} has come",
        )
        self._random.choice((self._nothing, self._suspend_something, lambda: self._cut(server)))()
        self._near.do(f"half.go({name!r})")
        self._take_all(self._near, name, count)

    def socket_is_closed_with_everything_unsent(self) -> None:
        """All arrives but what a session had taken that was killed."""
        server, count = self._random.choice(SERVERS), self._random.randint(500, 2000)
        name = self._name("unsent")
        addr = self._open(self._far, name, zmq.PULL, hwm=10)
        self._near.do(f"half.send_and_close({addr!r}, {self._ssh[server]!r}, {count})")
        happens = self._random.choice((self._nothing, self._suspend_something, "cut"))
        if callable(happens):
            happens()
        else:
            with stopped(psutil.Process(self._near.pid)):
                self._cut(server)
                # The peer takes what it has of the old connection before it gets a new one.
                self._far.do(f"half.go({name!r})")
                self._sleep(0.2, 1)
        self._far.do(f"half.go({name!r})")
        self._take_all(self._far, name, count, holes=int(happens == "cut"))

    def _open(self, half: ObedientProgram, name: str, kind: int, **how: Any) -> str:
        how |= {"held": True, "size": SIZE}
        address: str = half.tell(f"half.open({name!r}, {int(kind)}, 'receive', **{how!r})")
        return address

    def _take_all(self, half: ObedientProgram, name: str, count: int, holes: int = 0) -> None:
        def through() -> bool:
            nonlocal report
            report = half.tell("half.report()")[name]
            return bool(report["last"] == count - 1)

        report: dict[str, Any] = {}
        try:
            wait_until(through, timeout=10)
        except AssertionError:
            raise AssertionError(f"{name}: {report['received']} of {count} arrived") from None
        half.do(f"half.close({name!r})")
        wrong = {fault: report[fault] for fault in ("twice", "disordered", "damaged", "failure")}
        assert not any(wrong.values()), f"{name}: {wrong}"
        assert report["holes"] <= holes, f"{name}: {report['received']} of {count} arrived"

    def _name(self, what: str) -> str:
        self._number += 1
        return f"{what} {self._number}"

    # What they are made of

    def _broken(self, *servers: str) -> None:
        self.breaks.update(servers)

    def _cut(self, server: str) -> None:
        self._broken(server)
        self._relays[server].cut_connections()

    def _nothing(self) -> None:
        pass

    def _suspend_something(self) -> None:
        what: Callable[[], None] = self._random.choice(
            (self.gateways_suspended, self.program_suspended, self.peers_suspended)
        )
        what()

    def _sleep(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))


FAULTS = [name for name in vars(Faults) if not name.startswith("_")]
