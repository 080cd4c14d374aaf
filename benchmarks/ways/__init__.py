"""The ways to take a ZeroMQ connection through SSH, behind one small interface.

Each is used as its own documentation shows it, with its defaults. What the programs read from
`$HOME` (known_hosts, the config file) is the benchmark's; nothing is imported before it is used.
"""

from __future__ import annotations

from .base import Login, Way
from .libraries import (
    Direct,
    SSHTunnelByHand,
    Tunneledzmq,
    TunneledzmqOpenSSH,
    ZmqSSH,
    ZmqSSHParamiko,
)
from .programs import AsyncSSH, Autossh, SSHProgram, SSHProgramBest, SSHProgramGCM

__all__ = ["ALL_WAYS", "WAYS", "Login", "Way"]


def _by_name(*ways: type[Way]) -> dict[str, type[Way]]:
    return {way.name: way for way in ways}


WAYS = _by_name(Tunneledzmq, ZmqSSH, ZmqSSHParamiko, SSHTunnelByHand, SSHProgram, Autossh)
"""Those of the table of faults."""

ALL_WAYS = _by_name(
    Direct,
    Tunneledzmq,
    TunneledzmqOpenSSH,
    SSHProgram,
    SSHProgramGCM,
    SSHProgramBest,
    ZmqSSH,
    ZmqSSHParamiko,
    SSHTunnelByHand,
    AsyncSSH,
)
