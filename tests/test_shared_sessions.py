"""All contexts of a program share the SSH sessions to a server; each has tunnels of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

import tunneledzmq.asyncio
from tests.gate import gate, through
from tests.logins import arguments_for, entry_for, options_for
from tests.peers import Peer, numbered, round_trip
from tests.polling import wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, Tunnel, TunneledContext
from tunneledzmq.handles.gateways import gateways as gateways_of_program

Gateways = Callable[[], set[psutil.Process]]
Remote = Callable[..., Peer]


def ask(ctx: TunneledContext, addr: str) -> Tunnel:
    """Have one reply over a tunnel; return it."""
    with ctx.socket(zmq.REQ) as sock:
        sock.rcvtimeo = 10_000
        sock.connect(addr)
        round_trip(sock)
        return sock.tunnels[0]


def wait_until_closed(tunnel: Tunnel) -> None:
    """Wait until the session has nothing left to do for a tunnel.

    One that is lost before is dialled again.
    """
    wait_until(lambda: tunnel.state == "closed")


def connecting(ctx: TunneledContext, addr: str) -> tuple[threading.Thread, list[Any]]:
    """Connect on a thread; tell its errors, or `None`."""
    outcome: list[Any] = []

    def connect() -> None:
        with ctx.socket(zmq.REQ) as sock:
            sock.linger = 0
            try:
                sock.connect(addr)
                outcome.append(None)
            except Exception as exc:
                outcome.append(exc)

    thread = threading.Thread(target=connect)
    thread.start()
    return thread, outcome


def test_contexts_with_equal_options_share_a_login(
    openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    logins = openssh.logins()
    with (
        TunneledContext(ssh=openssh_options) as one,
        TunneledContext(ssh=replace(openssh_options)) as two,
        tunneledzmq.asyncio.TunneledContext(ssh=openssh_options) as three,
        one.socket(zmq.REQ) as first,
    ):
        first.connect(echo.address)
        ask(two, echo.address)

        async def main() -> None:
            with three.socket(zmq.REQ) as sock:
                await sock.connect(echo.address)
                assert (len(one.tunnels), len(two.tunnels), len(three.tunnels)) == (1, 0, 1)

        asyncio.run(main())
        assert len(gateways()) == 1
    assert openssh.logins() == logins + 1


def test_other_options_have_a_login_of_their_own(
    openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    other = replace(openssh_options, compression=True)
    with (
        TunneledContext(ssh=openssh_options) as one,
        TunneledContext(ssh=other) as two,
        one.socket(zmq.REQ) as first,
        two.socket(zmq.REQ) as second,
    ):
        first.connect(echo.address)
        second.connect(echo.address)
        assert len(gateways()) == 2


def test_a_name_means_what_it_means_where_the_program_is(
    openssh: OpenSSHServer,
    echo: Peer,
    gateways: Gateways,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same options, in two homes."""
    with (
        TunneledContext(ssh="there") as one,
        TunneledContext(ssh="there") as two,
        one.socket(zmq.REQ) as first,
        two.socket(zmq.REQ) as second,
    ):
        for sock, name in ((first, "a"), (second, "b")):
            (tmp_path / name / ".ssh").mkdir(parents=True, mode=0o700)
            config = tmp_path / name / ".ssh" / "config"
            config.write_text(entry_for("there", openssh))
            config.chmod(0o600)
            for variable in ("HOME", "USERPROFILE"):
                monkeypatch.setenv(variable, str(tmp_path / name))
            sock.connect(echo.address)
        assert len(gateways()) == 2


