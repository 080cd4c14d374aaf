"""Threads may share a context; they dial once, and none waits for another's server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from tests.faults.injection import login_attempts
from tests.leaks import gateways
from tests.peers import Peer, round_trip
from tests.polling import PATIENCE, wait_until
from tests.sshd import OpenSSHServer
from tests.strangers import SilentPort
from tunneledzmq import SSHConnectionError, SSHOptions, TunneledContext

Figures = Callable[[str], None]

THREADS = 50


def test_fifty_threads_dial_once(
    any_ctx: TunneledContext,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    figures: Figures,
) -> None:
    before = login_attempts(openssh)
    together = threading.Barrier(THREADS)

    def talk(number: int) -> None:
        together.wait()
        for _ in range(3):
            with any_ctx.socket(zmq.REQ) as sock:
                sock.connect(echo.address, ssh=openssh_options)
                for _ in range(5):
                    round_trip(sock, b"%d" % number)

    with any_ctx.socket(zmq.REQ) as holder, ThreadPoolExecutor(THREADS + 1) as pool:
        # Keeps the session while all others happen to be between two sockets.
        held = pool.submit(holder.connect, echo.address, ssh=openssh_options)
        start = time.monotonic()
        list(pool.map(talk, range(THREADS)))
        held.result()
        taken = time.monotonic() - start
    dials = login_attempts(openssh) - before
    figures(f"{THREADS} threads x 3 sockets: {dials} dial, {taken:.2f} s")
    assert dials == 1
    wait_until(lambda: not any_ctx.tunnels)


def test_a_connect_that_waits_for_a_dead_server_delays_nobody(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, figures: Figures
) -> None:
    raised = threading.Event()
    with SilentPort() as silent:
        dead = SSHOptions(
            f"me@127.0.0.1:{silent.port}",
            config_file=None,
            agent=False,
            connect_timeout=3 * PATIENCE,
        )

        def wait_for_the_dead() -> None:
            with any_ctx.socket(zmq.REQ) as sock, pytest.raises(SSHConnectionError):
                sock.connect(echo.address, ssh=dead)
            raised.set()

        waiting = [threading.Thread(target=wait_for_the_dead) for _ in range(5)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: len(any_ctx.tunnels) == len(waiting))
        start = time.monotonic()
        kept = any_ctx.socket(zmq.REQ)
        kept.connect(echo.address, ssh=openssh_options)
        round_trip(kept)
        first = time.monotonic() - start
        for _ in range(20):
            with any_ctx.socket(zmq.REQ) as sock:
                sock.connect(echo.address, ssh=openssh_options)
                round_trip(sock)
        rest = time.monotonic() - start - first
        assert not raised.is_set()
        figures(f"meanwhile: login {first:.2f} s, 20 further sockets {rest:.2f} s")
        assert first < 2 * PATIENCE
        assert rest < 2 * PATIENCE
        for thread in waiting:
            thread.join()


def test_a_thread_that_ends_with_its_socket_open_takes_nothing_along(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    socks: list[zmq.Socket[bytes]] = []

    def connect() -> None:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=openssh_options)
        socks.append(sock)

    threads = [threading.Thread(target=connect) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gateways()) == 1
    for sock in socks:
        round_trip(sock)
