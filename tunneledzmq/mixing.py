"""Sockets of other classes: the tunnelling is mixed into the class that was asked for."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import zmq

from .default import default_for
from .socket import PlainSocket, TunneledSocket, to_text

__all__ = ["TWINS", "add_twin", "adopt", "guard", "maker", "tunneled"]

_plain_connect = PlainSocket.connect

TWINS = {"zmq.asyncio": "tunneledzmq.asyncio", "zmq.green": "tunneledzmq.green"}
"""Where pyzmq's other kinds of sockets are, and the modules that have their twins.

They are imported where a program has imported those.
"""

# Their classes, and ours.
_twins: list[tuple[Any, Any]] = []


def add_twin(plain: Any, twin: Any) -> None:
    """Have `twin` be the class of this package for sockets of the class `plain`."""
    _twins.append((plain, twin))


def tunneled(kind: Any) -> type[TunneledSocket[Any]]:
    """Return the class of sockets that are what `kind` makes, and connect through servers.

    What `kind` overrides stays in front: its `connect` is given the program's addresses.

    Raises:
        TypeError: it cannot be made.
    """
    made: type[TunneledSocket[Any]] = kind if issubclass(kind, TunneledSocket) else _mixed(kind)
    return made


@functools.cache
def _mixed(kind: Any) -> Any:
    twin = _twin(kind)
    if issubclass(twin, kind):
        return twin
    name = kind.__dict__.get("_repr_cls", f"{kind.__module__}.{kind.__qualname__}")
    members = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (kind, twin), {**members, "_repr_cls": name})


def _twin(kind: Any) -> Any:
    """Return the class of this package for sockets of a kind."""
    for theirs, ours in TWINS.items():
        if theirs in sys.modules:
            importlib.import_module(ours)
    return next((twin for plain, twin in _twins if issubclass(kind, plain)), TunneledSocket)


def maker(kind: Callable[..., Any], *, needed: bool) -> Callable[..., Any]:
    """Return what makes the sockets of a context.

    Args:
        kind: what was asked for: a class, or something else that makes sockets.
        needed: whether the context has a default for ``ssh=``.

    Raises:
        TypeError: the tunnelling cannot be mixed into that class, and is needed.
    """
    if not isinstance(kind, type):
        return lambda *args, **kwargs: _adopted(kind(*args, **kwargs), needed)
    if not issubclass(kind, PlainSocket):
        return kind  # its own sockets are looked at when they connect
    try:
        return tunneled(kind)
    except TypeError as exc:
        if needed:
            raise _cannot_mix(kind, exc) from exc
        return kind


def _adopted(made: Any, needed: bool) -> Any:
    if isinstance(made, PlainSocket):
        try:
            return adopt(made)
        except TypeError:
            if needed:
                made.close()
                raise
    return made


def adopt(sock: zmq.Socket[Any]) -> TunneledSocket[Any]:
    """Have a socket connect through servers, and close its tunnels when it is closed or collected.

    Its class is changed because nothing else sees each of its ends (close(), with, destroy(),
    collection) without keeping the socket alive.

    Raises:
        TypeError: the tunnelling cannot be mixed into its class.
    """
    if not isinstance(sock, TunneledSocket):
        kind = type(sock)
        try:
            sock.__class__ = tunneled(kind)
        except TypeError as exc:
            raise _cannot_mix(kind, exc) from exc
        assert isinstance(sock, TunneledSocket)
        sock._begin_tunnels()
    return sock


TunneledSocket._adopt_for_tunnels = staticmethod(adopt)


def _cannot_mix(kind: Any, exc: TypeError) -> TypeError:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return TypeError(
        f"{name} cannot be made to connect through a server ({exc}): derive it from TunneledSocket"
    )


def guard() -> None:
    """Let no socket connect directly for which there is a default, however it was made.

    ``zmq.Socket(context, zmq.REQ)`` asks the context for nothing, so that pyzmq's own `connect` is
    the one place where it is seen. For all others it stays what it was.
    """
    if PlainSocket.connect is not _guarded_connect:
        PlainSocket.connect = _guarded_connect


@functools.wraps(_plain_connect)
def _guarded_connect(self: Any, addr: str | bytes, *args: Any, **kwargs: Any) -> Any:
    if isinstance(self, TunneledSocket):
        if self._past_tunnels:
            return _plain_connect(self, addr)
        # Its class names pyzmq's method, instead of what it inherits.
        return _twin(type(self)).connect(self, addr, *args, **kwargs)
    if default_for(self, to_text(addr)) is None:
        return _plain_connect(self, addr, *args, **kwargs)
    return _twin(type(adopt(self))).connect(self, addr, *args, **kwargs)
