"""What pyzmq has beyond sockets, with tunneled ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.decorators import socket
from zmq.utils.monitor import recv_monitor_message

from tests.logins import arguments_for
from tests.peers import Peer, round_trip
from tests.programs import run_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket

PACKAGES = ["tornado"]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, tuple[bytes, bytes]]:
    """Public and secret keys; those of the client are let in."""
    found = {}
    for name in ("server", "client", "stranger"):
        _, path = zmq.auth.create_certificates(tmp_path, name)
        public, secret = zmq.auth.load_certificate(path)
        assert secret
        found[name] = public, secret
    (tmp_path / "welcome").mkdir()
    (tmp_path / "client.key").rename(tmp_path / "welcome" / "client.key")
    return found


@pytest.fixture
def encrypted_echo(keys: dict[str, tuple[bytes, bytes]], tmp_path: Path) -> Iterator[str]:
    """The address of an echo that lets nobody in but the client."""
    with zmq.Context() as ctx:
        guard = ThreadAuthenticator(ctx)
        guard.start()
        guard.configure_curve(domain="*", location=str(tmp_path / "welcome"))
        with ctx.socket(zmq.REP) as rep:
            rep.linger = 0
            rep.curve_publickey, rep.curve_secretkey = keys["server"]
            rep.curve_server = True
            port = rep.bind_to_random_port("tcp://127.0.0.1")
            done = threading.Event()

            def serve() -> None:
                while not done.is_set():
                    if rep.poll(20):
                        rep.send(rep.recv())

            server = threading.Thread(target=serve)
            server.start()
            yield f"tcp://127.0.0.1:{port}"
            done.set()
            server.join()
        guard.stop()


def events_of(monitor: zmq.Socket[bytes], last: zmq.Event) -> list[zmq.Event]:
    """Receive a monitor's events up to `last`."""
    events: list[zmq.Event] = []
    while last not in events:
        assert monitor.poll(10_000), events
        events.append(recv_monitor_message(monitor)["event"])
    return events


def test_curve_keys_are_checked_end_to_end(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    keys: dict[str, tuple[bytes, bytes]],
    encrypted_echo: str,
) -> None:
    for name, outcome in (
        ("client", zmq.Event.HANDSHAKE_SUCCEEDED),
        ("stranger", zmq.Event.HANDSHAKE_FAILED_AUTH),
    ):
        sock = ctx.socket(zmq.REQ)
        sock.curve_publickey, sock.curve_secretkey = keys[name]
        sock.curve_serverkey = keys["server"][0]
        monitor = sock.get_monitor_socket()
        sock.connect(encrypted_echo, ssh=openssh_options)
        events_of(monitor, outcome)
        if name == "client":
            round_trip(sock)
        sock.disable_monitor()
        monitor.close()


def test_a_monitor_sees_connections_come_and_go(
    ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    monitor = sock.get_monitor_socket()
    sock.connect(echo.address, ssh=openssh_options)
    assert zmq.Event.CONNECTED in events_of(monitor, zmq.Event.HANDSHAKE_SUCCEEDED)
    openssh.kill_sessions()
    events_of(monitor, zmq.Event.DISCONNECTED)
    events_of(monitor, zmq.Event.HANDSHAKE_SUCCEEDED)
    round_trip(sock)
    sock.disable_monitor()
    monitor.close()


def test_a_decorated_function_gets_a_tunneled_socket(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    @socket(zmq.REQ)
    def ask(context: TunneledContext, sock: TunneledSocket) -> tuple[str, bytes]:
        sock.connect(echo.address)
        sock.send(b"hello")
        return sock.tunnels[0].remote, sock.recv()

    with TunneledContext(ssh=openssh_options) as context:
        assert ask(context) == (echo.address, b"hello")


def test_a_program_may_have_its_own_context_and_socket(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    class CountingSocket(TunneledSocket):
        sent = 0

        def send(self, *args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            return super().send(*args, **kwargs)

    class OwnContext(TunneledContext):
        _socket_class = CountingSocket

        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.__dict__["name"] = name

    with OwnContext("mine", ssh=openssh_options) as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address)
        round_trip(sock)
        assert (ctx.name, sock.sent, len(ctx.tunnels)) == ("mine", 1, 1)


def test_a_device_connects_through_the_server(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
        from zmq.devices import ThreadProxy

        ctx = TunneledContext(ssh=options)
        proxy = ThreadProxy(zmq.ROUTER, zmq.DEALER)
        proxy.context_factory = lambda: ctx
        port = proxy.bind_in_to_random_port("tcp://127.0.0.1")
        proxy.connect_out(addr)
        proxy.start()
        with zmq.Context() as plain, plain.socket(zmq.REQ) as sock:
            sock.rcvtimeo = 10_000
            sock.connect(f"tcp://127.0.0.1:{port}")
            for number in range(10):
                sock.send(b"%d" % number)
                assert sock.recv() == b"%d" % number
        [tunnel] = ctx.tunnels
        print(tunnel.remote, tunnel.stats().connections_open)
        ctx.term()
        proxy.join(10)
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.split() == [echo.address, "1"]


def test_a_stream_of_an_event_loop_is_tunneled(
    need: None, openssh: OpenSSHServer, echo: Peer
) -> None:
    output = run_program(
        """
        import asyncio
        from zmq.eventloop.zmqstream import ZMQStream

        async def main():
            with TunneledContext(ssh=options) as ctx:
                sock = ctx.socket(zmq.DEALER)
                sock.connect(addr)
                stream = ZMQStream(sock)
                answers = []
                done = asyncio.Event()

                def on_answer(frames):
                    answers.append(int(frames[-1]))
                    if len(answers) == 100:
                        done.set()

                stream.on_recv(on_answer)
                for number in range(100):
                    stream.send_multipart([b"", b"%d" % number])
                await asyncio.wait_for(done.wait(), 10)
                print(answers == list(range(100)), len(ctx.tunnels))
                stream.close()

        asyncio.run(main())
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.split() == ["True", "1"]
