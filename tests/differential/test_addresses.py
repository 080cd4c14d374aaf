"""What an address means to connect and disconnect, and what is refused."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.differential.conftest import Both, Side
from tests.differential.monitors import Monitor
from tests.differential.observing import attempt, received, soon
from tests.differential.run import error
from tests.differential.ways import Direct, OwnSession
from tunneledzmq import SSHOptions

PEERS = {
    "SUB": "XPUB",
    "PUB": "SUB",
    "DEALER": "ROUTER",
    "REQ": "ROUTER",
    "PUSH": "PULL",
    "PULL": "PUSH",
    "ROUTER": "DEALER",
    "REP": "DEALER",
    "XSUB": "XPUB",
    "XPUB": "SUB",
    "STREAM": "STREAM",
}

SINGLE = {"SUB", "PUB", "DEALER", "REQ"}
"""For which libzmq takes a second connect to the same endpoint for the first one."""


class Counted:
    """A peer that tells how many connections it has."""

    def __init__(self, side: Side, kind: str, address: str) -> None:
        self.sock = side.peer(getattr(zmq, kind), address)
        self._monitor = Monitor(self.sock, raw=kind == "STREAM")

    def connections(self) -> int:
        self._monitor.read()
        return sum(self._monitor.live().values())

    def settled(self, expected: int) -> int:
        """Return how many it has when it had time to have as many as expected, or more."""
        soon(lambda: self.connections() == expected, timeout=2)
        time.sleep(0.2)
        return self.connections()


@pytest.mark.parametrize("kind", PEERS)
def test_a_second_connect_to_the_same_address(both: Both, kind: str) -> None:
    expected = 1 if kind in SINGLE else 2

    def program(side: Side) -> int:
        sock = side.socket(getattr(zmq, kind))
        address = side.address()
        peer = Counted(side, PEERS[kind], address)
        for _ in range(2):
            sock.connect(address)
        return peer.settled(expected)

    both.same(program, expected)


def test_a_sub_that_is_connected_twice_gets_each_message_once(both: Both) -> None:
    def program(side: Side) -> list[bytes]:
        address = side.address()
        pub = Counted(side, "XPUB", address)
        sub = side.socket(zmq.SUB)
        sub.subscribe(b"")
        for _ in range(2):
            sub.connect(address)
        pub.settled(1)
        for number in range(5):
            pub.sock.send(b"%d" % number)
        return received(sub)

    both.same(program, [b"%d" % number for number in range(5)])


def test_a_pub_that_is_connected_twice_publishes_once(both: Both) -> None:
    def program(side: Side) -> list[bytes]:
        address = side.address()
        sub = Counted(side, "SUB", address)
        sub.sock.subscribe(b"")
        pub = side.socket(zmq.PUB)
        for _ in range(2):
            pub.connect(address)
        sub.settled(1)
        sub.sock.getsockopt(zmq.EVENTS)  # a call into it, with which it subscribes
        time.sleep(0.3)
        for number in range(5):
            pub.send(b"%d" % number)
        return received(sub.sock)

    both.same(program, [b"%d" % number for number in range(5)])


@pytest.mark.parametrize("routing_id", [None, b"me"], ids=["anonymous", "named"])
def test_a_dealer_that_is_connected_twice_loses_nothing(
    both: Both, routing_id: bytes | None
) -> None:
    def program(side: Side) -> tuple[int, int]:
        address = side.address()
        router = Counted(side, "ROUTER", address)
        dealer = side.socket(zmq.DEALER)
        if routing_id is not None:
            dealer.routing_id = routing_id
        for _ in range(2):
            dealer.connect(address)
        router.settled(1)
        for number in range(20):
            dealer.send(b"%d" % number)
        senders = set()
        while router.sock.poll(500):
            sender, message = router.sock.recv_multipart()
            senders.add(sender)
            router.sock.send_multipart([sender, message])
        return len(received(dealer)), len(senders)

    both.same(program, (20, 1))


@pytest.mark.parametrize("kind", ["DEALER", "SUB", "PUSH", "PULL", "XSUB"])
def test_disconnect_drops_all_connections_to_an_address(both: Both, kind: str) -> None:
    def program(side: Side) -> tuple[list[str], int]:
        address = side.address()
        peer = Counted(side, PEERS[kind], address)
        sock = side.socket(getattr(zmq, kind))
        for _ in range(2):
            sock.connect(address)
        peer.settled(1 if kind in SINGLE else 2)
        disconnects = [attempt(sock.disconnect, address) for _ in range(3)]

        def gone() -> bool:
            sock.getsockopt(zmq.EVENTS)
            return not peer.connections()

        soon(gone, timeout=2)
        return disconnects, peer.connections()

    both.same(program, (["ok", "ZMQError(ENOENT)", "ZMQError(ENOENT)"], 0))


def test_a_dealer_connects_again_after_a_disconnect(both: Both) -> None:
    def program(side: Side) -> list[bytes]:
        address = side.address()
        router = Counted(side, "ROUTER", address)
        dealer = side.socket(zmq.DEALER)
        for _ in range(3):
            dealer.connect(address)
            dealer.connect(address)
            dealer.disconnect(address)
        dealer.connect(address)
        dealer.send(b"hello")
        return received(router.sock)

    both.same(program, [b"hello"])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1:+7000",
        "tcp://127.0.0.1:7000 ",
        "tcp://127.0.0.1:7000/x",
        "tcp://127.0.0.1:*",
        "tcp://*:7000",
        "tcp://a b:7000",
        "tcp://-x:7000",
        "tcp:/127.0.0.1:7000",
        "tcp//127.0.0.1:7000",
        "TCP://127.0.0.1:7000",
        "nonsense://127.0.0.1:7000",
    ],
)
def test_what_libzmq_refuses(both: Both, address: str) -> None:
    def program(side: Side) -> tuple[str, str]:
        sock = side.socket(zmq.DEALER)
        return attempt(sock.connect, address), attempt(sock.disconnect, address)

    both.alike(program)


@pytest.mark.parametrize("address", ["tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:port"])
def test_a_malformed_address_is_a_value_error_too(both: Both, address: str) -> None:
    def program(side: Side) -> str:
        sock = side.socket(zmq.DEALER)
        with pytest.raises(zmq.ZMQError) as caught:
            sock.connect(address)
        assert caught.value.errno == zmq.EINVAL
        assert isinstance(caught.value, ValueError) == side.tunnelled
        return error(caught.value)

    both.same(program, "ZMQError(EINVAL)")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:00007000",
        "tcp://127.0.0.1:0;127.0.0.1:7000",
        "tcp://127.0.0.1;127.0.0.1:7000",
        "tcp://lo;127.0.0.1:7000",
        "tcp://::1:7000",
        "tcp://[::1]:7000",
        "tcp://127.1:7000",
        "tcp://under_score:7000",
        "tcp://no.such.name.invalid:7000",
    ],
)
def test_what_libzmq_takes(both: Both, address: str) -> None:
    def program(side: Side) -> tuple[str, str]:
        sock = side.socket(zmq.DEALER)
        return attempt(sock.connect, address), attempt(sock.disconnect, address)

    both.same(program, ("ok", "ok"))


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:7000x", "tcp://:7000"],
)
def test_what_libzmq_takes_and_never_connects_is_an_error(both: Both, address: str) -> None:
    def program(side: Side) -> str:
        return attempt(side.socket(zmq.DEALER).connect, address)

    assert both(program) == ("ok", "ZMQError(EINVAL)")


@pytest.mark.parametrize("way", ["source", "bare IPv6"])
def test_unusual_addresses_lead_to_the_peer(both: Both, way: str) -> None:
    def program(side: Side) -> bytes:
        address = side.address()
        there = address[len("tcp://") :]
        if way == "bare IPv6":
            peer = side.peer(zmq.PULL, "tcp://[::1]:*", IPV6=1)
            bound = peer.getsockopt_string(zmq.LAST_ENDPOINT)
            there = f"::1:{bound.rpartition(':')[2]}"
        else:
            peer = side.peer(zmq.PULL, address)
        source = "127.0.0.1:0;" if way == "source" else ""
        sock = side.socket(zmq.PUSH, IPV6=int(way == "bare IPv6"))
        sock.connect(f"tcp://{source}{there}")
        sock.send(b"hello")
        return peer.recv()

    both.same(program, b"hello")


@pytest.mark.parametrize(
    ("connected", "disconnected"),
    [
        ("127.0.0.1:0555", "127.0.0.1:0555"),
        ("127.0.0.1:555", "127.0.0.1:0555"),
        ("127.0.0.1:0555", "127.0.0.1:555"),
        ("localhost:555", "localhost:555"),
        ("localhost:555", "127.0.0.1:555"),
        ("127.1:555", "127.0.0.1:555"),
        ("127.0.0.1:555", "127.0.0.1:556"),
    ],
)
def test_disconnect_by_another_spelling(both: Both, connected: str, disconnected: str) -> None:
    def program(side: Side) -> list[str]:
        sock = side.socket(zmq.DEALER)
        sock.connect(f"tcp://{connected}")
        return [attempt(sock.disconnect, f"tcp://{disconnected}") for _ in range(2)]

    both.alike(program)


def test_disconnect_of_what_was_never_connected(both: Both) -> None:
    def program(side: Side) -> list[str]:
        sock = side.socket(zmq.DEALER)
        sock.connect(side.address())
        unknown = [side.address(), "tcp://127.0.0.1:0555", "ipc:///nowhere", "nonsense", ""]
        return [attempt(sock.disconnect, address) for address in unknown]

    both.alike(program)


def test_errors_of_closed_sockets(both: Both) -> None:
    def program(side: Side) -> list[tuple[str, str]]:
        sock = side.socket(zmq.DEALER)
        sock.connect("tcp://127.0.0.1:7000")
        sock.close()
        seen = []
        calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (sock.connect, ("tcp://127.0.0.1:7000",)),
            (sock.disconnect, ("tcp://127.0.0.1:7000",)),
            (sock.bind, ("tcp://127.0.0.1:7000",)),
            (sock.send, (b"hello",)),
            (sock.recv, ()),
            (sock.poll, (0,)),
            (sock.getsockopt, (zmq.EVENTS,)),
            (sock.connect, ("nonsense",)),
        ]
        for call, args in calls:
            with pytest.raises(zmq.ZMQError) as caught:
                call(*args)
            seen.append((error(caught.value), str(caught.value)))
        return seen

    both.alike(program)


def test_errors_of_a_context_that_has_ended(both: Both) -> None:
    def program(side: Side) -> list[str]:
        sock = side.socket(zmq.DEALER)
        side.ctx.destroy(linger=0)
        return [attempt(sock.connect, "tcp://127.0.0.1:7000"), attempt(side.ctx.socket, zmq.REQ)]

    both.alike(program)


def test_the_peer_address_of_a_frame_is_an_ip_address(openssh_options: SSHOptions) -> None:
    """With a local leg of TCP, for programs that parse it."""

    def program(side: Side) -> str:
        address = side.address()
        peer = side.peer(zmq.PUSH, address)
        sock = side.socket(zmq.PULL)
        sock.connect(address)
        peer.send(b"hello")
        frame = sock.recv(copy=False)
        return type(ipaddress.ip_address(frame["Peer-Address"])).__name__

    way = OwnSession(openssh_options, local="tcp://127.0.0.1:*")
    assert Both.run(program, way) == Both.run(program, Direct()) == "IPv4Address"
