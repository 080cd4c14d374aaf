"""The asyncio twins: nothing waits but what is awaited, and what is cancelled is undone."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import tornado.ioloop
import zmq
import zmq.asyncio

import tunneledzmq
from tests.deadline import ending
from tests.logins import arguments_for, options_for
from tests.peers import Peer, free_port, numbered
from tests.polling import PATIENCE, wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer
from tests.strangers import SilentPort
from tunneledzmq import SSHConnectionError, SSHOptions, UnknownHostKeyError
from tunneledzmq.asyncio import TunneledContext, TunneledSocket
from tunneledzmq.shared import directory

if sys.platform != "win32":
    import uvloop

Remote = Callable[..., Peer]
Gateways = Callable[[], set[psutil.Process]]


class OwningContext(TunneledContext):
    """Holds its sockets until its end, so that a test need not close them."""

    _owned: list[TunneledSocket]

    def __init__(self, **arguments: Any) -> None:
        self._owned = []
        super().__init__(**arguments)

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        sock = super().socket(*args, **kwargs)
        self._owned.append(sock)
        return sock


@pytest.fixture(params=[True, False], ids=["isolated", "threads"])
def any_ctx(request: pytest.FixtureRequest) -> Iterator[TunneledContext]:
    with ending(OwningContext(isolate=request.param)) as context:
        yield context


@pytest.fixture
def ctx() -> Iterator[TunneledContext]:
    with ending(OwningContext()) as context:
        yield context


@pytest.fixture
def silent() -> Iterator[SilentPort]:
    """A server that takes connections and never answers."""
    with SilentPort() as port:
        yield port


def silent_options(port: SilentPort, **fields: Any) -> SSHOptions:
    return SSHOptions(f"me@127.0.0.1:{port.port}", config_file=None, agent=False, **fields)


def strangers_options(server: OpenSSHServer) -> SSHOptions:
    """Options that do not know the server's key."""
    return options_for(server, known_hosts=os.devnull)


async def round_trip(sock: TunneledSocket, message: bytes = b"hello") -> None:
    await sock.send(message)
    assert await asyncio.wait_for(sock.recv(), 10 * PATIENCE) == message


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait for a condition while the loop goes on."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def run_with_uvloop(main: Coroutine[Any, Any, None]) -> None:
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def run_with_tornado(main: Coroutine[Any, Any, None]) -> None:
    loop = tornado.ioloop.IOLoop(make_current=False)
    try:
        loop.run_sync(lambda: main)
    finally:
        loop.close(all_fds=True)


@pytest.fixture(scope="module", autouse=True)
def loops() -> Iterator[None]:
    """Have uvloop make what it keeps to the process' end, so that it does not look left behind.

    Windows has none. Its own loop is not for zmq without a further thread (see windows).
    """
    if sys.platform != "win32":
        run_with_uvloop(asyncio.sleep(0))
        yield
        return
    asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    yield
    asyncio.set_event_loop_policy(None)


LOOPS = {"asyncio": asyncio.run, "uvloop": run_with_uvloop, "tornado": run_with_tornado}
if sys.platform == "win32":
    del LOOPS["uvloop"]
every_loop = pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
Run = Callable[[Coroutine[Any, Any, None]], None]


# What works


