"""The errors of this package.

* :exc:`TunnelError`, a :exc:`zmq.ZMQError` and, as with zmq.ssh, a :exc:`RuntimeError`

  * :exc:`SSHConnectionError`
  * :exc:`SSHAuthenticationError`
  * :exc:`HostKeyError`

    * :exc:`UnknownHostKeyError`
    * :exc:`HostKeyChangedError`

  * :exc:`GatewayError`

Malformed arguments are a :exc:`ValueError` or a :exc:`TypeError`, as everywhere in Python; a
malformed address (:exc:`AddressError`) is a :exc:`zmq.ZMQError` as well.
"""

from __future__ import annotations

import errno

import zmq

from .words import say

__all__ = [
    "AddressError",
    "GatewayError",
    "HostKeyChangedError",
    "HostKeyError",
    "SSHAuthenticationError",
    "SSHConnectionError",
    "TunnelError",
    "UnknownHostKeyError",
]


class AddressError(zmq.ZMQError, ValueError):
    """A malformed address; programs that connect directly catch it as :exc:`zmq.ZMQError`."""

    def __init__(self, msg: str, errno: int = errno.EINVAL) -> None:
        super().__init__(errno, msg)


class TunnelError(zmq.ZMQError, RuntimeError):
    """A tunnel could not be set up.

    Programs that connect directly catch it as :exc:`zmq.ZMQError`, those for zmq.ssh as
    :exc:`RuntimeError`.

    Args:
        errno: an :mod:`errno` code that fits the cause.
        msg: what failed, at which server, and what to do about it.
    """

    def __init__(self, errno: int | None = None, msg: str | None = None) -> None:
        super().__init__(errno, None if msg is None else say(msg))


class SSHConnectionError(TunnelError):
    """No SSH session: name not found, refused, unreachable, timed out, or no SSH server there."""


class SSHAuthenticationError(TunnelError):
    """The server did not let us in, or a private key could not be used."""


class HostKeyError(TunnelError):
    """The server could not prove that it is the one that it should be."""


class UnknownHostKeyError(HostKeyError):
    """The server's host key stands in no known_hosts file."""


class HostKeyChangedError(HostKeyError):
    """known_hosts has another key for this server."""


class GatewayError(TunnelError):
    """The gateway process could not be started, or died and could not be restarted."""
