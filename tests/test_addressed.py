"""A socket finds its tunnels by their names."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

from tests.deadline import ending
from tunneledzmq import SSHOptions, TunneledContext
from tunneledzmq.addressed import AddressedTunnels
from tunneledzmq.handles.pool import GatewayPool
from tunneledzmq.tunnel import Tunnel

OPTIONS = SSHOptions("me@bastion")


def up(addr: str, local: str) -> Tunnel:
    tunnel = Tunnel(addr, OPTIONS, local)
    tunnel._opened = tunnel._has_session = True
    return tunnel


def test_a_tunnel_is_found_by_its_address_and_by_its_local_endpoint() -> None:
    tunnels = AddressedTunnels()
    one, two, other = up("a", "x"), up("a", "y"), up("b", "z")
    for tunnel, addr in ((one, "a"), (two, "a"), (other, "b")):
        tunnels.add(tunnel, addr)
    assert tunnels.named("a") == tunnels.to("a") == [one, two]
    assert (tunnels.named("y"), tunnels.to("y")) == ([two], [])
    assert tunnels.named("b", "z") == [other]
    tunnels.discard(one)
    tunnels.discard(one)
    two._cut()
    assert tunnels.named("a", "x") == []
    assert list(tunnels) == [two, other]
    other._ended = True
    assert (tunnels.named("b"), tunnels.to("b")) == ([other], [])


def test_closed_tunnels_are_forgotten() -> None:
    tunnels = AddressedTunnels()
    for number in range(1000):
        tunnel = up("a", f"x{number}")
        tunnels.add(tunnel, "a")
        if number > 2:
            tunnel._cut()
            tunnel._ended = True
        assert len(tunnels) <= 16
    assert [tunnel.local for tunnel in tunnels.named("a")] == ["x0", "x1", "x2"]


def test_a_connect_does_not_look_at_all_tunnels(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    class Watched(Tunnel):
        @property
        def state(self) -> str:
            nonlocal looks
            looks += 1
            return super().state

    def opened(self: GatewayPool, tunnel: Any) -> None:
        tunnel.__class__ = Watched
        tunnel._local = f"inproc://{tunnel.remote}"
        tunnel._opened = tunnel._has_session = True

    monkeypatch.setattr(GatewayPool, "open", opened)
    many = 300
    with ending(TunneledContext(ssh=OPTIONS)) as ctx, ctx.socket(zmq.SUB) as sock:
        for _ in range(2):  # the second time it is connected already
            for number in range(1, many + 1):
                sock.connect(f"tcp://10.0.1.2:{number}")
        assert len(sock.tunnels) == many
        for number in range(1, many + 1):
            sock.disconnect(f"tcp://10.0.1.2:{number}")
        assert sock.tunnels == []
    assert looks < 10 * many
