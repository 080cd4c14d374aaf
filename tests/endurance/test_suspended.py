"""Programs, gateways and servers that stand still for a while, as by Ctrl-Z or a closed lid."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest
import zmq

from tests.draining import draining_program, lost_with_a_session, slow_pull
from tests.faults.injection import kill_session, stopped, time_to_heal, wait_until_blocked
from tests.leaks import gateways, masters
from tests.logins import arguments_for
from tests.peers import Peer, arrived, numbered, round_trip
from tests.polling import wait_until
from tests.programs import ObedientProgram
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket

Far = Callable[[int], zmq.Socket[bytes]]
Figures = Callable[[str], None]
Remote = Callable[..., Peer]


@pytest.mark.lasts(80)
def test_a_program_may_be_suspended_for_a_minute(openssh: OpenSSHServer, far: Far) -> None:
    """What its peers send meanwhile is there when it goes on; with gateways in threads too."""
    count = 500
    with ExitStack() as stack:
        programs = {}
        for isolate in (True, False):
            push = far(zmq.PUSH)
            push.bind("tcp://127.0.0.1:*")
            program = ObedientProgram(
                """
                from tests.peers import arrived
                ctx = TunneledContext(isolate=isolate)
                sock = ctx.socket(zmq.PULL)
                sock.connect(addr, ssh=options)
                """,
                options=arguments_for(openssh),
                addr=push.last_endpoint.decode(),
                isolate=isolate,
            )
            programs[push] = stack.enter_context(program)
            push.send(numbered(0))
            program.do("assert sock.recv()[:8] == bytes(8)")
        with stopped(*(psutil.Process(program.pid) for program in programs.values())):
            for push in programs:
                for number in range(1, count):
                    push.send(numbered(number, 1000))
            time.sleep(60)
        for program in programs.values():
            numbers = program.tell(f"arrived(sock, last={count - 1}, timeout=5)")
            assert numbers == list(range(1, count))
        # The next question of server_alive_interval comes, and its answer.
        time.sleep(20)
        for program in programs.values():
            assert program.tell("sock.tunnels[0].reconnects") == 0


@pytest.mark.lasts(30)
def test_a_drain_waits_for_a_suspended_program(openssh: OpenSSHServer) -> None:
    count = 4000
    with slow_pull() as pull, draining_program(openssh, pull, count) as program:
        wait_until_blocked(program)
        with stopped(psutil.Process(program.pid)):
            # All comes that is out of the program's hands.
            numbers = arrived(pull, last=count - 1, timeout=30)
        assert 0 < len(numbers) < count
        numbers += arrived(pull, last=count - 1)
        assert numbers == list(range(count))
        program.finish(10)


@pytest.mark.lasts(30)
def test_a_drain_waits_for_a_suspended_program_whose_session_dies(
    openssh: OpenSSHServer, figures: Figures
) -> None:
    count = 4000
    with slow_pull() as pull, draining_program(openssh, pull, count) as program:
        wait_until_blocked(program)
        with stopped(psutil.Process(program.pid)):
            kill_session(openssh)
            numbers = arrived(pull, last=count - 1, timeout=30)
        numbers += arrived(pull, last=count - 1)
        figures(f"{lost_with_a_session(numbers, count)} lost with the killed session")
        program.finish(10)


def send_while_stopped(
    sock: TunneledSocket, pull: zmq.Socket[bytes], processes: set[psutil.Process], seconds: float
) -> None:
    """Check that what is sent while processes stand still arrives when they go on."""
    count = 1000
    sock.sndhwm = 0
    sock.send(numbered(0))
    assert pull.recv() == numbered(0)
    assert processes
    with stopped(*processes):
        for number in range(1, count):
            sock.send(numbered(number, 1000))
        time.sleep(seconds)
    assert arrived(pull, last=count - 1, timeout=10) == list(range(1, count))


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(20, marks=pytest.mark.lasts(40)),
        pytest.param(60, marks=pytest.mark.lasts(80)),
    ],
)
def test_a_gateway_may_be_suspended(
    seconds: int, ctx: TunneledContext, openssh_options: SSHOptions, far: Far
) -> None:
    """Also for longer than it would wait for a silent server: this one was not silent."""
    pull = far(zmq.PULL)
    pull.bind("tcp://127.0.0.1:*")
    sock = ctx.socket(zmq.PUSH)
    sock.connect(pull.last_endpoint.decode(), ssh=openssh_options)
    send_while_stopped(sock, pull, gateways() | masters(), seconds)
    # The next question of server_alive_interval comes, and its answer.
    time.sleep(20)
    assert sock.tunnels[0].reconnects == 0


@pytest.mark.lasts(40)
def test_a_server_may_stand_still_for_20_seconds(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    far: Far,
) -> None:
    pull = far(zmq.PULL)
    pull.bind("tcp://127.0.0.1:*")
    sock = ctx.socket(zmq.PUSH)
    sock.connect(pull.last_endpoint.decode(), ssh=openssh_options)
    send_while_stopped(sock, pull, set(openssh.sessions()), 20)
    time.sleep(20)
    assert sock.tunnels[0].reconnects == 0


@pytest.mark.lasts(75)
def test_a_server_that_stands_still_for_longer_is_given_up(
    backend: str,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    remote: Remote,
    figures: Figures,
) -> None:
    """After server_alive_interval x server_alive_count_max; the next session serves as this one."""
    sock = ctx.socket(zmq.DEALER)
    sock.connect(remote("router").address, ssh=openssh_options)
    round_trip(sock)
    [tunnel] = sock.tunnels
    with stopped(*openssh.sessions()):
        start = time.monotonic()
        wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up", timeout=75)
        found = time.monotonic() - start
        healed = time_to_heal(sock)
    figures(f"given up and dialled again after {found:.1f} s, healed {healed:.1f} s later")
    # The last word was heard up to an interval before; ssh gives up one interval later.
    assert 30 <= found <= (63 if backend == "openssh" else 48)
    assert healed < 5
    assert tunnel.last_error
