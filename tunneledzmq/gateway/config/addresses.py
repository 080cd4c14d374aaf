"""Names and addresses of hosts, as OpenSSH writes them."""

from __future__ import annotations

import socket

__all__ = ["canonical_host", "is_address", "lower"]


def canonical_host(host: str, family: int = socket.AF_UNSPEC) -> str:
    """Return an IP address as the system writes it, and a name in lower case.

    Args:
        family: a ``socket.AF_*`` constant; addresses of another one are left as they are.
    """
    # Bytes, since Python would make addresses of names that aren't ASCII, and ssh wouldn't.
    encoded = host.encode("utf-8", "surrogateescape")
    try:
        (found,) = socket.getaddrinfo(
            encoded, None, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        name, _ = socket.getnameinfo(found[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    except (OSError, ValueError):
        return host if is_address(host) else lower(host)
    return host if name == host.lower() else name


def is_address(host: str) -> bool:
    """Tell whether it looks like an IP address, if only to OpenSSH (``is_addr_fast``)."""
    return "%" in host or ":" in host or not host.strip("0123456789.")


def lower(text: str) -> str:
    """Turn letters of ASCII into lower case, and no others."""
    return text.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")
