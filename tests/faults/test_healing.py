"""What drops comes back by itself, soon, and says so."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests import logins
from tests.faults.injection import (
    KILLED,
    Relay,
    always,
    change_host_key,
    discard_answers,
    kill_gateway,
    kill_server,
    kill_session,
    login_attempts,
    restart,
    stopped,
    the_gateway,
    time_to_heal,
)
from tests.logins import options_for
from tests.peers import Peer, round_trip
from tests.polling import PATIENCE, wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket

pytestmark = pytest.mark.usefixtures("backend")

Figures = Callable[[str], None]
Remote = Callable[..., Peer]

TRIES = 5


def limit(seconds: float) -> float:
    """How long a heal may take: a login with ssh starts processes and does more key exchange."""
    return seconds * PATIENCE * (2.5 if logins.defaults["backend"] == "openssh" else 1)


@pytest.fixture
def own_server() -> Iterator[OpenSSHServer]:
    """An SSH server that a test may break for good."""
    with OpenSSHServer() as server:
        yield server


@pytest.fixture(scope="module")
def router() -> Iterator[Peer]:
    """A remote peer that answers a DEALER, whatever was lost before."""
    with Peer("router") as peer:
        yield peer


def dealer(ctx: TunneledContext, peer: Peer, options: SSHOptions) -> TunneledSocket:
    sock: TunneledSocket = ctx.socket(zmq.DEALER)
    sock.connect(peer.address, ssh=options)
    round_trip(sock)
    return sock


def seconds(times: list[float]) -> str:
    return f"median {statistics.median(times):.2f} s of {', '.join(f'{t:.2f}' for t in times)}"


def test_traffic_resumes_within_a_second_of_a_killed_session(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    router: Peer,
    figures: Figures,
) -> None:
    sock = dealer(any_ctx, router, openssh_options)
    [tunnel] = sock.tunnels
    local = tunnel.local
    times = []
    for _ in range(TRIES):
        start = time.monotonic()
        kill_session(openssh)
        time_to_heal(sock)
        times.append(time.monotonic() - start)
        discard_answers(sock)
    figures(f"healed {seconds(times)}")
    assert statistics.median(times) < limit(1)
    assert tunnel.state == "up"
    assert tunnel.reconnects == TRIES
    assert tunnel.local == local == sock.last_endpoint.decode()
    assert any_ctx.tunnels == [tunnel]


def test_traffic_resumes_within_a_second_of_the_servers_return(
    ctx: TunneledContext,
    own_server: OpenSSHServer,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
    figures: Figures,
) -> None:
    caplog.set_level("DEBUG", "tunneledzmq")  # for each try
    sock = dealer(ctx, router, options_for(own_server))
    [tunnel] = sock.tunnels
    times = []
    for refusals in (6, 2, 2):
        caplog.clear()
        kill_server(own_server)
        # By then the delays between the tries are the longest; they stay so for a while.
        wait_until(lambda n=refusals: caplog.text.count("was refused") >= n, timeout=15)  # type: ignore
        assert tunnel.state == "down"
        assert "refused" in (tunnel.last_error or "")
        restart(own_server)
        times.append(time_to_heal(sock))
        discard_answers(sock)
    figures(f"healed {seconds(times)} after the return")
    assert statistics.median(times) < limit(1)
    assert max(times) < limit(3)
    assert tunnel.state == "up"
    assert tunnel.reconnects == 3


def test_a_server_that_stays_away_is_not_asked_without_pause(
    ctx: TunneledContext,
    own_server: OpenSSHServer,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
    figures: Figures,
) -> None:
    caplog.set_level("DEBUG", "tunneledzmq")  # for each try
    sock = dealer(ctx, router, options_for(own_server))
    gateway = the_gateway()
    kill_server(own_server)
    wait_until(lambda: sock.tunnels[0].state == "down")
    spent = sum(gateway.cpu_times()[:2])
    caplog.clear()
    always(lambda: sock.tunnels[0].state == "down", 2)
    tries = caplog.text.count("was refused")
    figures(f"{tries} tries and {sum(gateway.cpu_times()[:2]) - spent:.2f} s of CPU in 2 s")
    assert 1 <= tries <= 8


@pytest.mark.parametrize("how", ["passes again", "is given up"])
def test_a_silent_link_is_found(
    how: str, ctx: TunneledContext, openssh: OpenSSHServer, router: Peer, figures: Figures
) -> None:
    interval, count = 1, 2
    with Relay(openssh) as relay:
        options = options_for(
            relay, server_alive_interval=interval, server_alive_count_max=count, connect_timeout=3
        )
        sock = dealer(ctx, router, options)
        [tunnel] = sock.tunnels
        if how == "passes again":
            relay.hold_packets()
        else:
            relay.lose_connections()
        start = time.monotonic()
        wait_until(lambda: tunnel.reconnects == 1 or tunnel.state == "down", timeout=20)
        found = time.monotonic() - start
        if how == "passes again":
            always(lambda: tunnel.state == "down", 0.5)
            relay.pass_packets()
        healed = time_to_heal(sock)
        wait_until(lambda: tunnel.state == "up")
        figures(f"found after {found:.2f} s, healed {healed:.2f} s later")
        # ssh gives up one interval later.
        questions = count + (logins.defaults["backend"] == "openssh")
        assert found <= interval * questions + limit(0.7)
        assert healed <= limit(2)
        assert tunnel.last_error
        assert tunnel.reconnects == 1
        sock.close()


def test_a_slow_link_is_not_taken_for_a_silent_one(
    ctx: TunneledContext, openssh: OpenSSHServer, router: Peer
) -> None:
    with Relay(openssh) as relay:
        options = options_for(relay, server_alive_interval=1, server_alive_count_max=2)
        sock = dealer(ctx, router, options)
        relay.pass_packets(delay=0.3)
        always(lambda: sock.tunnels[0].state == "up", 2)
        round_trip(sock)
        assert sock.tunnels[0].reconnects == 0
        sock.close()


def test_traffic_resumes_after_the_gateway_was_killed(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
    figures: Figures,
) -> None:
    sock = dealer(ctx, router, openssh_options)
    [tunnel] = sock.tunnels
    local = tunnel.local
    times = []
    for _ in range(3):
        start = time.monotonic()
        kill_gateway()
        time_to_heal(sock)
        times.append(time.monotonic() - start)
        discard_answers(sock)
    figures(f"healed {seconds(times)}")
    assert statistics.median(times) < limit(2)
    assert tunnel.state == "up"
    assert tunnel.reconnects == 3
    assert tunnel.local == local == sock.last_endpoint.decode()
    assert KILLED in (tunnel.last_error or "")
    assert KILLED in caplog.text


def test_all_sockets_come_back_after_the_gateway_was_killed(
    ctx: TunneledContext, openssh_options: SSHOptions, router: Peer, figures: Figures
) -> None:
    socks = [dealer(ctx, router, openssh_options) for _ in range(50)]
    start = time.monotonic()
    kill_gateway()
    for sock in socks:
        time_to_heal(sock)
    figures(f"50 sockets healed within {time.monotonic() - start:.2f} s")
    wait_until(lambda: all(sock.tunnels[0].state == "up" for sock in socks))
    assert {sock.tunnels[0].reconnects for sock in socks} == {1}


def test_a_gateway_that_starts_again_when_all_is_over_ends(
    openssh_options: SSHOptions, router: Peer
) -> None:
    started: list[Any] = []
    starts, all_is_over = threading.Event(), threading.Event()

    def start_late(*arguments: Any) -> Any:
        starts.set()
        assert all_is_over.wait(30)
        started.append(start(*arguments))
        return started[0]

    with TunneledContext() as ctx:
        sock = dealer(ctx, router, openssh_options)
        handle: Any = sock.tunnels[0]._handle
        start, handle._start_home = handle._start_home, start_late
        kill_gateway()
        assert starts.wait(30)
        sock.close(linger=0)
    all_is_over.set()
    wait_until(lambda: started)
    wait_until(lambda: not psutil.pid_exists(started[0].pid))
    # And whoever comes next is served.
    with TunneledContext() as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.connect(router.address, ssh=openssh_options)
        round_trip(sock)


def test_a_gateway_that_was_stopped_for_a_while_loses_nothing(
    ctx: TunneledContext, openssh_options: SSHOptions, remote: Remote
) -> None:
    collector = remote("collector")
    sock = ctx.socket(zmq.PUSH)
    sock.connect(collector.address, ssh=openssh_options)
    with stopped(the_gateway()):
        for number in range(500):
            sock.send(number.to_bytes(8, "big"))
        always(lambda: sock.tunnels[0].state == "up", 0.5)
    assert collector.wait_for(messages=500)["gaps"] == 0
    assert sock.tunnels[0].reconnects == 0


@pytest.mark.parametrize("fault", ["session killed", "gateway killed"])
def test_subscriptions_survive(
    fault: str,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    remote: Remote,
) -> None:
    publisher = remote("publisher")
    sock = ctx.socket(zmq.SUB)
    sock.subscribe(b"kept")
    sock.connect(publisher.address, ssh=openssh_options)
    publisher.wait_for(subscriptions=1)
    if fault == "session killed":
        kill_session(openssh)
    else:
        kill_gateway()

    def arrives() -> bool:
        publisher.send(1, topic="other")
        publisher.send(1, topic="kept")
        return bool(sock.poll(20))

    wait_until(lambda: sock.tunnels[0].reconnects == 1)
    # libzmq subscribes again at the program's next call into the socket.
    wait_until(arrives)
    while sock.poll(50):
        assert sock.recv().startswith(b"kept")
    assert publisher.report()["subscriptions"] == 1


def test_a_tunnel_tells_what_happened_to_it(
    ctx: TunneledContext,
    own_server: OpenSSHServer,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "tunneledzmq"):
        sock = dealer(ctx, router, options_for(own_server))
        [tunnel] = sock.tunnels
        assert (tunnel.state, tunnel.last_error, tunnel.reconnects) == ("up", None, 0)
        kill_server(own_server)
        wait_until(lambda: tunnel.state == "down")
        assert sock.tunnels == [tunnel]
        wait_until(lambda: "refused" in (tunnel.last_error or ""))
        assert own_server.server in (tunnel.last_error or "")
        restart(own_server)
        wait_until(lambda: tunnel.state == "up")
        assert tunnel.reconnects == 1
        assert tunnel.last_error, "what failed last is kept"
        wait_until(lambda: sum("logged in" in message for message in caplog.messages) == 2)
    lost = next(i for i, m in enumerate(caplog.messages) if "session was lost" in m)
    assert any("logged in" in message for message in caplog.messages[lost:])
    assert all(
        own_server.server in record.getMessage()
        for record in caplog.records[lost:]
        if record.name == "tunneledzmq"
    )
    assert all(record.name.startswith("tunneledzmq") for record in caplog.records)
    sock.close()
    wait_until(lambda: tunnel.state == "closed")


def test_an_outage_is_told_once_and_not_for_each_try(
    ctx: TunneledContext,
    own_server: OpenSSHServer,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("DEBUG", "tunneledzmq"):
        sock = dealer(ctx, router, options_for(own_server))
        kill_server(own_server)
        wait_until(lambda: caplog.text.count("the connection was refused") >= 4)
        restart(own_server)
        wait_until(lambda: told_of_return(caplog))
        assert sum("was refused" in record.getMessage() for record in warnings(caplog)) == 1
        kill_server(own_server)
        wait_until(lambda: sum("was refused" in r.getMessage() for r in warnings(caplog)) == 2)
        assert sock.tunnels[0].state == "down"
        restart(own_server)


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def told_of_return(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in warnings(caplog)]
    return [message for message in messages if "the SSH session is back" in message]


def test_who_was_told_of_a_lost_session_is_told_that_it_is_back(
    any_ctx: TunneledContext,
    own_server: OpenSSHServer,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = options_for(own_server)
    socks = [dealer(any_ctx, router, options) for _ in range(3)]
    assert not told_of_return(caplog)
    for times in (1, 2):
        kill_server(own_server)
        wait_until(lambda n=times: caplog.text.count("refused") >= n)  # type: ignore[misc]
        restart(own_server)
        wait_until(lambda n=times: len(told_of_return(caplog)) == n)  # type: ignore[misc]
        wait_until(lambda: all(sock.tunnels[0].state == "up" for sock in socks))
    dealer(any_ctx, router, options)
    assert len(told_of_return(caplog)) == 2, "once each time, however many sockets there are"
    assert own_server.server in told_of_return(caplog)[0]


def test_who_was_told_of_a_dead_gateway_is_told_that_the_session_is_back(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    router: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sock = dealer(ctx, router, openssh_options)
    kill_gateway()
    time_to_heal(sock)
    wait_until(lambda: len(told_of_return(caplog)) == 1)


def test_a_key_that_is_refused_while_redialling_ends_the_retries(
    ctx: TunneledContext, own_server: OpenSSHServer, router: Peer
) -> None:
    sock = dealer(ctx, router, options_for(own_server))
    [tunnel] = sock.tunnels
    key = Path(own_server.authorized_keys).read_text()
    Path(own_server.authorized_keys).write_text("")
    kill_session(own_server)
    wait_until(lambda: "authorized_keys" in (tunnel.last_error or ""))
    attempts = login_attempts(own_server)
    always(lambda: tunnel.state == "down" and login_attempts(own_server) == attempts, 2)

    # A new connect asks again, and its session serves the old tunnel too.
    Path(own_server.authorized_keys).write_text(key)
    dealer(ctx, router, options_for(own_server))
    time_to_heal(sock)
    assert tunnel.state == "up"


def test_a_host_key_that_changed_while_down_ends_the_retries(
    ctx: TunneledContext, own_server: OpenSSHServer, router: Peer
) -> None:
    sock = dealer(ctx, router, options_for(own_server))
    [tunnel] = sock.tunnels
    kill_server(own_server)
    wait_until(lambda: tunnel.state == "down")
    change_host_key(own_server)
    restart(own_server)
    logins = own_server.logins()
    wait_until(lambda: "host key has changed" in (tunnel.last_error or ""))
    attempts = login_attempts(own_server)
    always(lambda: tunnel.state == "down" and login_attempts(own_server) == attempts, 2)
    assert own_server.logins() == logins


def test_a_server_that_drops_every_session_is_not_dialled_without_pause(
    ctx: TunneledContext, own_server: OpenSSHServer, router: Peer, figures: Figures
) -> None:
    sock = dealer(ctx, router, options_for(own_server))
    before = own_server.logins()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        if sock.tunnels[0].state == "up":
            kill_session(own_server)
        time.sleep(0.01)
    logins = own_server.logins() - before
    figures(f"{logins} logins in 3 s")
    assert logins <= 9
    figures(f"healed {time_to_heal(sock):.2f} s later")
