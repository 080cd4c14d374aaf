"""The gateway process. Started by :mod:`tunneledzmq.home`."""

from __future__ import annotations

import signal
import socket
import sys

__all__ = ["main"]


def main(control: int) -> None:
    """Run a gateway that speaks over the descriptor `control`.

    It ends when the program does, or with its last tunnel. A signal to end is meant for the
    program, which the gateway may have messages to deliver for.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # paramiko imports it for ssh_config's "Match exec", which takes longer than the login itself.
    sys.modules["invoke"] = None  # type: ignore[assignment]

    from .gateway import Gateway

    Gateway(socket.socket(fileno=control), own_process=True).run()
