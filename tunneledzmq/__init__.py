"""ZeroMQ through SSH: swap `zmq.Context` for `TunneledContext`, and `connect` takes ``ssh=``."""

from __future__ import annotations

import logging

from .context import TunneledContext
from .exceptions import (
    GatewayError,
    HostKeyChangedError,
    HostKeyError,
    SSHAuthenticationError,
    SSHConnectionError,
    TunnelError,
    UnknownHostKeyError,
)
from .options import SSHOptions
from .socket import TunneledSocket
from .swap import install, uninstall
from .tunnel import Tunnel, TunnelStats

__all__ = [
    "GatewayError",
    "HostKeyChangedError",
    "HostKeyError",
    "SSHAuthenticationError",
    "SSHConnectionError",
    "SSHOptions",
    "Tunnel",
    "TunnelError",
    "TunnelStats",
    "TunneledContext",
    "TunneledSocket",
    "UnknownHostKeyError",
    "install",
    "uninstall",
]

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())
