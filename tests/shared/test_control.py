"""The control pipe, whose ends do not wait for each other."""

from __future__ import annotations

import gc
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.polling import wait_until
from tests.stepping import interrupted_at_line
from tunneledzmq.gateway.records import RecordSender
from tunneledzmq.shared.control import ControlChannel, Message
from tunneledzmq.shared.system.descriptors import socketpair
from tunneledzmq.shared.system.process import open_control

Ends = tuple[ControlChannel, ControlChannel]

MANY = 2_000
"""Messages, more than any socket's buffers hold."""


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = map(ControlChannel, socketpair())
    yield one, other
    one.close()
    other.close()


def send_many(control: ControlChannel) -> None:
    start = time.monotonic()
    for number in range(MANY):
        control.send({"type": "log", "number": number, "message": "x" * 3_000})
    assert time.monotonic() - start < 5
    assert control.unsent


def receive(control: ControlChannel, count: int) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        got = control.receive()
        assert got is not None
        messages += got
    return messages


def test_nobody_waits_for_an_end_that_does_not_receive(ends: Ends) -> None:
    """Both ends send before they receive: neither would get to that if sending waited."""
    for end in ends:
        send_many(end)
    for end in ends:
        assert [message["number"] for message in receive(end, MANY)] == list(range(MANY))
    wait_until(lambda: not any(end.unsent for end in ends))
    for end, other in (ends, ends[::-1]):
        end.send({"type": "tick"})
        assert receive(other, 1) == [{"type": "tick"}]


def test_what_several_threads_send_stays_in_each_ones_order(ends: Ends) -> None:
    one, other = ends

    def send(name: int) -> None:
        for number in range(1_000):
            one.send({"name": name, "number": number})

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    messages = receive(other, 4_000)
    for name in range(4):
        numbers = [each["number"] for each in messages if each["name"] == name]
        assert numbers == list(range(1_000))


def test_a_finalizer_that_interrupts_sending_only_queues(ends: Ends) -> None:
    one, other = ends

    class Sends:
        def __init__(self) -> None:
            self.itself = self  # for the collector alone

        def __del__(self) -> None:
            one.send({"type": "finalizer"})

    count = 200
    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for _ in range(count):
            Sends()
            one.send({"type": "log", "list": [[] for _ in range(20)]})
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    kinds = [message["type"] for message in receive(other, 2 * count)]
    assert kinds.count("finalizer") == kinds.count("log") == count


def test_descriptors_come_with_their_messages_however_late(ends: Ends) -> None:
    one, other = ends
    send_many(one)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        name = listener.getsockname()
        one.send({"type": "open", "listener": listener})
        *_, message = receive(other, MANY + 1)
        with message["listener"] as got:
            assert got.getsockname() == name


def test_the_last_words_are_waited_for(ends: Ends) -> None:
    one, other = ends
    send_many(one)
    finishing = threading.Thread(target=one.finish)
    finishing.start()
    assert len(receive(other, MANY)) == MANY
    finishing.join(5)
    assert other.receive() is None


def test_an_end_that_is_gone_is_no_error(ends: Ends) -> None:
    one, other = ends
    send_many(one)
    other.close()
    wait_until(lambda: not one.unsent)
    one.send({"type": "tick"})
    one.close()
    one.send({"type": "tick"})


def test_an_end_that_is_closed_while_it_sends_is_no_error() -> None:
    moment, met = 0, True
    while met:
        one, other = map(ControlChannel, socketpair())
        met = interrupted_at_line(moment, lambda: one.send({"type": "tick"}), one.close)  # noqa: B023
        one.close()
        other.close()
        moment += 1
    assert moment > 15


def test_where_there_are_no_threads_left_the_sender_waits(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    one, other = ends
    got: list[Message] = []
    receiving = threading.Thread(target=lambda: got.extend(receive(other, MANY)))
    receiving.start()
    monkeypatch.setattr("_thread.start_new_thread", none_left)
    for number in range(MANY):
        one.send({"number": number, "message": "x" * 3_000})
    receiving.join(10)
    assert len(got) == MANY


@pytest.mark.skipif(sys.platform == "win32", reason="there it is no descriptor")
def test_nothing_is_lost_where_the_descriptor_came_non_blocking() -> None:
    """As from a program that gevent has patched."""
    ours, theirs = socketpair()
    theirs.setblocking(False)
    one, other = ControlChannel(open_control(theirs.detach())), ControlChannel(ours)
    send_many(one)
    assert [message["number"] for message in receive(other, MANY)] == list(range(MANY))
    one.close()
    other.close()


def test_silence_is_no_end_of_file_whatever_timeout_the_program_has() -> None:
    socket.setdefaulttimeout(0.2)
    try:
        one, other = map(ControlChannel, socketpair())
    finally:
        socket.setdefaulttimeout(None)
    late = threading.Timer(0.5, one.send, [{"type": "tick"}])
    late.start()
    assert receive(other, 1) == [{"type": "tick"}]
    one.close()
    other.close()


def test_log_records_are_left_out_while_the_program_takes_none(ends: Ends) -> None:
    one, other = ends
    logger = logging.Logger("tunneledzmq", logging.DEBUG)
    logger.addHandler(RecordSender(one))
    for number in range(MANY):
        logger.info("number %d", number)
    kept = one.unsent
    assert 0 < kept <= 1_001, "with a word on those that are left out"
    sent = receive(other, kept)
    while one.unsent:
        sent += receive(other, 1)
    logger.info("again")
    while sent[-1]["message"] != "again":
        sent += receive(other, 1)
    told = [message for message in sent if message["level"] == logging.WARNING]
    assert sent[-2] in told
    assert all(
        message["message"].endswith(" records were left out: the program did not take them")
        for message in told
    )
    left_out = sum(int(message["message"].split()[0]) for message in told)
    assert len(sent) - len(told) == MANY + 1 - left_out
