"""The gateway process. Started by :mod:`tunneledzmq.handles.home`."""

from __future__ import annotations

import gc
import resource
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

__all__ = ["main"]


def main(control: int) -> None:
    """Run a gateway that speaks over the descriptor `control`.

    It ends when the program does, or with its last tunnel. A signal to end is meant for the
    program, which the gateway may have messages to deliver for.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Not SIG_IGN, which the commands of a config file would inherit.
        signal.signal(getattr(signal, name), _ignore)
    # Each connection takes a descriptor, and each tunnel another.
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Nothing that is imported is garbage, and to look for some takes a tenth of the time.
    gc.disable()
    # paramiko imports it for ssh_config's "Match exec", which takes longer than the login itself.
    sys.modules["invoke"] = None  # type: ignore[assignment]

    from .gateway import Gateway

    Gateway(socket.socket(fileno=control), own_process=True).run()


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
