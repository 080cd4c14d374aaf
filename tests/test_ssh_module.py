"""zmq.ssh's functions, as tunneledzmq.ssh has them."""

from __future__ import annotations

import asyncio
import copy
import errno
import gc
import inspect
import json
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
import zmq.asyncio
from zmq.ssh import tunnel as original

import tunneledzmq.ssh
from tests.deadline import ending
from tests.logins import arguments_for, options_for
from tests.peers import Peer, free_port, numbered, round_trip
from tests.polling import wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer, generate_key
from tunneledzmq import (
    SSHAuthenticationError,
    SSHConnectionError,
    Tunnel,
    TunneledContext,
    TunneledSocket,
    TunnelError,
    UnknownHostKeyError,
)
from tunneledzmq.ssh import (
    open_tunnel,
    openssh_tunnel,
    paramiko_tunnel,
    select_random_ports,
    ssh_tunnel,
    try_passwordless_ssh,
    tunnel_connection,
)

Remote = Callable[..., Peer]
Gateways = Callable[[], set[psutil.Process]]

FUNCTIONS = [
    "tunnel_connection",
    "open_tunnel",
    "ssh_tunnel",
    "openssh_tunnel",
    "paramiko_tunnel",
    "try_passwordless_ssh",
    "select_random_ports",
]


@pytest.fixture
def login(openssh: OpenSSHServer) -> dict[str, Any]:
    """Keywords that log in to the server."""
    return arguments_for(openssh)


class PlainContext(zmq.Context[zmq.Socket[bytes]]):
    """Pyzmq's own, but that it holds its sockets until its end."""

    _owned: list[zmq.Socket[bytes]] = []  # noqa: RUF012

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        sock = super().socket(*args, **kwargs)
        self._owned = [*self._owned, sock]
        return sock


@pytest.fixture
def plain() -> Iterator[zmq.Context[Any]]:
    """A context of pyzmq's own."""
    with ending(PlainContext()) as context:
        context.rcvtimeo = context.sndtimeo = 10_000
        yield context


def gone(gateways: Gateways, timeout: float = 5) -> None:
    wait_until(lambda: not gateways(), timeout, "the gateways end")


def refuses(url: str) -> bool:
    host, _, port = url[len("tcp://") :].rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == errno.ECONNREFUSED


# Arguments


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_arguments_are_those_of_zmq_ssh(name: str) -> None:
    def arguments(function: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(function).parameters.values()
        return [(one.name, one.default, one.kind) for one in parameters]

    theirs = arguments(getattr(original, name))
    ours = arguments(getattr(tunneledzmq.ssh, name))
    assert ours[: len(theirs)] == theirs
    assert [kind for *_, kind in ours[len(theirs) :]] in ([], [inspect.Parameter.VAR_KEYWORD])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda sock: tunnel_connection(sock, "ipc:///tmp/x", "host"), ValueError),
        (lambda sock: tunnel_connection(sock, "tcp://10.0.0.1", "host"), ValueError),
        (lambda sock: tunnel_connection(sock, "tcp://10.0.0.1:1", ""), ValueError),
        (lambda sock: tunnel_connection(sock, "tcp://10.0.0.1:1", "host", colour="red"), TypeError),
        (lambda sock: tunnel_connection(sock, "tcp://10.0.0.1:1", "host", password=1), TypeError),
        (lambda sock: open_tunnel("10.0.0.1:1", "host"), ValueError),
        (lambda sock: open_tunnel("tcp://10.0.0.1:1", 5), TypeError),
        (lambda sock: ssh_tunnel(0, 1, "host"), ValueError),
        (lambda sock: ssh_tunnel("7000", 1, "host"), TypeError),
        (lambda sock: ssh_tunnel(7000, 70_000, "host"), ValueError),
        (lambda sock: ssh_tunnel(7000, 1, "host", "a b"), ValueError),
        (lambda sock: ssh_tunnel(7000, 1, "host", None), TypeError),
        (lambda sock: try_passwordless_ssh("-oProxyCommand=x", None), ValueError),
    ],
)
def test_malformed_arguments_are_told_before_anything_happens(
    call: Callable[[Any], Any], error: type[Exception], plain: zmq.Context[Any]
) -> None:
    sock = plain.socket(zmq.REQ)
    with pytest.raises(error):
        call(sock)
    assert type(sock) is zmq.Socket


