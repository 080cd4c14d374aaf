"""Waiting without stopping gevent's hub. gevent is imported by programs only."""

from __future__ import annotations

import sys
from typing import Any

from .handles.pool import GatewayPool
from .tunnel import Tunnel

__all__ = ["is_green", "open_beside"]


def is_green() -> bool:
    """Tell whether a greenlet of gevent's runs, which must not block the thread's other ones."""
    gevent: Any = sys.modules.get("gevent")
    return hasattr(gevent, "Greenlet") and isinstance(gevent.getcurrent(), gevent.Greenlet)


def open_beside(pool: GatewayPool, tunnel: Tunnel) -> None:
    """Open a tunnel, and let the other greenlets run meanwhile.

    Raises:
        TunnelError: see :meth:`GatewayPool.open`.
        BaseException: what the greenlet is interrupted with (`gevent.Timeout`, its end); the tunnel
            is given up.
    """
    gevent: Any = sys.modules["gevent"]
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        pool.open(tunnel)  # what blocks there are greenlets
        return
    # The hub's own pool has but a few threads, which look up names for all greenlets.
    hub = gevent.get_hub()
    threads = hub.threadpool_class(1, hub=hub)
    try:
        error = threads.apply(_open, (pool, tunnel))
    except BaseException:
        if tunnel.state != "closed":
            tunnel._cut()
        raise
    finally:
        threads.maxsize = 0  # its thread ends, when it is through
    if error is not None:
        raise error


def _open(pool: GatewayPool, tunnel: Tunnel) -> Exception | None:
    """Open it, on a thread of gevent's, which prints what is raised there."""
    try:
        pool.open(tunnel)
    except Exception as exc:
        return exc
    return None
