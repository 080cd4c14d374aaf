"""The picture for real: a client, a bastion, and a peer that only the bastion reaches."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.logins import arguments_for
from tests.network import BASTION, INNER, POSSIBLE, Network, private_network
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer

pytestmark = pytest.mark.skipif(
    not POSSIBLE,
    reason="network namespaces need Linux, root and ip (apt-get install iproute2)",
)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        with private_network("") as network:
            yield network
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no network namespaces here: {exc.stderr}")


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