# Sockets


@pytest.mark.parametrize("context", [zmq.Context, TunneledContext])
def test_tunnel_connection_connects_a_socket(
    context: Any, login: dict[str, Any], echo: Peer, gateways: Gateways
) -> None:
    with context() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.rcvtimeo = 10_000
        tunnel = tunnel_connection(sock, echo.address, **login)
        round_trip(sock)
        assert isinstance(tunnel, Tunnel)
        assert tunnel in sock.tunnels
        assert (tunnel.state, tunnel.remote) == ("up", echo.address)
        assert tunnel.stats().bytes_sent > 0
        assert tunnel.local.startswith("ipc://" if zmq.has("ipc") else "tcp://127.0.0.1:")
    gone(gateways)
    wait_until(lambda: tunnel.state == "closed")


def test_tunnel_connection_takes_what_zmq_ssh_takes(
    openssh: OpenSSHServer, plain: zmq.Context[Any], echo: Peer
) -> None:
    """As ipyparallel calls it."""
    sock = plain.socket(zmq.REQ)
    ours = {"known_hosts": openssh.known_hosts, "config_file": None}
    tunnel_connection(
        sock, echo.address, openssh.server, openssh.keyfile, False, False, timeout=10, **ours
    )
    round_trip(sock)


def test_a_socket_stays_what_it_was(
    plain: zmq.Context[Any], login: dict[str, Any], echo: Peer
) -> None:
    class OwnSocket(zmq.Socket[bytes]):
        def send(self, *args: Any, **kwargs: Any) -> Any:
            sent.append(args[0])
            return super().send(*args, **kwargs)

    sent: list[bytes] = []
    sock = plain.socket(zmq.REQ, socket_class=OwnSocket)
    before = repr(sock)
    tunnel_connection(sock, echo.address, **login)
    round_trip(sock)
    assert sent == [b"hello"]
    assert isinstance(sock, OwnSocket)
    assert repr(sock).split(" at ")[0].endswith(before.split(" at ")[0].rpartition(".")[2])
    assert copy.copy(sock).type == zmq.REQ


def test_asyncio_sockets_are_connected(login: dict[str, Any], echo: Peer) -> None:
    async def main() -> None:
        with zmq.asyncio.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            tunnel = tunnel_connection(sock, echo.address, **login)
            for number in range(10):
                await sock.send(b"%d" % number)
                assert await asyncio.wait_for(sock.recv(), 10) == b"%d" % number
            assert isinstance(sock, zmq.asyncio.Socket)
        wait_until(lambda: tunnel.state == "closed")

    asyncio.run(main())


@pytest.mark.parametrize("shadow", [zmq.Socket, zmq.asyncio.Socket])
def test_a_shadow_may_go_before_its_socket(
    shadow: Any, plain: zmq.Context[Any], login: dict[str, Any], echo: Peer
) -> None:
    sock = plain.socket(zmq.REQ)
    tunnel = tunnel_connection(shadow(sock), echo.address, **login)
    gc.collect()
    round_trip(sock)
    assert tunnel.state == "up"
    sock.close()
    wait_until(lambda: tunnel.state == "closed")


def test_a_socket_may_have_several_tunnels(
    plain: zmq.Context[Any], login: dict[str, Any], remote: Remote
) -> None:
    collectors = [remote("collector") for _ in range(3)]
    sock = plain.socket(zmq.PUSH)
    tunnels = [tunnel_connection(sock, peer.address, **login) for peer in collectors]
    for number in range(300):
        sock.send(numbered(number))
    wait_until(lambda: sum(peer.report()["messages"] for peer in collectors) == 300)
    assert sock.tunnels == tunnels