def test_a_relative_path_means_what_it_means_where_the_program_is(
    openssh: OpenSSHServer,
    echo: Peer,
    gateways: Gateways,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = options_for(openssh, keyfile="key")
    with (
        TunneledContext(ssh=options) as one,
        one.socket(zmq.REQ) as first,
        one.socket(zmq.REQ) as second,
    ):
        for sock, name in ((first, "a"), (second, "b")):
            (tmp_path / name).mkdir()
            shutil.copy(openssh.keyfile, tmp_path / name / "key")  # with its mode
            monkeypatch.chdir(tmp_path / name)
            sock.connect(echo.address)
        assert len(gateways()) == 2


def test_the_end_of_a_context_leaves_those_of_others_alone(
    openssh_options: SSHOptions, echo: Peer, remote: Remote, gateways: Gateways
) -> None:
    collector = remote("collector")
    with TunneledContext(ssh=openssh_options) as lasting, lasting.socket(zmq.REQ) as sock:
        sock.rcvtimeo = 10_000
        sock.connect(echo.address)
        round_trip(sock)
        [before] = gateways()
        for _ in range(3):
            with TunneledContext(ssh=openssh_options) as ctx:
                push = ctx.socket(zmq.PUSH)
                push.connect(collector.address)
                for number in range(200):
                    push.send(numbered(number, 10_000))
                push.close()
                assert len(lasting.tunnels) == 1
            round_trip(sock)
        collector.wait_for(messages=600)
        assert gateways() == {before}
        assert sock.tunnels[0].reconnects == 0


def test_a_context_may_end_in_the_middle_of_what_another_one_does(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    """As it does when it is collected: finalizers interrupt whatever the thread is doing."""
    with TunneledContext(ssh=openssh_options) as one, one.socket(zmq.REQ) as sock:
        sock.connect(echo.address)
        two = TunneledContext(ssh=openssh_options)
        ask(two, echo.address)
        with ExitStack() as held:
            for handle in gateways_of_program()._handles.values():
                held.enter_context(handle._lock)
            held.enter_context(gateways_of_program()._lock)
            two.term()
        round_trip(sock)


def test_the_gateway_of_two_contexts_is_killed_and_one_has_ended(
    openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    with TunneledContext(ssh=openssh_options) as one, one.socket(zmq.REQ) as sock:
        sock.rcvtimeo = 10_000
        sock.connect(echo.address)
        two = TunneledContext(ssh=openssh_options)
        with two.socket(zmq.REQ) as other:
            other.connect(echo.address)
            round_trip(other)
            [gateway] = gateways()
            gateway.suspend()
            other.close(linger=0)
        two.term()  # the gateway has not heard of it
        gateway.kill()
        wait_until(lambda: gateways() - {gateway})
        wait_until(lambda: sock.tunnels[0].state == "up")
        round_trip(sock)
        assert len(one.tunnels) == 1
        assert sock.tunnels[0].reconnects == 1


def test_the_end_of_a_context_ends_its_waiting_connects_alone(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    with gate(openssh) as way:
        options = through(way, options_for(openssh))
        one, two = TunneledContext(ssh=options), TunneledContext(ssh=options)
        first, outcome = connecting(one, echo.address)
        second, other_outcome = connecting(two, echo.address)
        assert way.came.acquire(timeout=10)
        wait_until(lambda: len(one.tunnels) == len(two.tunnels) == 1)
        one.term()
        first.join(5)
        assert isinstance(outcome[0], zmq.ContextTerminated)
        assert second.is_alive() and not other_outcome
        way.open()
        second.join(10)
        assert other_outcome == [None]
        two.term()
        assert not way.came.acquire(blocking=False), "it was dialled once"


def test_so_it_is_where_a_thread_waits_for_a_hop(openssh: OpenSSHServer, echo: Peer) -> None:
    """The thread that logs in to the hop is the one whose context ends: another one goes on."""
    with gate(openssh) as way:
        options = options_for(openssh, jump=through(way, options_for(openssh)))
        one, two = TunneledContext(ssh=options), TunneledContext(ssh=options)
        first, outcome = connecting(one, echo.address)
        assert way.came.acquire(timeout=10)
        second, other_outcome = connecting(two, echo.address)
        wait_until(lambda: len(two.tunnels) == 1)
        start = time.monotonic()
        one.term()
        first.join(5)
        assert time.monotonic() - start < 2
        assert isinstance(outcome[0], zmq.ContextTerminated)
        way.open()
        second.join(20)
        assert other_outcome == [None]
        two.term()


def test_a_session_persists_for_the_next_context(
    openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    logins = openssh.logins()
    options = replace(openssh_options, persist=2)
    for _ in range(5):
        with TunneledContext(ssh=options) as ctx:
            ask(ctx, echo.address)
        assert ctx.tunnels == []
    assert openssh.logins() == logins + 1
    assert len(gateways()) == 1
    last = time.monotonic()
    wait_until(lambda: not gateways(), 10, what="the gateway is gone")
    assert time.monotonic() - last > 1.5


def test_contexts_one_after_the_other_are_no_slower_for_the_end_of_the_one_before(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    """A peer that ends its side because we did is there, and need not be asked for again."""
    options, slow = replace(openssh_options, persist=1), 0
    with TunneledContext(ssh=options) as ctx:
        ask(ctx, echo.address)
    for _ in range(20):
        start = time.monotonic()
        with TunneledContext(ssh=options) as ctx:
            ask(ctx, echo.address)
        slow += time.monotonic() - start > 0.1  # RECONNECT_IVL
    assert slow <= 3


def test_a_persisting_session_that_is_lost_is_not_dialled_again(
    openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    options = replace(openssh_options, persist=60)
    with TunneledContext(ssh=options) as ctx:
        wait_until_closed(ask(ctx, echo.address))
        assert len(gateways()) == 1
        logins = openssh.logins()
        openssh.kill_sessions()
        wait_until(lambda: not gateways(), 10, what="the gateway is gone")
        assert openssh.logins() == logins
        wait_until_closed(ask(ctx, echo.address))
        openssh.kill_sessions()
        wait_until(lambda: not gateways(), 10, what="the gateway is gone")


@pytest.mark.parametrize("end", ["return", "os._exit", "SIGKILL", "return, of threads"])
def test_nothing_persists_beyond_the_program(
    openssh: OpenSSHServer, echo: Peer, end: str, gateways: Gateways
) -> None:
    started = time.monotonic()
    with start_program(
        """
        import os
        with TunneledContext(ssh=options, isolate="threads" not in end) as ctx:
            with ctx.socket(zmq.REQ) as sock:
                sock.connect(addr)
                sock.send(b"hello")
                print(sock.recv(), flush=True)
        if end == "os._exit":
            os._exit(0)
        elif end == "SIGKILL":
            os.kill(os.getpid(), 9)
        """,
        options=arguments_for(openssh, persist=60),
        addr=echo.address,
        end=end,
    ) as program:
        output, errors = program.communicate(timeout=30)
    assert (output, errors) == ("b'hello'\n", "")
    wait_until(lambda: not gateways(), 10, what="the gateway is gone")
    assert time.monotonic() - started < 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_session_of_its_own(openssh: OpenSSHServer, echo: Peer) -> None:
    logins = openssh.logins()
    output = run_program(
        """
        import os
        ctx = TunneledContext(ssh=options)
        sock = ctx.socket(zmq.REQ)
        sock.connect(addr)
        pid = os.fork()
        if pid == 0:
            with TunneledContext(ssh=options) as own, own.socket(zmq.REQ) as other:
                other.connect(addr)
                other.send(b"child")
                assert other.recv() == b"child"
                assert (len(own.tunnels), len(ctx.tunnels)) == (1, 0)
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        sock.send(b"parent")
        print(sock.recv())
        sock.close()
        ctx.term()
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.splitlines() == ["0", "b'parent'"]
    assert openssh.logins() == logins + 2


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_persist_is_a_number_of_seconds(value: float) -> None:
    with pytest.raises(ValueError, match="persist"):
        SSHOptions("me@bastion", persist=value)


@pytest.mark.parametrize("value", ["5", None, True])
def test_persist_is_a_number(value: Any) -> None:
    with pytest.raises(TypeError, match="persist"):
        SSHOptions("me@bastion", persist=value)