@every_loop
def test_request_and_reply(
    run: Run, any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main() -> None:
        sock = any_ctx.socket(zmq.REQ)
        await sock.connect(echo.address, ssh=openssh_options)
        assert [tunnel.state for tunnel in sock.tunnels] == ["up"]
        for number in range(100):
            await round_trip(sock, b"%d" % number)
        sock.close()

    run(main())


def test_the_gateway_removes_what_the_program_could_not(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    echo: Peer,
    gateways: Gateways,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the program's look at its directory and its end another socket may come there."""

    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        await sock.connect(echo.address, ssh=openssh_options)
        await round_trip(sock)
        [gateway] = gateways()
        gateway.suspend()
        sock.close()
        monkeypatch.setattr(directory, "_remove_entry", lambda path: None)
        ctx.term()
        gateway.resume()

    asyncio.run(main())


@every_loop
def test_a_hundred_connects_at_once_log_in_once(
    run: Run,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    remote: Remote,
) -> None:
    address = remote("router").address
    before = openssh.logins()

    async def main() -> None:
        socks = [ctx.socket(zmq.DEALER) for _ in range(100)]
        await asyncio.gather(*[sock.connect(address, ssh=openssh_options) for sock in socks])
        assert len(ctx.tunnels) == 100
        await asyncio.gather(*map(round_trip, socks))
        for sock in socks:
            sock.close()

    run(main())
    assert openssh.logins() - before == 1


def test_messages_can_be_sent_before_the_session_is_up(
    any_ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    collector = remote("collector")

    async def main() -> None:
        sock = any_ctx.socket(zmq.PUSH)
        connecting = sock.connect(collector.address, ssh=openssh_options)
        assert [tunnel.state for tunnel in sock.tunnels] == ["connecting"]
        for number in range(100):
            sock.send(numbered(number), flags=zmq.DONTWAIT).result()
        await connecting
        await asyncio.to_thread(collector.wait_for, messages=100)

    asyncio.run(main())
    assert collector.report()["gaps"] == 0


def test_socket_options_are_those_at_the_time_of_connect(
    ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.ROUTER)
        sock.router_mandatory = 1
        for name in (b"one", b"other"):
            sock.connect_routing_id = name
            sock.connect(remote("router").address, ssh=openssh_options)
        for name in (b"one", b"other"):
            await sock.send_multipart([name, b"hello"])
        answers = [await asyncio.wait_for(sock.recv_multipart(), 10) for _ in range(2)]
        assert {answer[0] for answer in answers} == {b"one", b"other"}

    asyncio.run(main())


def test_a_socket_that_never_reconnects_connects_all_the_same(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main() -> None:
        sock = any_ctx.socket(zmq.REQ)
        sock.reconnect_ivl = -1
        await sock.connect(echo.address, ssh=openssh_options)
        await round_trip(sock)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["a free port", "a given port", "a path"])
def test_the_local_leg(
    kind: str, any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, tmp_path: Path
) -> None:
    local = {
        "a free port": "tcp://127.0.0.1:*",
        "a given port": f"tcp://127.0.0.1:{free_port()}",
        "a path": f"ipc://{tmp_path}/leg",
    }[kind]

    async def main() -> None:
        sock = any_ctx.socket(zmq.REQ)
        await sock.connect(echo.address, ssh=openssh_options, local=local)
        await round_trip(sock)
        [tunnel] = sock.tunnels
        assert tunnel.local == sock.last_endpoint.decode().rstrip("\0")
        assert tunnel.local == local or kind == "a free port"
        assert tunnel.stats().connections_total == 1
        sock.close()
        await until(lambda: tunnel.state == "closed")

    asyncio.run(main())
    assert list(tmp_path.glob("leg")) == []


def test_only_the_user_reaches_the_local_leg(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=openssh_options)
        leg = Path(sock.tunnels[0].local.removeprefix("ipc://"))
        assert leg.stat().st_mode & 0o777 == 0o600
        assert leg.parent.stat().st_mode & 0o777 == 0o700
        await connecting

    asyncio.run(main())


def test_a_local_endpoint_that_is_taken_is_an_error(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        with pytest.raises(tunneledzmq.TunnelError, match="local= takes another") as caught:
            await sock.connect(echo.address, ssh=openssh_options, local=echo.address)
        assert caught.value.errno == zmq.EADDRINUSE
        assert sock.tunnels == ctx.tunnels == []

    asyncio.run(main())


def test_a_direct_connect_can_be_awaited(openssh_options: SSHOptions, echo: Peer) -> None:
    async def main() -> None:
        with TunneledContext(ssh=openssh_options) as ctx, ctx.socket(zmq.REQ) as sock:
            await sock.connect(echo.address, ssh=None)
            await round_trip(sock)
            assert sock.tunnels == []
            async with sock.connect("inproc://somewhere"):
                pass

    asyncio.run(main())


def test_the_default_of_the_context(openssh_options: SSHOptions, echo: Peer) -> None:
    async def main() -> None:
        with TunneledContext(ssh=openssh_options) as ctx, ctx.socket(zmq.REQ) as sock:
            await sock.connect(echo.address)
            await round_trip(sock)
            assert len(sock.tunnels) == 1

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["with", "async with"])
def test_what_connect_returns_disconnects(
    kind: str, ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        if kind == "with":
            with sock.connect(echo.address, ssh=openssh_options) as same:
                await round_trip(same)
        else:
            async with sock.connect(echo.address, ssh=openssh_options) as same:
                assert same.tunnels[0].state == "up"
                await round_trip(same)
        assert same is sock
        assert sock.tunnels == []

    asyncio.run(main())


# Nothing waits


async def longest_gap(busy: Awaitable[None]) -> float:
    """Return the longest time for which the loop did nothing else while something went on."""
    task = asyncio.ensure_future(busy)
    longest, last = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    task.result()
    return longest


def test_the_loop_goes_on_while_a_gateway_starts_and_logs_in(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main(number: int) -> tuple[float, float, float]:
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            options = replace(openssh_options, connect_timeout=10 + number)  # a login of its own
            start = time.monotonic()
            connecting = sock.connect(echo.address, ssh=options)
            returned = time.monotonic() - start

            async def wait() -> None:
                await connecting

            gap = await longest_gap(wait())
            return returned, gap, time.monotonic() - start

    # The least of several: a busy machine alone makes gaps of some milliseconds.
    returned, gap, total = (
        min(column)
        for column in zip(*[asyncio.run(main(number)) for number in range(9)], strict=True)
    )
    assert returned < 0.005 * PATIENCE, "connect() blocks"
    assert gap < total / 5, "the login takes many times as long"


def test_a_login_that_never_ends_does_not_hold_the_loop_up(
    ctx: TunneledContext, silent: SilentPort, echo: Peer
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        with pytest.raises(SSHConnectionError, match="me@"):
            await sock.connect(echo.address, ssh=silent_options(silent, connect_timeout=1))
        assert sock.tunnels == []

    assert asyncio.run(longest_gap(main())) < 0.3


# Failures


def test_an_unknown_host_key_is_raised_where_it_is_awaited(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        sock = any_ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=strangers_options(openssh))
        [tunnel] = sock.tunnels
        with pytest.raises(UnknownHostKeyError, match="ssh-keyscan"):
            await connecting
        assert tunnel.state == "closed"
        assert "ssh-keyscan" in str(tunnel.last_error)
        assert sock.tunnels == any_ctx.tunnels == []
        await sock.connect(echo.address, ssh=openssh_options)
        await round_trip(sock)

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_connects_that_share_a_login_share_its_failure(
    ctx: TunneledContext, silent: SilentPort, echo: Peer
) -> None:
    async def main() -> None:
        socks = [ctx.socket(zmq.REQ) for _ in range(20)]
        options = silent_options(silent, connect_timeout=1)
        outcomes = await asyncio.gather(
            *[sock.connect(echo.address, ssh=options) for sock in socks], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {SSHConnectionError}

    asyncio.run(main())
    assert silent.dials() == 1


@pytest.mark.parametrize("loop", [True, False], ids=["with a loop", "without one"])
def test_a_failure_that_nobody_awaits_is_told(
    loop: bool,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sock = ctx.socket(zmq.PUSH)
    tunnels = []

    def connect() -> None:
        sock.connect(echo.address, ssh=strangers_options(openssh))
        tunnels.extend(sock.tunnels)

    async def main() -> None:
        connect()
        await until(lambda: bool(caplog.records))

    if loop:
        asyncio.run(main())
    else:
        connect()
        wait_until(lambda: bool(caplog.records))
    assert [tunnel.state for tunnel in tunnels] == ["closed"]
    assert "ssh-keyscan" in str(tunnels[0].last_error)
    assert sock.tunnels == ctx.tunnels == []
    gc.collect()
    [record] = caplog.records
    assert (record.name, record.levelname) == ("asyncio" if loop else "tunneledzmq", "ERROR")
    assert echo.address in record.message
    assert "ssh-keyscan" in caplog.text


def test_the_loops_exception_handler_is_told_of_a_failure_that_nobody_awaits(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer
) -> None:
    told: list[dict[str, object]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        with ctx.socket(zmq.PUSH) as sock:
            sock.connect(echo.address, ssh=strangers_options(openssh))
            await until(lambda: bool(told))

    asyncio.run(main())
    [context] = told
    assert isinstance(context["exception"], UnknownHostKeyError)
    assert echo.address in repr(context["future"])


@pytest.mark.parametrize("loop", [True, False], ids=["with a loop", "without one"])
def test_a_failure_that_is_awaited_late_is_told_to_who_awaits_it(
    loop: bool,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[dict[str, object]] = []
    sock = ctx.socket(zmq.PUSH)

    def connect() -> Any:
        return sock.connect(echo.address, ssh=strangers_options(openssh))

    async def main(early: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        late = early or connect()
        assert repr(late).startswith(f"<{type(late).__name__} {echo.address} via ")
        await until(lambda: late.failed)
        await asyncio.sleep(0.05)  # it is told at once, if it is
        assert repr(late).endswith(" [failed: UnknownHostKeyError]>")
        with pytest.raises(UnknownHostKeyError):
            await asyncio.wait_for(late, 5)

    asyncio.run(main(None if loop else connect()))
    gc.collect()
    assert told == caplog.records == []
    assert sock.tunnels == []


def wait_until_known(connecting: Any) -> None:
    wait_until(lambda: not connecting.under_way)


@pytest.mark.parametrize("known", [True, False], ids=["logged in", "refused"])
def test_a_loop_that_ends_without_hearing_of_the_outcome(
    known: bool,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sock = ctx.socket(zmq.REQ)
    options = openssh_options if known else strangers_options(openssh)

    async def begin() -> Any:
        return sock.connect(echo.address, ssh=options)

    async def go_on() -> None:
        await asyncio.wait_for(sock.connect(echo.address, ssh=openssh_options), 10)
        await round_trip(sock)
        assert len(sock.tunnels) == 1

    loop = asyncio.new_event_loop()
    # It is not awaited, though it is what a coroutine returns.
    wait_until_known(loop.run_until_complete(begin()))
    loop.close()
    asyncio.run(go_on())
    gc.collect()
    assert ("cannot connect" in caplog.text) == (not known)


def test_a_connect_tells_how_far_it_is(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=openssh_options)
        name = f"<PendingConnect {echo.address} via"
        assert repr(connecting) == f"{name} {openssh_options.server} [pending]>"
        await connecting
        assert repr(connecting) == f"{name} {sock.tunnels[-1].server} [finished]>"
        assert repr(sock.connect("inproc://peer")) == "<Connecting inproc://peer [direct]>"

    asyncio.run(main())


def test_a_program_without_logging_sees_a_failure_that_nobody_awaits(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    with start_program(
        """
        import asyncio
        from tunneledzmq.asyncio import TunneledContext

        async def main():
            with TunneledContext() as ctx, ctx.socket(zmq.PUSH) as sock:
                sock.connect(addr, ssh=options)
                while sock.tunnels:
                    await asyncio.sleep(0.01)
        asyncio.run(main())
        """,
        options={"server": openssh.server, "config_file": None, "known_hosts": "/dev/null"},
        addr=echo.address,
    ) as program:
        _, errors = program.communicate(timeout=30)
    assert "ssh-keyscan" in errors and echo.address in errors


def test_what_was_sent_to_a_peer_that_cannot_be_reached_holds_nothing_up(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    async def main() -> None:
        ctx = TunneledContext()
        sock = ctx.socket(zmq.PUSH)
        connecting = sock.connect(echo.address, ssh=strangers_options(openssh))
        await sock.send(b"lost")
        with pytest.raises(UnknownHostKeyError):
            await connecting
        with pytest.raises(zmq.Again):  # as with a socket that never connected
            await sock.send(b"nobody is there", flags=zmq.DONTWAIT)
        assert sock.linger == -1
        sock.close()
        ctx.term()

    asyncio.run(main())


def test_a_server_that_dies_during_the_login(
    any_ctx: TunneledContext, silent: SilentPort, echo: Peer
) -> None:
    async def main() -> None:
        sock = any_ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=silent_options(silent))
        await until(lambda: silent.dials() > 0)  # hangs up on it
        with pytest.raises(SSHConnectionError):
            await connecting

    asyncio.run(main())


def test_a_gateway_that_dies_during_the_login_is_started_again(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=openssh_options)
        await until(lambda: bool(gateways()))
        for process in gateways():
            process.kill()
        await connecting
        await round_trip(sock)

    asyncio.run(main())


def test_malformed_arguments_are_refused_at_once(ctx: TunneledContext) -> None:
    sock = ctx.socket(zmq.REQ)
    for arguments in (
        {"addr": "tcp://nowhere", "ssh": "me@nowhere"},
        {"addr": "tcp://a:1", "ssh": ""},
        {"addr": "tcp://a:1", "local": "tcp://127.0.0.1:*"},
        {"addr": "tcp://a:1", "ssh": "me@nowhere", "local": "tcp://0.0.0.0:*"},
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            sock.connect(**arguments)
    sock.close()
    with pytest.raises(zmq.ZMQError):
        sock.connect("tcp://a:1", ssh="me@nowhere")


# Cancelling


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_cancelling_at_any_moment_leaves_nothing(
    isolate: bool, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = set(openssh.sessions())
    moments = random.Random(1)

    async def main() -> None:
        with TunneledContext(isolate=isolate) as ctx:
            for number in range(50):
                sock = ctx.socket(zmq.REQ)
                moment = 0 if number < 3 else moments.uniform(0, 0.5)
                connecting = sock.connect(echo.address, ssh=openssh_options)
                try:
                    await asyncio.wait_for(connecting, moment)
                except asyncio.TimeoutError:
                    assert sock.tunnels == []
                else:
                    await round_trip(sock)
                sock.close()
                assert ctx.tunnels == []
            # The context is still there: it is the last tunnel that has ended the gateway.
            await until(lambda: before.issuperset(openssh.sessions()))

    asyncio.run(main())


@pytest.mark.parametrize("how", ["wait_for", "wait_for 0", "task", "future", "gather"])
@every_loop
def test_a_cancelled_connect_is_given_up(
    run: Run, how: str, ctx: TunneledContext, silent: SilentPort, echo: Peer, gateways: Gateways
) -> None:
    async def main() -> None:
        sock = ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=silent_options(silent))
        [tunnel] = sock.tunnels
        if how.startswith("wait_for"):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connecting, 0 if how.endswith("0") else 0.3)
        else:

            async def waiting() -> None:
                await connecting

            wait = {
                "task": lambda: asyncio.ensure_future(waiting()),
                "future": lambda: asyncio.ensure_future(connecting),
                "gather": lambda: asyncio.gather(connecting),
            }[how]()
            await asyncio.sleep(0)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
        assert sock.tunnels == ctx.tunnels == []
        await until(lambda: not gateways() and tunnel.state == "closed", timeout=3)
        await until(lambda: not any(t.name == "tunneledzmq-connect" for t in threading.enumerate()))

    run(main())


def test_a_login_that_others_wait_for_goes_on(
    ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = openssh.logins()

    async def main() -> None:
        patient, impatient = ctx.socket(zmq.REQ), ctx.socket(zmq.REQ)
        waiting = asyncio.ensure_future(impatient.connect(echo.address, ssh=openssh_options))
        connecting = patient.connect(echo.address, ssh=openssh_options)
        waiting.cancel()
        await connecting
        await round_trip(patient)

    asyncio.run(main())
    assert openssh.logins() - before == 1


@pytest.mark.parametrize("undo", ["close", "disconnect", "disconnect local", "exit"])
def test_what_is_closed_while_it_connects_is_cancelled(
    undo: str, any_ctx: TunneledContext, silent: SilentPort, echo: Peer, gateways: Gateways
) -> None:
    async def main() -> None:
        sock = any_ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=silent_options(silent))
        waiting = asyncio.gather(connecting, return_exceptions=True)
        await until(lambda: silent.dials() >= 0)
        if undo == "close":
            sock.close()
        elif undo == "exit":
            with connecting:
                pass
        else:
            sock.disconnect(echo.address if undo == "disconnect" else sock.tunnels[0].local)
        [outcome] = await asyncio.wait_for(waiting, 2)
        assert isinstance(outcome, asyncio.CancelledError)
        assert any_ctx.tunnels == []
        # libzmq gives a disconnected address up at the program's next call into the socket.
        await until(lambda: (sock.closed or sock.get(zmq.EVENTS) >= 0) and not gateways(), 5)

    asyncio.run(main())


def test_pending_messages_survive_a_close_before_the_session_is_up(
    any_ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    collector = remote("collector")

    async def main() -> None:
        sock = any_ctx.socket(zmq.PUSH)
        sock.connect(collector.address, ssh=openssh_options)
        for number in range(100):
            await sock.send(numbered(number, 10_000))
        sock.close()

    asyncio.run(main())
    any_ctx.term()
    assert collector.wait_for(messages=100)["gaps"] == 0


def test_a_context_that_is_destroyed_gives_up_what_connects(silent: SilentPort, echo: Peer) -> None:
    async def main() -> None:
        ctx = TunneledContext()
        connecting = [
            ctx.socket(zmq.REQ).connect(echo.address, ssh=silent_options(silent)) for _ in range(5)
        ]
        start = time.monotonic()
        ctx.destroy(linger=0)
        assert time.monotonic() - start < 1
        outcomes = await asyncio.gather(*connecting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}

    asyncio.run(main())


def test_a_context_that_terminates_is_raised_where_connects_are_awaited(
    silent: SilentPort, echo: Peer
) -> None:
    async def main() -> None:
        ctx = TunneledContext()
        sock = ctx.socket(zmq.REQ)
        connecting = sock.connect(echo.address, ssh=silent_options(silent))
        term = asyncio.ensure_future(asyncio.to_thread(ctx.term))
        with pytest.raises(zmq.ContextTerminated):
            await connecting
        sock.close(linger=0)
        await asyncio.wait_for(term, 5)
        with pytest.raises(zmq.ZMQError):
            ctx.socket(zmq.REQ)

    asyncio.run(main())


def test_a_socket_that_is_collected_while_it_connects(
    silent: SilentPort, echo: Peer, gateways: Gateways
) -> None:
    async def main() -> None:
        ctx = TunneledContext()
        sock = ctx.socket(zmq.REQ)
        sock.linger = 0
        sock.connect(echo.address, ssh=silent_options(silent))
        await asyncio.sleep(0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del sock
            gc.collect()
        await until(lambda: ctx.tunnels == [] and not gateways(), timeout=3)
        ctx.term()

    asyncio.run(main())


# Loops and threads


def test_a_connect_where_no_loop_runs_yet(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    connecting = sock.connect(echo.address, ssh=openssh_options)

    async def main() -> None:
        await connecting
        assert sock.tunnels[0].state == "up"
        await round_trip(sock)

    asyncio.run(main())


def test_a_connect_where_no_loop_runs_yet_can_be_cancelled(
    ctx: TunneledContext, silent: SilentPort, echo: Peer, gateways: Gateways
) -> None:
    sock = ctx.socket(zmq.REQ)
    connecting = sock.connect(echo.address, ssh=silent_options(silent))

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(connecting, 0.1)
        assert sock.tunnels == []

    asyncio.run(main())
    wait_until(lambda: not gateways())


def test_two_loops_one_after_another(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)

    async def first() -> None:
        await sock.connect(echo.address, ssh=openssh_options)
        await round_trip(sock)

    async def second() -> None:
        await round_trip(sock)
        sock.disconnect(echo.address)
        await sock.connect(echo.address, ssh=openssh_options)
        await round_trip(sock)

    asyncio.run(first())
    asyncio.run(second())


def test_a_loop_that_ends_before_the_session_is_up(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)

    async def first() -> None:
        sock.connect(echo.address, ssh=openssh_options)

    asyncio.run(first())
    asyncio.run(round_trip(sock))


def test_threads_with_loops_of_their_own_share_a_login(
    ctx: TunneledContext, openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = openssh.logins()
    answered = []
    barrier = threading.Barrier(5)

    async def main() -> None:
        with ctx.socket(zmq.REQ) as sock:
            await sock.connect(echo.address, ssh=openssh_options)
            await round_trip(sock)
            answered.append(sock)
            await asyncio.to_thread(barrier.wait)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 5
    assert openssh.logins() - before == 1


# Contexts


def test_shadows_share_the_gateways_of_the_other_kind(
    openssh: OpenSSHServer, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = openssh.logins()

    async def main() -> None:
        with tunneledzmq.TunneledContext(ssh=openssh_options) as blocking:
            ctx = TunneledContext.shadow(blocking)
            again = tunneledzmq.TunneledContext(ctx)
            with (
                blocking.socket(zmq.REQ) as one,
                ctx.socket(zmq.REQ) as two,
                again.socket(zmq.REQ) as three,
            ):
                one.connect(echo.address)
                await two.connect(echo.address)
                await round_trip(two)
                three.connect(echo.address)
                assert type(three) is tunneledzmq.TunneledSocket
                assert len(ctx.tunnels) == len(again.tunnels) == len(blocking.tunnels) == 3

    asyncio.run(main())
    assert openssh.logins() - before == 1


def test_contexts_keep_to_their_kind(openssh_options: SSHOptions) -> None:
    ctx = TunneledContext(ssh=openssh_options)
    shadow = copy.copy(ctx)
    instance = TunneledContext.instance()
    try:
        assert isinstance(ctx, zmq.asyncio.Context)
        assert type(shadow) is TunneledContext
        assert shadow.underlying == ctx.underlying
        assert repr(ctx).startswith("<tunneledzmq.asyncio.TunneledContext(")
        assert instance is TunneledContext.instance()
        assert instance is not zmq.asyncio.Context.instance()
        assert instance is not tunneledzmq.TunneledContext.instance()
        with ctx.socket(zmq.REQ) as sock:
            assert isinstance(sock, zmq.asyncio.Socket)
            assert type(sock) is TunneledSocket
            assert repr(sock).startswith("<tunneledzmq.asyncio.TunneledSocket(zmq.REQ)")
    finally:
        for each in (ctx, instance, zmq.asyncio.Context, tunneledzmq.TunneledContext):
            (each if isinstance(each, zmq.Context) else each.instance()).term()


# The end of the program

PROGRAM = """
import asyncio
from tunneledzmq.asyncio import TunneledContext

async def main():
    global sock
    sock = TunneledContext().socket(zmq.REQ)
    sock.linger = 0
    sock.connect(addr, ssh=options)
    print("connecting", flush=True)
    await asyncio.sleep(wait)

asyncio.run(main())
"""


@pytest.mark.parametrize("wait", [0, 0.3], ids=["at once", "during the login"])
def test_a_program_may_end_while_it_connects(
    wait: float, silent: SilentPort, echo: Peer, gateways: Gateways
) -> None:
    options = {"server": f"me@127.0.0.1:{silent.port}", "config_file": None, "agent": False}
    run_program(PROGRAM, timeout=5, options=options, addr=echo.address, wait=wait)
    wait_until(lambda: not gateways(), timeout=5)


@pytest.mark.parametrize("end", ["", "sock.close()"], ids=["left open", "closed"])
def test_what_was_sent_arrives_though_the_program_ends_before_the_session_is_up(
    end: str, openssh: OpenSSHServer, remote: Remote
) -> None:
    collector = remote("collector")
    run_program(
        f"""
        import asyncio
        from tunneledzmq.asyncio import TunneledContext

        ctx = TunneledContext()

        async def main():
            sock = ctx.socket(zmq.PUSH)
            sock.connect(addr, ssh=options)
            for _ in range(500):
                await sock.send(bytes(10_000))
            {end or "globals().update(sock=sock)"}

        asyncio.run(main())
        """,
        options=arguments_for(openssh),
        addr=collector.address,
    )
    collector.wait_for(messages=500)


@pytest.mark.parametrize("end", ["", "sock.close()"], ids=["left open", "closed"])
def test_the_end_of_the_program_waits_for_all_connects_at_once(
    end: str, openssh: OpenSSHServer
) -> None:
    """Though what they are to send has nowhere to go."""
    output = run_program(
        f"""
        import asyncio, os, time
        from tunneledzmq.asyncio import TunneledContext, connecting
        from tunneledzmq.handles import pool

        ctx = TunneledContext()
        socks = []

        async def main():
            for _ in range(20):
                sock = ctx.socket(zmq.PUSH)
                sock.connect(addr, ssh=options)
                await sock.send(b"hello")
                socks.append(sock)
                {end}

        asyncio.run(main())
        started = time.monotonic()
        connecting._at_exit()
        print(time.monotonic() - started, flush=True)
        pool._at_exit()
        os._exit(0)  # rather than wait for LINGER
        """,
        options=arguments_for(openssh),
        addr=f"tcp://127.0.0.1:{free_port()}",
        timeout=90,
    )
    assert float(output) < 16  # as long as for one of them


@pytest.mark.parametrize("server", ["silent", "openssh"])
def test_a_program_that_is_killed_while_it_connects_leaves_nothing(
    server: str, silent: SilentPort, openssh: OpenSSHServer, echo: Peer, gateways: Gateways
) -> None:
    options = arguments_for(openssh)
    if server == "silent":
        options["server"] = f"me@127.0.0.1:{silent.port}"
    with start_program(PROGRAM, options=options, addr=echo.address, wait=60) as program:
        assert program.stdout
        assert program.stdout.readline() == "connecting\n"
        wait_until(lambda: bool(gateways()))
        program.kill()
    wait_until(lambda: not gateways(), timeout=5)