# Their ends


@pytest.mark.parametrize("how", ["close", "with", "destroy", "collect"])
@pytest.mark.parametrize("kind", [zmq.Context, zmq.asyncio.Context])
def test_the_tunnel_goes_with_the_socket(
    how: str, kind: Any, login: dict[str, Any], echo: Peer, gateways: Gateways
) -> None:
    ctx = kind()
    sock = ctx.socket(zmq.REQ)
    tunnel = tunnel_connection(sock, echo.address, **login)
    if how == "close":
        sock.close()
    elif how == "with":
        with sock:
            pass
    elif how == "destroy":
        ctx.destroy()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del sock
            gc.collect()
    gone(gateways)
    wait_until(lambda: tunnel.state == "closed")
    ctx.term()


def test_a_socket_is_collected_without_the_garbage_collector(
    plain: zmq.Context[Any], login: dict[str, Any], echo: Peer, gateways: Gateways
) -> None:
    sock = zmq.Socket(plain, zmq.REQ)
    tunnel_connection(sock, echo.address, **login)
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match="Unclosed socket"):
            del sock
        gone(gateways)
    finally:
        gc.enable()


def test_pending_messages_survive_close_and_term(login: dict[str, Any], remote: Remote) -> None:
    collector = remote("collector")
    ctx = zmq.Context()
    sock = ctx.socket(zmq.PUSH)
    tunnel_connection(sock, collector.address, **login)
    for number in range(2000):
        sock.send(numbered(number, 10_000))
    sock.close()
    ctx.term()
    assert collector.wait_for(messages=2000)["gaps"] == 0


def test_the_tunnel_stays_however_long_it_is_not_used(
    plain: zmq.Context[Any], login: dict[str, Any], remote: Remote
) -> None:
    port = free_port()
    sock = plain.socket(zmq.REQ)
    tunnel = tunnel_connection(sock, f"tcp://127.0.0.1:{port}", timeout=0, **login)
    wait_until(lambda: tunnel.last_error)
    assert tunnel.stats().connections_total == 0
    remote("echo", port=port)
    round_trip(sock)


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_the_tunnel_of_a_socket_may_be_ended_before_it(
    end: str, plain: zmq.Context[Any], login: dict[str, Any], echo: Peer, remote: Remote
) -> None:
    sock = plain.socket(zmq.DEALER)
    first = tunnel_connection(sock, echo.address, **login)
    second = tunnel_connection(sock, remote("router").address, **login)
    getattr(first, end)()
    getattr(first, end)()
    assert sock.tunnels == [second]
    round_trip(sock)
    wait_until(lambda: first.state == "closed")
    assert second.state == "up"


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_ending_a_tunnel_after_its_socket_loses_nothing(
    end: str, login: dict[str, Any], remote: Remote, gateways: Gateways
) -> None:
    collector = remote("collector")
    ctx = zmq.Context()
    sock = ctx.socket(zmq.PUSH)
    tunnel = tunnel_connection(sock, collector.address, **login)
    for number in range(500):
        sock.send(numbered(number, 10_000))
    sock.close()
    if end == "terminate":
        ctx.term()  # all is with the gateway
    getattr(tunnel, end)()
    assert collector.wait_for(messages=500)["gaps"] == 0
    ctx.term()
    gone(gateways)


# Tunnels without a socket


@pytest.mark.parametrize("function", [ssh_tunnel, openssh_tunnel, paramiko_tunnel])
def test_a_tunnel_listens_on_the_port(
    function: Any, plain: zmq.Context[Any], login: dict[str, Any], echo: Peer, gateways: Gateways
) -> None:
    [lport] = select_random_ports(1)
    tunnel = function(lport, echo.port, **login)
    assert isinstance(tunnel, Tunnel)
    assert tunnel.local == f"tcp://127.0.0.1:{lport}"
    with plain.socket(zmq.REQ) as sock:
        sock.connect(tunnel.local)
        round_trip(sock)
    tunnel.close()
    gone(gateways)
    wait_until(lambda: refuses(tunnel.local))


