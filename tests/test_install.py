"""This package's classes in the place of pyzmq's, in a running program."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

import tunneledzmq
from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer

CHECKS = [
    "zmq.Context is tunneledzmq.TunneledContext",
    "zmq.Socket is tunneledzmq.TunneledSocket",
    "zmq.sugar.Context is tunneledzmq.TunneledContext",
    "zmq.sugar.Socket is tunneledzmq.TunneledSocket",
    "zmq.sugar.context.Context is tunneledzmq.TunneledContext",
    "zmq.sugar.socket.Socket is tunneledzmq.TunneledSocket",
    "zmq.asyncio.Context is tunneledzmq.asyncio.TunneledContext",
    "zmq.asyncio.Socket is tunneledzmq.asyncio.TunneledSocket",
    "issubclass(zmq.eventloop.future.Socket, tunneledzmq.TunneledSocket)",
    "issubclass(zmq.eventloop.future.Context, tunneledzmq.TunneledContext)",
    "zmq.devices.Device.context_factory == tunneledzmq.TunneledContext.instance",
    "zmq.devices.ThreadDevice.context_factory == tunneledzmq.TunneledContext.instance",
    "zmq.devices.ProcessDevice.context_factory is tunneledzmq.TunneledContext",
]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_classes_are_in_place_and_are_taken_out(when: str) -> None:
    """Whether pyzmq's modules are imported before or after."""
    output = run_program(
        """
        import tunneledzmq
        if when == "before":
            import zmq.asyncio, zmq.devices, zmq.eventloop.future
        tunneledzmq.install()
        import zmq.asyncio, zmq.devices, zmq.eventloop.future
        import tunneledzmq.asyncio
        for check in checks:
            if not eval(check):
                print("not in place:", check)
        assert issubclass(zmq.asyncio.Context, zmq.Context)
        assert issubclass(zmq.asyncio.Socket, zmq.Socket)
        assert zmq.asyncio.Poller is not None
        tunneledzmq.uninstall()
        tunneledzmq.uninstall()
        for check in checks:
            if eval(check):
                print("still in place:", check)
        assert zmq.Context.__module__ == "zmq.sugar.context"
        assert issubclass(zmq.asyncio.Context, zmq.Context)
        assert zmq.devices.Device.context_factory == zmq.Context.instance
        tunneledzmq.install()
        print(all(map(eval, checks)))
        """,
        when=when,
        checks=CHECKS,
    )
    assert output == "True\n"


@pytest.mark.parametrize("name", ["tunneledzmq.asyncio", "tunneledzmq.green", "zmq.green"])
def test_the_twins_may_be_imported_afterwards(name: str) -> None:
    output = run_program(
        """
        import importlib, tunneledzmq
        tunneledzmq.install()
        importlib.import_module(name)
        import zmq.asyncio, zmq.green, tunneledzmq.asyncio, tunneledzmq.green
        print(zmq.asyncio.Context is tunneledzmq.asyncio.TunneledContext)
        print(zmq.asyncio.Socket is tunneledzmq.asyncio.TunneledSocket)
        print(zmq.green.Context is tunneledzmq.green.TunneledContext)
        print(zmq.green.core._Socket is tunneledzmq.green.TunneledSocket)
        print(zmq.Context is tunneledzmq.TunneledContext)
        """,
        name=name,
    )
    assert output == 5 * "True\n"


@pytest.mark.parametrize("name", ["zmq.asyncio", "zmq.eventloop.future"])
def test_threads_may_import_the_twins_at_the_same_time(name: str) -> None:
    output = run_program(
        """
        import importlib, threading, tunneledzmq
        tunneledzmq.install()
        together = threading.Barrier(2)

        def load(what):
            together.wait()
            importlib.import_module(what)

        other = threading.Thread(target=load, args=[name])
        other.start()
        load("tunneledzmq.asyncio")
        other.join()
        import zmq.asyncio
        print(zmq.asyncio.Context is tunneledzmq.asyncio.TunneledContext)
        """,
        name=name,
    )
    assert output == "True\n"


