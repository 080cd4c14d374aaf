"""Commands of the config file end, and nobody waits long for one that does not."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.polling import wait_until
from tunneledzmq.gateway.login import Login, LoginError
from tunneledzmq.gateway.reach.proxy_command import ProxySocket, connect_over_command, explain
from tunneledzmq.gateway.reach.shell import ShellCommand, finish
from tunneledzmq.shared.system.job import Job

# A decision takes so long at most, on a busy machine.
AT_ONCE = 0.1

DEAF = "sh -c 'trap \"\" HUP; echo deaf >&2; while :; do sleep 0.05; done'"


@pytest.fixture
def connect(tmp_path: Path) -> Callable[[str], tuple[ProxySocket, psutil.Process]]:
    """Connects over a command."""

    def connect(command: str) -> tuple[ProxySocket, psutil.Process]:
        sock = connect_over_command(login_over(command, tmp_path))
        assert sock.command is not None
        stderr = sock.command._stderr
        wait_until(lambda: Path(f"/proc/self/fd/{stderr.fileno()}").read_bytes() == b"deaf\n")
        return sock, psutil.Process(sock.command._process.pid)

    return connect


@pytest.fixture
def not_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets no signal pass, as to a command that sudo runs."""
    hang_up, kill = Job.hang_up, Job.kill
    jobs: list[Job] = []
    monkeypatch.setattr(Job, "hang_up", lambda job: jobs.append(job))
    monkeypatch.setattr(Job, "kill", lambda job: jobs.append(job))
    yield
    assert jobs
    monkeypatch.setattr(Job, "hang_up", hang_up)
    monkeypatch.setattr(Job, "kill", kill)
    for job in jobs:
        job.kill()


def login_over(command: str, directory: Path) -> Login:
    return Login("me@there:22", "there", 22, "me", proxy_command=command, directory=str(directory))


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_who_closes_does_not_wait_for_the_command(
    how: str, connect: Callable[[str], tuple[ProxySocket, psutil.Process]]
) -> None:
    sock, process = connect(DEAF)
    began = time.monotonic()
    if how == "shutdown":
        sock.shutdown(2)
    sock.close()
    assert time.monotonic() - began < AT_ONCE
    wait_until(lambda: not process.is_running())  # neither as a zombie


def test_what_was_closed_has_ended_before_the_gateway_ends(
    connect: Callable[[str], tuple[ProxySocket, psutil.Process]],
) -> None:
    sock, process = connect(DEAF)
    sock.close()
    finish()
    assert not process.is_running()


@pytest.mark.usefixtures("not_ours")
def test_nobody_waits_long_for_a_command_that_we_may_not_kill(
    connect: Callable[[str], tuple[ProxySocket, psutil.Process]],
) -> None:
    sock, process = connect(DEAF)
    began = time.monotonic()
    sock.close()
    assert time.monotonic() - began < AT_ONCE
    error = explain(LoginError("SSHConnectionError", 1, "x"), sock, login_over(DEAF, Path("/")))
    finish()
    assert time.monotonic() - began < 2
    assert "(it was still running: deaf)" in error.message
    assert process.status() != psutil.STATUS_ZOMBIE
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: not process.is_running())  # reaped, by whoever was left to wait for it


@pytest.mark.usefixtures("not_ours")
def test_a_condition_that_we_may_not_kill_is_given_up(tmp_path: Path) -> None:
    """As that of a Match exec."""
    command = ShellCommand(f"exec {shlex.join(['sleep', '7655'])}", str(tmp_path))
    began = time.monotonic()
    assert command.wait(0.1) is None
    command.end()
    assert time.monotonic() - began < 2