def test_the_peer_may_have_a_name_or_an_ipv6_address(
    plain: zmq.Context[Any], login: dict[str, Any], remote: Remote
) -> None:
    peers = {"localhost": remote("echo", host="127.0.0.1"), "::1": remote("echo", host="[::1]")}
    for remoteip, peer in peers.items():
        tunnel = ssh_tunnel(select_random_ports(1)[0], peer.port, remoteip=remoteip, **login)
        with plain.socket(zmq.REQ) as sock:
            sock.connect(tunnel.local)
            round_trip(sock)
        tunnel.terminate()


def test_a_tunnel_lives_though_nobody_holds_it(
    plain: zmq.Context[Any], login: dict[str, Any], echo: Peer
) -> None:
    url = open_tunnel(echo.address, **login)[0]
    gc.collect()
    assert url.startswith("tcp://127.0.0.1:")
    for _ in range(3):
        with plain.socket(zmq.REQ) as sock:
            sock.connect(url)
            round_trip(sock)
    [tunnel] = [one for one in tunneledzmq.handles.pool.shared_pool().tunnels if one.local == url]
    assert isinstance(tunnel, tunneledzmq.ssh.OwnTunnel)
    tunnel.terminate()
    wait_until(lambda: refuses(url))


def test_tunnels_share_a_session(
    openssh: OpenSSHServer, plain: zmq.Context[Any], login: dict[str, Any], echo: Peer
) -> None:
    before = openssh.logins()
    tunnels = [open_tunnel(echo.address, **login)[1] for _ in range(3)]
    sock = plain.socket(zmq.REQ)
    tunnels.append(tunnel_connection(sock, echo.address, **login))
    wait_until(lambda: openssh.logins() > before)
    assert openssh.logins() - before == 1
    for tunnel in tunnels:
        tunnel.terminate()


def test_terminate_cuts_a_socket_that_goes_on(
    plain: zmq.Context[Any], login: dict[str, Any], remote: Remote, gateways: Gateways
) -> None:
    collector = remote("collector")
    url, tunnel = open_tunnel(collector.address, **login)
    sock = plain.socket(zmq.PUSH)
    sock.sndtimeo = 500
    sock.connect(url)
    for number in range(100):
        sock.send(numbered(number))
    collector.wait_for(messages=100)
    tunnel.terminate()
    wait_until(lambda: not gateways(), timeout=2)
    assert refuses(url)


def test_close_lets_a_socket_finish(login: dict[str, Any], remote: Remote) -> None:
    collector = remote("collector")
    ctx = zmq.Context()
    url, tunnel = open_tunnel(collector.address, **login)
    sock = ctx.socket(zmq.PUSH)
    sock.connect(url)
    for number in range(500):
        sock.send(numbered(number, 10_000))
    sock.close()
    tunnel.close()
    assert collector.wait_for(messages=500)["gaps"] == 0
    ctx.term()


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_tunnels_end_with_the_program(
    how: str, openssh: OpenSSHServer, login: dict[str, Any], echo: Peer, gateways: Gateways
) -> None:
    before = set(openssh.sessions())
    source = """
        from tunneledzmq.ssh import *
        login = json.loads(login)
        ctx = zmq.Context()
        sock = ctx.socket(zmq.REQ)
        tunnel_connection(sock, addr, **login)
        url, _ = open_tunnel(addr, **login)
        sock.send(b"hello")
        print(url, sock.recv(), flush=True)
        if how == "kill":
            sock.poll()
        """
    given = {"login": json.dumps(login), "addr": echo.address, "how": how}
    with start_program(source, **given) as program:
        assert program.stdout and program.stderr
        url, answer = program.stdout.readline().split()
        assert answer == "b'hello'"
        if how == "kill":
            program.kill()
        errors = program.stderr.read()
    killed = -9 if os.name == "posix" else 1
    assert (program.returncode, errors) == (killed if how == "kill" else 0, "")
    wait_until(lambda: not gateways() and before.issuperset(openssh.sessions()), timeout=5)
    assert refuses(url)


