"""libzmq's end of the local leg holds more than the kernel gives it, where that can be had."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest
import zmq

from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.handles import local_leg
from tunneledzmq.handles.local_leg import enlarge_buffer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc/self/fd")


def buffers(path: str) -> list[int]:
    """Return the buffers of this process's connections to a Unix socket."""
    sizes = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if sock.family == socket.AF_UNIX and sock.getpeername() == path:
                    sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
    return sizes


def test_a_tunnels_connection_has_a_larger_buffer(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    with socket.socket(socket.AF_UNIX) as plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    path = sock.tunnels[0].local[len("ipc://") :]
    wait_until(lambda: [size for size in buffers(path) if size > usual])
    round_trip(sock)


def test_other_descriptors_are_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as ours,
        socket.create_server(("127.0.0.1", 0)) as other,
        open(os.devnull) as file,
    ):
        listener.bind(path)
        listener.listen()
        assert enlarge_buffer(path) == 0
        usual = other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        ours.connect(path)
        assert enlarge_buffer(path) == 0, "libzmq's do not block"
        ours.setblocking(False)
        assert enlarge_buffer(path) == 1
        assert other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual
        assert file.read() == ""
        listener.accept()[0].close()
        ours.setblocking(True)
        assert ours.recv(1) == b""


def test_blocking_sockets_stay_so(tmp_path: Path) -> None:
    """Those of other libraries, which do not know what the program has chosen for Python's."""
    one, other = socket.socketpair()
    with one, other:
        socket.setdefaulttimeout(30)
        try:
            assert enlarge_buffer(str(tmp_path / "s")) == 0
        finally:
            socket.setdefaulttimeout(None)
        assert os.get_blocking(one.fileno())
        assert os.get_blocking(other.fileno())


def test_where_it_cannot_be_had_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_leg, "_DESCRIPTORS", "/nowhere")
    assert enlarge_buffer("/tmp/s") == 0
