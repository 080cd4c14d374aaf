"""The window grows where the way to the server is long, and nowhere else."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import psutil
import pytest
import zmq

from tests.delay import Delay
from tests.faults.injection import memory_growth, stopped, the_gateway
from tests.peers import Peer
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.gateway.traffic.window import (
    FIRST_SIZE,
    LARGEST_SIZE,
    SHARED_SIZE,
    Path,
    ReceiveWindow,
)

FAR = 0.1
STEP = FIRST_SIZE // 8


class Channel:
    """A server that sends all that it may, over a path of some length, and a reader."""

    def __init__(self, path: Path) -> None:
        self.window = ReceiveWindow(path)
        self.allowed = FIRST_SIZE
        self.total_received = 0

    def send_all(self) -> None:
        """Send what the window allows."""
        assert self.window.receive(self.allowed)
        self.total_received += self.allowed
        self.allowed = 0

    def read(self, size: int) -> None:
        """Take `size` bytes, in steps."""
        for start in range(0, size, STEP):
            self.allowed += self.window.take(min(STEP, size - start))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("tunneledzmq.gateway.traffic.window.time", clock)
    return clock


def path_of(round_trip: float) -> Path:
    path = Path()
    path.answered(round_trip)
    return path


def download(channel: Channel, clock: SimpleNamespace, seconds: float) -> None:
    """Read all that arrives, a window in each round trip."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += FAR
        size = channel.allowed
        channel.send_all()
        channel.read(size)


def test_a_far_server_may_send_more_and_more(clock: SimpleNamespace) -> None:
    channel = Channel(path_of(FAR))
    download(channel, clock, seconds=8)
    assert channel.window.size == LARGEST_SIZE


def test_a_near_server_hardly_may(clock: SimpleNamespace) -> None:
    channel = Channel(path_of(0.0005))
    for _ in range(1000):
        clock.now += FIRST_SIZE / 1e9
        size = channel.allowed
        channel.send_all()
        channel.read(size)
    assert channel.window.size < 1.5 * FIRST_SIZE


def test_nobody_may_while_the_round_trip_is_unknown(clock: SimpleNamespace) -> None:
    channel = Channel(Path())
    download(channel, clock, seconds=2)
    assert channel.window.size == FIRST_SIZE


def test_an_answer_that_was_late_does_not_make_the_path_longer(clock: SimpleNamespace) -> None:
    path = path_of(0.0005)
    path.answered(3.0)
    assert path.round_trip == 0.0005


def test_a_reader_that_stalls_holds_no_more_than_its_window(clock: SimpleNamespace) -> None:
    channel = Channel(path_of(FAR))
    download(channel, clock, seconds=2)
    channel.send_all()
    assert not channel.window.receive(1)


def test_a_slow_reader_gets_a_small_window_again(clock: SimpleNamespace) -> None:
    path = path_of(FAR)
    channel = Channel(path)
    download(channel, clock, seconds=8)
    sent = channel.allowed
    channel.send_all()
    for _ in range(sent // STEP):
        clock.now += 0.3
        channel.read(STEP)
    assert channel.window.size < 1.5 * FIRST_SIZE
    assert channel.allowed <= channel.window.size
    assert path.spare == SHARED_SIZE + FIRST_SIZE - channel.window.size


def test_all_windows_together_have_a_limit(clock: SimpleNamespace) -> None:
    path = path_of(FAR)
    channels = [Channel(path) for _ in range(10)]
    for _ in range(40):
        clock.now += FAR
        for channel in channels:
            size = channel.allowed
            channel.send_all()
            channel.read(size)
    assert sum(channel.window.size - FIRST_SIZE for channel in channels) == SHARED_SIZE
    for channel in channels:
        channel.window.close()
    assert path.spare == SHARED_SIZE


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