def test_a_forked_child_may_open_tunnels_of_its_own(login: dict[str, Any], echo: Peer) -> None:
    output = run_program(
        """
        import os
        from tunneledzmq.ssh import *
        login = json.loads(login)

        def ask():
            with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
                sock.rcvtimeo = 10_000
                tunnel_connection(sock, addr, **login)
                sock.send(b"hello")
                print(sock.recv(), flush=True)

        _, tunnel = open_tunnel(addr, **login)
        child = os.fork()
        if not child:
            ask()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert tunnel.state == "up"
        ask()
        """,
        login=json.dumps(login),
        addr=echo.address,
    )
    assert output == "b'hello'\n" * 2


def test_a_tunnel_heals(
    openssh: OpenSSHServer, plain: zmq.Context[Any], login: dict[str, Any], echo: Peer
) -> None:
    [lport] = select_random_ports(1)
    tunnel = ssh_tunnel(lport, echo.port, **login)
    sock = plain.socket(zmq.REQ)
    sock.connect(tunnel.local)
    round_trip(sock)
    openssh.kill_sessions()
    wait_until(lambda: tunnel.reconnects == 1)
    sock.close()
    with plain.socket(zmq.REQ) as sock:
        sock.connect(tunnel.local)
        round_trip(sock)
    tunnel.terminate()


# Errors


def test_errors_are_raised_and_leave_nothing(
    openssh: OpenSSHServer,
    plain: zmq.Context[Any],
    login: dict[str, Any],
    echo: Peer,
    tmp_path: Path,
) -> None:
    sock = plain.socket(zmq.REQ)
    strange = generate_key(tmp_path / "strange")
    for error, changed in (
        (SSHConnectionError, {"server": f"127.0.0.1:{free_port()}"}),
        (UnknownHostKeyError, {"known_hosts": os.devnull}),
        (SSHAuthenticationError, {"keyfile": strange}),
        (SSHAuthenticationError, {"keyfile": tmp_path / "missing"}),
    ):
        with pytest.raises(error):
            tunnel_connection(sock, echo.address, **{**login, **changed})
    with pytest.raises(UnknownHostKeyError):
        open_tunnel(echo.address, **{**login, "known_hosts": os.devnull})
    with pytest.raises(UnknownHostKeyError):
        ssh_tunnel(free_port(), echo.port, **{**login, "known_hosts": os.devnull})
    tunnel_connection(sock, echo.address, **login)
    round_trip(sock)


def test_programs_for_zmq_ssh_catch_the_errors(login: dict[str, Any], echo: Peer) -> None:
    with pytest.raises((RuntimeError, OSError), match="the connection was refused"):
        open_tunnel(echo.address, **{**login, "server": f"127.0.0.1:{free_port()}"})


def test_a_taken_port_is_an_error(login: dict[str, Any], echo: Peer) -> None:
    with pytest.raises(TunnelError, match=f"127.0.0.1:{echo.port}") as caught:
        ssh_tunnel(echo.port, echo.port, **login)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_closed_socket_is_an_error(
    plain: zmq.Context[Any], login: dict[str, Any], echo: Peer
) -> None:
    sock = plain.socket(zmq.REQ)
    sock.close()
    with pytest.raises(zmq.ZMQError) as caught:
        tunnel_connection(sock, echo.address, **login)
    assert caught.value.errno == zmq.ENOTSOCK


# Logging in


