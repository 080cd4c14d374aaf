"""The peer is not there yet, or not any more: connects fail, and no connection breaks."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter

import psutil
import pytest
import zmq

from tests.differential.conftest import Both, Side
from tests.differential.monitors import listen
from tests.differential.observing import attempt, events, heard, received, soon
from tests.logins import options_for
from tests.sshd import OpenSSHServer


def test_a_sub_that_does_not_call_in_has_subscribed_when_its_peer_comes(both: Both) -> None:
    def program(side: Side) -> int:
        address = side.address()
        sub = side.socket(zmq.SUB)
        sub.subscribe(b"")
        sub.connect(address)
        time.sleep(1)
        pub = side.peer(zmq.XPUB, address)
        heard(pub)
        for number in range(100):
            pub.send(b"%d" % number)
        return len(received(sub, 100))

    both.same(program, 100)


def test_a_sub_that_does_not_call_in_keeps_its_subscription_over_a_long_wait(both: Both) -> None:
    def program(side: Side) -> tuple[bool, bytes]:
        address = side.address()
        sub = side.socket(zmq.SUB, RECONNECT_IVL=10)
        sub.subscribe(b"")
        sub.connect(address)
        time.sleep(3)
        pub = side.peer(zmq.XPUB, address)
        asked = heard(pub)
        pub.send(b"at last")
        return asked, sub.recv() if sub.poll(500) else b""

    both.same(program, (True, b"at last"))


def test_what_an_xsub_sends_upstream_waits_for_its_peer(both: Both) -> None:
    def program(side: Side) -> list[bytes]:
        address = side.address()
        xsub = side.socket(zmq.XSUB)
        xsub.connect(address)
        for number in range(5):
            xsub.send(b"up %d" % number)
        time.sleep(0.5)
        return received(side.peer(zmq.XPUB, address), 5, quiet=2)

    both.same(program, [b"up %d" % number for number in range(5)])


def test_early_data_of_a_stream_waits_for_its_peer(both: Both) -> None:
    def program(side: Side) -> bytes:
        address = side.address()
        stream = side.socket(zmq.STREAM, CONNECT_ROUTING_ID=b"peer")
        stream.connect(address)
        stream.send_multipart([b"peer", b"early data"])
        time.sleep(0.5)
        host, _, port = address[len("tcp://") :].rpartition(":")
        with socket.create_server((host, int(port))) as listener:
            listener.settimeout(3)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(2)
                try:
                    return connection.recv(100)
                except TimeoutError:
                    return b""

    both.same(program, b"early data")


def test_a_stream_is_not_notified_of_what_was_no_connection(both: Both) -> None:
    def program(side: Side) -> int:
        stream = side.socket(zmq.STREAM, CONNECT_ROUTING_ID=b"peer")
        stream.connect(side.address())
        time.sleep(2)
        return len(received(stream, quiet=0))

    both.same(program, 0)


def test_a_sub_hears_of_later_topics_after_many_changes_without_a_peer(both: Both) -> None:
    def program(side: Side) -> list[bytes]:
        address = side.address()
        sub = side.socket(zmq.SUB, RECONNECT_IVL=10)
        sub.connect(address)
        for number in range(400):
            sub.subscribe(b"%d" % number)
            sub.unsubscribe(b"%d" % number)
            if not number % 50:
                time.sleep(0.02)
        pub = side.peer(zmq.PUB, address)
        time.sleep(0.5)
        sub.subscribe(b"late")
        time.sleep(0.5)
        pub.send(b"late")
        return received(sub, 1, quiet=1)

    both.same(program, [b"late"])


def test_events_while_there_is_no_peer(both: Both) -> None:
    def program(side: Side) -> set[zmq.Event]:
        sock = side.socket(zmq.DEALER, RECONNECT_IVL=20)
        monitor = listen(sock)
        sock.connect(side.address())
        return set(events(monitor, quiet=0.5, seconds=1))

    both.same(program, {zmq.Event.CLOSED, zmq.Event.CONNECT_RETRIED})


def test_events_when_a_peer_restarts(both: Both) -> None:
    def program(side: Side) -> list[str]:
        address = side.address()
        sock = side.socket(zmq.DEALER, RECONNECT_IVL=20)
        monitor = listen(sock)
        peer = side.peer(zmq.ROUTER, address)
        sock.connect(address)
        seen = events(monitor, quiet=0.5)
        peer.close()
        time.sleep(0.5)
        side.peer(zmq.ROUTER, address)
        seen += events(monitor, quiet=0.5)
        retries = (zmq.Event.CONNECT_RETRIED, zmq.Event.CLOSED)
        return [str(event.name) for event in seen if event not in retries]

    connected = ["CONNECTED", "HANDSHAKE_SUCCEEDED"]
    both.same(program, [*connected, "DISCONNECTED", *connected])


def test_reconnect_ivl_max_paces_the_retries(both: Both) -> None:
    def program(side: Side) -> int:
        sock = side.socket(zmq.PUSH, RECONNECT_IVL=50, RECONNECT_IVL_MAX=2000)
        monitor = listen(sock)
        sock.connect(side.address())
        time.sleep(4)
        return Counter(events(monitor, quiet=0))[zmq.Event.CONNECT_RETRIED]

    direct, tunnelled = both(program)
    assert 4 <= direct <= 8
    assert abs(tunnelled - direct) <= 2


@pytest.mark.parametrize(
    ("interval", "longest"), [(50, 2000), (1000, 0)], ids=["growing", "constant"]
)
def test_the_server_is_asked_for_channels_as_often_as_a_peer_would_be(
    need_sshd: None, interval: int, longest: int
) -> None:
    """Plain TCP tries it 5 to 8 times in 4 s, or 3 to 5 times."""
    with OpenSSHServer() as server:

        def program(side: Side) -> int:
            sock = side.socket(zmq.PUSH, RECONNECT_IVL=interval, RECONNECT_IVL_MAX=longest)
            monitor = listen(sock)
            sock.connect(side.address())
            time.sleep(4)
            if side.tunnelled:
                return len(re.findall(rf"connect_to {side.host} port \d+: failed", server.log()))
            return 1 + Counter(events(monitor, quiet=0))[zmq.Event.CONNECT_RETRIED]

        direct, tunnelled = Both(options_for(server))(program)
    assert 2 <= direct <= 9
    assert 1 <= tunnelled <= direct + 3


def test_a_peer_that_hangs_up_is_tried_again_as_often(both: Both) -> None:
    def program(side: Side) -> int:
        address = side.address()
        host, _, port = address[len("tcp://") :].rpartition(":")
        connections = 0
        with socket.create_server((host, int(port))) as listener:

            def hang_up() -> None:
                nonlocal connections
                while True:
                    try:
                        listener.accept()[0].close()
                    except OSError:
                        return
                    connections += 1

            thread = threading.Thread(target=hang_up)
            thread.start()
            side.socket(zmq.PUSH, RECONNECT_IVL=200).connect(address)
            time.sleep(3)
            side.ctx.destroy(linger=0)
            counted = connections
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
        return counted

    direct, tunnelled = both(program)
    assert 6 <= direct <= 16
    assert direct / 2 <= tunnelled <= direct * 1.5


@pytest.mark.parametrize("interval", [-1, 0])
def test_a_peer_that_comes_late_is_not_found_without_a_reconnect_ivl(
    both: Both, interval: int
) -> None:
    def program(side: Side) -> tuple[str, bool, int]:
        address = side.address()
        sock = side.socket(zmq.PUSH, RECONNECT_IVL=interval)
        monitor = listen(sock)
        sock.connect(address)
        time.sleep(0.5)
        peer = side.peer(zmq.PULL, address)
        sent = attempt(sock.send, b"hello", zmq.DONTWAIT)
        retries = Counter(events(monitor, quiet=0.5))[zmq.Event.CONNECT_RETRIED]
        return sent, bool(peer.poll(1000)), retries

    both.same(program, ("ok", False, 0))


@pytest.mark.parametrize("interval", [-1, 0])
def test_a_peer_that_has_restarted_is_lost_without_a_reconnect_ivl(
    both: Both, interval: int
) -> None:
    def program(side: Side) -> tuple[bytes, bool]:
        address = side.address()
        peer = side.peer(zmq.PULL, address)
        sock = side.socket(zmq.PUSH, RECONNECT_IVL=interval)
        sock.connect(address)
        sock.send(b"hello")
        first = peer.recv()
        peer.close()
        time.sleep(0.5)
        peer = side.peer(zmq.PULL, address)
        attempt(sock.send, b"hello", zmq.DONTWAIT)
        return first, bool(peer.poll(1000))

    both.same(program, (b"hello", False))


def test_a_message_waits_for_a_peer_that_is_immediate_or_not(both: Both) -> None:
    def program(side: Side) -> list[str]:
        address = side.address()
        seen = []
        for immediate in (0, 1):
            sock = side.socket(zmq.PUSH, IMMEDIATE=immediate, SNDTIMEO=300, RECONNECT_IVL=20)
            sock.connect(address)
            try:
                sock.send(b"hello")
                seen.append("taken")
            except zmq.Again:
                seen.append("not taken")
        return seen

    both.same(program, ["taken", "not taken"])


def _memory() -> int:
    memory: int = psutil.Process().memory_info().rss
    return memory


def test_a_program_does_not_grow_while_it_waits(both: Both) -> None:
    def program(side: Side) -> int:
        for _ in range(10):
            sub = side.socket(zmq.SUB, RECONNECT_IVL=10)
            sub.subscribe(b"")
            sub.connect(side.address())
        time.sleep(1)
        before = _memory()
        time.sleep(4)
        return _memory() - before

    direct, tunnelled = both(program)
    assert tunnelled < max(0, direct) + 2_000_000


def test_a_request_is_answered_by_a_peer_that_comes_late(both: Both) -> None:
    def program(side: Side) -> bytes:
        address = side.address()
        req = side.socket(zmq.REQ)
        req.connect(address)
        req.send(b"hello")
        time.sleep(0.5)
        rep = side.peer(zmq.REP, address)
        rep.send(rep.recv())
        return req.recv()

    both.same(program, b"hello")


def test_a_peer_that_is_gone_is_noticed(both: Both) -> None:
    def program(side: Side) -> bool:
        address = side.address()
        peer = side.peer(zmq.PULL, address)
        sock = side.socket(zmq.PUSH, IMMEDIATE=1, SNDTIMEO=0)
        sock.connect(address)
        assert sock.poll(3000, zmq.POLLOUT)
        peer.close()
        return soon(lambda: not sock.poll(0, zmq.POLLOUT))

    both.same(program, True)
