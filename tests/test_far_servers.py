"""Servers that are far away: how fast, and with how much memory."""

from __future__ import annotations

import threading
import time

import psutil
import zmq

from tests.delay import Delay
from tests.faults.injection import memory_growth, stopped, the_gateway
from tests.peers import Peer
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.gateway.traffic.window import (
    LARGEST_SIZE,
)

FAR = 0.1


def far_options(server: OpenSSHServer, delay: Delay, directory: str) -> SSHOptions:
    """Return options that log in to `server` from afar."""
    known_hosts = f"{directory}/known_hosts"
    with open(server.known_hosts) as here, open(known_hosts, "w") as there:
        there.write(here.read().replace(f":{server.port} ", f":{delay.port} "))
    return SSHOptions(
        f"{server.user}@{server.host}:{delay.port}",
        keyfile=server.keyfile,
        known_hosts=known_hosts,
        config_file=None,
        agent=False,
    )


def test_downloads_from_afar_are_not_limited_to_the_first_window(
    ctx: TunneledContext, openssh: OpenSSHServer, tmp_path: object
) -> None:
    message = bytes(1 << 18)
    with (
        Delay(openssh.port, FAR) as delay,
        zmq.Context() as far_ctx,
        far_ctx.socket(zmq.PUSH) as far,
    ):
        far.linger = 0
        far.sndhwm = 10
        far.sndtimeo = 0
        port = far.bind_to_random_port("tcp://127.0.0.1")
        sock = ctx.socket(zmq.PULL)
        sock.rcvhwm = 10
        sock.connect(f"tcp://127.0.0.1:{port}", ssh=far_options(openssh, delay, str(tmp_path)))

        def seconds_for(megabytes: int) -> float:
            start = time.monotonic()
            rest = megabytes * 4
            while rest:
                if far.poll(0, zmq.POLLOUT):
                    far.send(message)
                while rest and sock.poll(0 if far.poll(0, zmq.POLLOUT) else 1):
                    sock.recv(copy=False)
                    rest -= 1
            return time.monotonic() - start

        # 10 MB/s are all that the first window allows.
        wait_until(lambda: seconds_for(20) < 20 / 30, timeout=30)

        with memory_growth(the_gateway(), at_most=LARGEST_SIZE + 16_000_000):
            while far.poll(1000, zmq.POLLOUT):
                far.send(message)
        sock.close(linger=0)


def test_a_download_goes_on_as_before_when_the_link_has_stood_still(
    ctx: TunneledContext, openssh: OpenSSHServer, tmp_path: object
) -> None:
    size = 1 << 18
    with Delay(openssh.port, FAR / 2) as delay, Peer("source") as source:
        sock = ctx.socket(zmq.PULL)
        sock.connect(source.address, ssh=far_options(openssh, delay, str(tmp_path)))
        sending = threading.Thread(target=source.send, args=(2000, size))
        sending.start()

        def seconds_for(messages: int) -> float:
            start = time.monotonic()
            for _ in range(messages):
                sock.recv(copy=False)
            return time.monotonic() - start

        seconds_for(400)
        before = seconds_for(400)
        with stopped(psutil.Process(delay.pid)):
            time.sleep(0.3)
        # What has piled up in sshd would slow it down for seconds, were our packets not larger than
        # what it reads at a time: it then took 15 times as long.
        assert seconds_for(1200) < 10 * before
        sending.join()
