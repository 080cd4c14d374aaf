"""The gateway process. Started by :mod:`tunneledzmq.handles.home`."""

from __future__ import annotations

import gc
import sys

from ..shared.system.process import deafen, hear_of_children, open_control, raise_limits

__all__ = ["main"]


def main(control: int) -> None:
    """Run a gateway that speaks over `control`, as :func:`.open_control` has it.

    It ends when the program does, or with its last tunnel. A signal to end is meant for the
    program, which the gateway may have messages to deliver for.
    """
    deafen()
    hear_of_children()
    sock = open_control(control)
    raise_limits()
    # Nothing that is imported is garbage, and to look for some takes a tenth of the time.
    gc.disable()
    # paramiko imports it for ssh_config's "Match exec", which takes longer than the login itself.
    sys.modules["invoke"] = None  # type: ignore[assignment]

    from .gateway import Gateway

    Gateway(sock, own_process=True).run()