def test_a_module_that_cannot_be_imported_is_an_import_error_as_before() -> None:
    output = run_program(
        """
        import tunneledzmq
        tunneledzmq.install()
        sys.modules["gevent"] = None
        try:
            import zmq.green
        except ImportError as exc:
            print(exc.name, zmq.Context is tunneledzmq.TunneledContext)
        """
    )
    assert output == "gevent True\n"


def test_what_was_made_before_is_still_understood() -> None:
    output = run_program(
        """
        import asyncio
        import zmq.asyncio

        class Before(zmq.Context):
            pass

        async def main():
            plain = zmq.Context()
            sock = plain.socket(zmq.PULL)
            twin = zmq.asyncio.Context()
            install()
            assert Before(plain).underlying == zmq.Context(plain).underlying == plain.underlying
            assert zmq.Context(twin).underlying == twin.underlying
            assert zmq.asyncio.Context(plain).underlying == plain.underlying
            shadow = zmq.Socket(sock)
            assert (shadow.context, shadow.underlying) == (plain, sock.underlying)
            twin_of_it = zmq.asyncio.Socket(sock)
            assert twin_of_it.underlying == sock.underlying
            poller = zmq.asyncio.Poller()
            poller.register(sock)
            assert await poller.poll(10) == []
            sock.close()
            plain.term()
            twin.term()
            print("fine")

        asyncio.run(main())
        """
    )
    assert output == "fine\n"


CONNECTS: dict[str, str] = {
    "context": "sock = zmq.Context().socket(zmq.REQ)",
    "instance": "sock = zmq.Context.instance().socket(zmq.REQ)",
    "imported": "from zmq import Context; sock = Context().socket(zmq.REQ)",
    "sugar": "from zmq.sugar.context import Context; sock = Context().socket(zmq.REQ)",
    "made before": "sock = before.socket(zmq.REQ)",
    "socket made before": "sock = socket_before",
    "imported before": "sock = imported_before().socket(zmq.REQ)",
    "derived before": "sock = Before().socket(zmq.REQ)",
    "by hand": "sock = zmq.Socket(zmq.Context(), zmq.REQ)",
    "derived": "sock = type('Own', (zmq.Socket,), {})(zmq.Context(), zmq.REQ)",
}


