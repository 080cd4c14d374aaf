"""The picture for real: a client, a bastion, and a peer that only the bastion reaches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"),
    reason="network namespaces need Linux, root and ip (apt-get install iproute2)",
)

BASTION = "10.0.0.1"
CLIENT = "10.0.0.2"
GATEWAY = "10.0.1.1"
INNER = "10.0.1.2"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Network:
    """The names of its namespaces."""

    client: str
    bastion: str
    inner: str

    @staticmethod
    def within(namespace: str) -> list[str]:
        """Return the words that run a command there."""
        return ["ip", "netns", "exec", namespace]

    def create(self) -> None:
        for namespace in (self.client, self.bastion, self.inner):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        self._link(self.client, CLIENT, self.bastion, BASTION)
        self._link(self.bastion, GATEWAY, self.inner, INNER)

    def remove(self) -> None:
        for namespace in (self.client, self.bastion, self.inner):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    @staticmethod
    def _link(one: str, one_address: str, other: str, other_address: str) -> None:
        ends = (f"to-{other}"[-15:], f"to-{one}"[-15:])
        ip("link", "add", ends[0], "netns", one, "type", "veth", "peer", ends[1], "netns", other)
        for namespace, end, address in (
            (one, ends[0], one_address),
            (other, ends[1], other_address),
        ):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", namespace, "link", "set", end, "up")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    mark = f"tz{os.getpid()}"
    network = Network(f"{mark}-c", f"{mark}-b", f"{mark}-i")
    try:
        try:
            network.create()
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"no network namespaces here: {exc.stderr}")
        yield network
    finally:
        network.remove()


@pytest.fixture(scope="module")
def bastion(need_sshd: None, network: Network) -> Iterator[OpenSSHServer]:
    with OpenSSHServer(host=BASTION, prefix=network.within(network.bastion)) as server:
        yield server


@pytest.fixture(scope="module")
def inner(network: Network) -> Iterator[Peer]:
    with Peer("echo", host=INNER, prefix=network.within(network.inner)) as peer:
        yield peer


def test_the_peer_is_out_of_reach_without_the_bastion(network: Network, inner: Peer) -> None:
    output = run_program(
        """
        import socket
        try:
            socket.create_connection((host, port), timeout=2)
        except OSError:
            print("out of reach")
        """,
        prefix=network.within(network.client),
        host=INNER,
        port=inner.port,
    )
    assert output == "out of reach\n"


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_the_peer_answers_through_the_bastion(
    network: Network, bastion: OpenSSHServer, inner: Peer, isolate: bool
) -> None:
    output = run_program(
        """
        with TunneledContext(isolate=isolate) as ctx, ctx.socket(zmq.REQ) as sock:
            sock.rcvtimeo = 10_000
            sock.connect(addr, ssh=options)
            for number in range(100):
                sock.send(b"%d" % number)
                assert sock.recv() == b"%d" % number
            print(sock.tunnels[0].server, sock.tunnels[0].remote)
        """,
        prefix=network.within(network.client),
        options=arguments_for(bastion),
        addr=inner.address,
        isolate=isolate,
    )
    assert output.split() == [bastion.server, inner.address]