def test_who_needs_no_password_is_told_so(
    login: dict[str, Any], openssh: OpenSSHServer, gateways: Gateways, tmp_path: Path
) -> None:
    server, keyfile = login.pop("server"), login.pop("keyfile")
    assert try_passwordless_ssh(server, keyfile, **login) is True
    gone(gateways, timeout=2)
    assert try_passwordless_ssh(server, str(generate_key(tmp_path / "id")), **login) is False
    locked = generate_key(tmp_path / "locked", passphrase="secret")
    openssh.authorize(locked)
    assert try_passwordless_ssh(server, str(locked), **login) is False
    assert try_passwordless_ssh(server, str(locked), passphrase="secret", **login) is True


def test_a_locked_key_does_not_hide_another_one(
    home: Path, openssh: OpenSSHServer, login: dict[str, Any], gateways: Gateways
) -> None:
    for name, passphrase in (("id_ed25519", "secret"), ("id_ecdsa", "")):
        openssh.authorize(generate_key(home / ".ssh" / name, passphrase=passphrase))
    server, _ = login.pop("server"), login.pop("keyfile")
    assert try_passwordless_ssh(server, None, **login) is True
    gone(gateways)
    (home / ".ssh" / "id_ecdsa").unlink()
    assert try_passwordless_ssh(server, None, **login) is False


def test_where_no_password_helps_that_is_an_error(login: dict[str, Any], tmp_path: Path) -> None:
    server, keyfile = login.pop("server"), login.pop("keyfile")
    with pytest.raises(SSHConnectionError):
        try_passwordless_ssh(f"127.0.0.1:{free_port()}", keyfile, **login)
    with pytest.raises(UnknownHostKeyError):
        try_passwordless_ssh(server, keyfile, **{**login, "known_hosts": os.devnull})
    with pytest.raises(SSHAuthenticationError, match="missing"):
        try_passwordless_ssh(server, str(tmp_path / "missing"), **login)


def test_ports_are_free_and_not_the_same() -> None:
    ports = select_random_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


# install()


def test_installing_replaces_the_functions_of_zmq_ssh(login: dict[str, Any], echo: Peer) -> None:
    output = run_program(
        """
        import inspect
        import tunneledzmq.ssh
        from zmq.ssh import tunnel  # before, as well as after
        tunneledzmq.ssh.install()
        tunneledzmq.ssh.install()
        import zmq.ssh
        from zmq.ssh.tunnel import tunnel_connection, select_random_ports
        assert zmq.ssh.tunnel_connection is tunnel_connection is tunnel.tunnel_connection
        for name in json.loads(functions):
            assert getattr(tunnel, name) is getattr(tunneledzmq.ssh, name), name
        with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.rcvtimeo = 10_000
            mine = tunnel.tunnel_connection(sock, addr, **json.loads(login))
            sock.send(b"hello")
            print(sock.recv(), type(mine).__name__)
        """,
        login=json.dumps(login),
        addr=echo.address,
        functions=json.dumps(FUNCTIONS),
    )
    assert output == "b'hello' OwnTunnel\n"


def test_importing_the_module_imports_neither_zmq_ssh_nor_paramiko() -> None:
    output = run_program(
        """
        import tunneledzmq.ssh
        names = ("paramiko", "sshtunnel", "zmq.ssh", "jupyter_client", "asyncio")
        print([name for name in sys.modules if name.startswith(names)])
        """
    )
    assert output == "[]\n"


def test_context_sockets_may_be_connected_both_ways(
    ctx: TunneledContext, openssh: OpenSSHServer, login: dict[str, Any], remote: Remote
) -> None:
    first, second = remote("collector"), remote("collector")
    before = openssh.logins()
    sock: TunneledSocket = ctx.socket(zmq.PUSH)
    sock.connect(first.address, ssh=options_for(openssh))
    tunnel_connection(sock, second.address, **login)
    wait_until(lambda: openssh.logins() > before)
    assert openssh.logins() - before == 1
    assert [tunnel.remote for tunnel in ctx.tunnels] == [first.address, second.address]