@pytest.mark.parametrize("how", CONNECTS)
def test_every_connect_goes_through_the_server(
    openssh: OpenSSHServer, echo: Peer, how: str
) -> None:
    output = run_program(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        from zmq import Context as imported_before
        before = zmq.Context()
        socket_before = before.socket(zmq.REQ)

        class Before(zmq.Context):
            pass

        install(options)
        {CONNECTS[how]}
        sock.rcvtimeo = 10_000
        sock.connect(addr)
        sock.send(b"hello")
        print(sock.recv(), [tunnel.remote for tunnel in sock.tunnels])
        sock.connect("ipc:///nobody/here" if zmq.has("ipc") else "inproc://nobody")
        uninstall()
        other = zmq.Context().socket(zmq.REQ)
        other.connect(addr)
        other.send(b"hello")
        print(other.recv(), hasattr(other, "tunnels"))
        sock.close(0)
        other.close(0)
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.splitlines() == [f"b'hello' ['{echo.address}']", "b'hello' False"]


def test_what_is_connected_before_stays_so(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
        sock = zmq.Context().socket(zmq.REQ)
        sock.connect(addr)
        install(options)
        sock.send(b"hello")
        print(sock.recv(), hasattr(sock, "tunnels"))
        sock.disconnect(addr)
        sock.connect(addr)
        sock.send(b"hello")
        print(sock.recv(), len(sock.tunnels))
        sock.close(0)
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.splitlines() == ["b'hello' False", "b'hello' 1"]


def test_a_late_install_without_a_server_leaves_what_is_there(echo: Peer) -> None:
    output = run_program(
        """
        sock = zmq.Context().socket(zmq.REQ)
        install()
        try:
            sock.connect(addr, ssh="me@nowhere.invalid")
        except TypeError:
            print("takes no ssh=")
        sock.close(0)
        """,
        addr=echo.address,
    )
    assert output == "takes no ssh=\n"


def test_a_context_keeps_its_own_default(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
        install("nobody@192.0.2.1")
        with TunneledContext(ssh=options) as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr)
            print(sock.tunnels[0].remote)
        with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr, ssh=None)
            print(sock.tunnels)
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.split() == [echo.address, "[]"]


def test_asyncio_programs_are_tunnelled(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
        import asyncio
        install(options)
        import zmq.asyncio

        async def main():
            with zmq.asyncio.Context() as ctx, ctx.socket(zmq.REQ) as sock:
                sock.connect(addr)
                await sock.send(b"hello")
                print(await asyncio.wait_for(sock.recv(), 10), len(ctx.tunnels))

        asyncio.run(main())
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "b'hello' 1\n"


def test_a_device_connects_through_the_server(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
        install(options)
        from zmq.devices import ThreadProxy

        proxy = ThreadProxy(zmq.ROUTER, zmq.DEALER)
        port = proxy.bind_in_to_random_port("tcp://127.0.0.1")
        proxy.connect_out(addr)
        proxy.start()
        with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.rcvtimeo = 10_000
            sock.connect(f"tcp://127.0.0.1:{port}", ssh=None)
            sock.send(b"hello")
            print(sock.recv(), [tunnel.remote for tunnel in zmq.Context.instance().tunnels])
        zmq.Context.instance().term()
        proxy.join(10)
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == f"b'hello' ['{echo.address}']\n"


@pytest.mark.parametrize("ssh", ["", "a:b@c", (), 5])
def test_a_malformed_server_installs_nothing(ssh: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        tunneledzmq.install(ssh)
    assert zmq.Context is not tunneledzmq.TunneledContext


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_tunnelled_by_zmq_ssh_is_tunnelled_once(
    openssh: OpenSSHServer, echo: Peer, when: str
) -> None:
    output = run_program(
        """
        import warnings
        warnings.simplefilter("ignore")
        server, fields = options.server, {"keyfile": options.keyfile[0]}
        further = {"known_hosts": options.known_hosts, "config_file": None, "agent": False}
        if when == "before":
            import zmq.ssh.tunnel
        install("nobody@192.0.2.1")
        import zmq.ssh.tunnel
        with zmq.Context() as ctx:
            with ctx.socket(zmq.REQ) as sock:
                url, tunnel = zmq.ssh.tunnel.open_tunnel(addr, server, **fields, **further)
                sock.connect(url)
                sock.send(b"one")
                print(sock.recv())
            with ctx.socket(zmq.REQ) as sock:
                zmq.ssh.tunnel.tunnel_connection(sock, addr, server, **fields, **further)
                sock.send(b"two")
                print(sock.recv())
        tunnel.close()
        uninstall()
        print(zmq.ssh.tunnel.open_tunnel.__module__)
        """,
        when=when,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.splitlines() == ["b'one'", "b'two'", "zmq.ssh.tunnel"]


def test_the_local_leg_of_all_contexts(openssh: OpenSSHServer, echo: Peer) -> None:
    """For programs that take Peer-Address for an IP address."""
    output = run_program(
        """
        install(options, local="tcp://127.0.0.1:*")
        with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr)
            sock.send(b"hello")
            print(sock.recv(copy=False).get("Peer-Address"))
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "127.0.0.1\n"


@pytest.mark.parametrize("excepts", ["127.0.0.1", ["10.*", "tcp://127.0.0.1:*"]])
def test_what_is_excepted_is_connected_to_directly(echo: Peer, excepts: Any) -> None:
    output = run_program(
        """
        install("nobody@192.0.2.1", excepts=excepts)
        with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr)
            sock.send(b"hello")
            print(sock.recv(), sock.tunnels)
        """,
        excepts=excepts,
        addr=echo.address,
    )
    assert output == "b'hello' []\n"


@pytest.mark.parametrize("excepts", ["", ["127.0.0.1", "tcp://"], [b"127.0.0.1"], None])
def test_malformed_exceptions_install_nothing(excepts: Any) -> None:
    before = zmq.Context
    with pytest.raises((ValueError, TypeError)):
        tunneledzmq.install("me@bastion", excepts=excepts)
    assert zmq.Context is before
