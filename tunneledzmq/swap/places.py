"""Where pyzmq holds the classes that programs make contexts and sockets from."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import zmq

from ..context import PlainContext, TunneledContext
from ..mixing import tunneled
from ..socket import PlainSocket, TunneledSocket

__all__ = ["MADE_FROM_PLAIN_CLASSES", "MODULES", "put", "take_out"]

Place = tuple[Any, str, Any, Any]
"""An object, the name of its attribute, what pyzmq has there, and what we put there."""


class _Plain(types.ModuleType):
    """The module `zmq` with its own classes, for pyzmq's code that asks ``isinstance``."""

    Context = PlainContext
    Socket = PlainSocket

    def __getattr__(self, name: str) -> Any:
        return getattr(zmq, name)


_plain = _Plain("zmq")
_plain_init = PlainContext.__init__


@functools.wraps(_plain_init)
def _init(self: Any, io_threads: Any = 1, shadow: Any = 0) -> None:
    # It asks whether that is a Context by a name of its module, where ours stands now.
    if isinstance(io_threads, PlainContext):
        io_threads, shadow = 1, io_threads
    _plain_init(self, io_threads, shadow)


def _of_zmq(module: Any) -> Iterator[Place]:
    yield module, "Context", PlainContext, TunneledContext
    yield module, "Socket", PlainSocket, TunneledSocket


def _of_sugar_context(module: Any) -> Iterator[Place]:
    yield module, "Context", PlainContext, TunneledContext
    yield PlainContext, "__init__", _plain_init, _init


def _of_sugar_socket(module: Any) -> Iterator[Place]:
    yield module, "Socket", PlainSocket, TunneledSocket
    yield module, "zmq", zmq, _plain


def _of_future(module: Any) -> Iterator[Place]:
    yield module, "_zmq", zmq, _plain


def _of_asyncio(module: Any) -> Iterator[Place]:
    from .. import asyncio

    yield module, "Context", asyncio.PlainContext, asyncio.TunneledContext
    yield module, "Socket", asyncio.PlainSocket, asyncio.TunneledSocket


def _of_green(module: Any) -> Iterator[Place]:
    from .. import green

    for owner, prefix in ((module, ""), (module.core, "_")):
        yield owner, f"{prefix}Context", green.PlainContext, green.TunneledContext
        yield owner, f"{prefix}Socket", green.PlainSocket, green.TunneledSocket


def _of_eventloop(module: Any) -> Iterator[Place]:
    context, sock = module.Context, module.Socket
    ours = type("Context", (context, TunneledContext), {"_instance": None})
    yield module, "Context", context, ours
    yield module, "Socket", sock, tunneled(sock)


def _of_devices(module: Any) -> Iterator[Place]:
    yield module, "Context", PlainContext, TunneledContext
    yield module.Device, "context_factory", PlainContext.instance, TunneledContext.instance
    yield module.ProcessDevice, "context_factory", PlainContext, TunneledContext


def _of_ssh(module: Any) -> Iterator[Place]:
    # What they tunnel would be tunnelled once more: from the server to the port on this machine.
    from .. import ssh

    for name in ssh.FUNCTIONS:
        if hasattr(module, name):
            yield module, name, getattr(module, name), getattr(ssh, name)


MODULES: dict[str, Callable[[Any], Iterator[Place]]] = {
    "zmq": _of_zmq,
    "zmq.sugar": _of_zmq,
    "zmq.sugar.context": _of_sugar_context,
    "zmq.sugar.socket": _of_sugar_socket,
    "zmq._future": _of_future,
    "zmq.asyncio": _of_asyncio,
    "zmq.green": _of_green,
    "zmq.eventloop.future": _of_eventloop,
    "zmq.devices.basedevice": _of_devices,
    "zmq.ssh": _of_ssh,
    "zmq.ssh.tunnel": _of_ssh,
    "jupyter_client.ssh": _of_ssh,
    "jupyter_client.ssh.tunnel": _of_ssh,
}
"""What finds the places in a module, for all that have any."""

MADE_FROM_PLAIN_CLASSES = ("zmq._future", "zmq.asyncio", "zmq.green", "zmq.eventloop.future")
"""Modules that derive classes, of which ours are derived."""


def put(places: Iterable[Place]) -> None:
    """Put our classes into places. What others have put there stays."""
    for owner, attribute, plain, ours in places:
        if vars(owner).get(attribute) == plain:
            setattr(owner, attribute, ours)


def take_out(places: Iterable[Place]) -> None:
    """Put pyzmq's classes back into places."""
    for owner, attribute, plain, ours in places:
        if vars(owner).get(attribute) == ours:
            setattr(owner, attribute, plain)
