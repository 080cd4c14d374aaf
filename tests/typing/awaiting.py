"""Every public name of `tunneledzmq.asyncio`, as users write it. Type checkers read it."""

from __future__ import annotations

import asyncio

import zmq
import zmq.asyncio
from typing_extensions import assert_type

import tunneledzmq
from tunneledzmq import SSHOptions, Tunnel
from tunneledzmq.asyncio import TunneledContext, TunneledSocket

ADDR = "tcp://10.0.1.2:5555"


async def contexts(plain: zmq.asyncio.Context, blocking: tunneledzmq.TunneledContext) -> None:
    assert_type(TunneledContext(), TunneledContext)
    assert_type(TunneledContext(2, ssh="me@bastion", isolate=False), TunneledContext)
    assert_type(TunneledContext(plain), TunneledContext)
    assert_type(TunneledContext(shadow=blocking), TunneledContext)
    assert_type(TunneledContext.instance(), TunneledContext)
    assert_type(TunneledContext.shadow(blocking), TunneledContext)
    assert_type(tunneledzmq.TunneledContext(TunneledContext()), tunneledzmq.TunneledContext)
    with TunneledContext(ssh=["first", SSHOptions("second")]) as ctx:
        assert_type(ctx, TunneledContext)
        assert_type(ctx.tunnels, list[Tunnel])
        assert_type(ctx.socket(zmq.REQ), TunneledSocket)
    ctx.destroy(linger=0)
    ctx.term()


async def sockets(sock: TunneledSocket) -> None:
    assert_type(await sock.connect(ADDR, ssh="me@bastion", local="tcp://127.0.0.1:*"), None)
    await asyncio.wait_for(sock.connect(ADDR, None), 5)
    await asyncio.gather(sock.connect(ADDR), sock.connect(ADDR.encode(), ssh=("a", "b")))
    with sock.connect(ADDR) as same:
        assert_type(same, TunneledSocket)
    async with sock.connect(ADDR, ssh=SSHOptions("me@bastion")) as same:
        assert_type(same, TunneledSocket)
    assert_type(await sock.recv(), bytes)
    assert_type(await sock.recv_multipart(), list[bytes])
    assert_type(await sock.recv_string(), str)
    await sock.send(b"hello")
    assert_type(sock.tunnels, list[Tunnel])
    sock.disconnect(ADDR)
    sock.close(linger=0)


def takes_a_context(ctx: zmq.asyncio.Context, sock: zmq.asyncio.Socket) -> None:
    """As jupyter_client annotates its parameters."""


takes_a_context(TunneledContext(), TunneledContext().socket(zmq.REQ))
