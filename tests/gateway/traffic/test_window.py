"""The window grows where the way to the server is long, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

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
