"""The hops that stand behind ``ProxyJump``."""

from __future__ import annotations

import re
from typing import NamedTuple

from .numbers import parse_port

__all__ = ["Hop", "parse_hops"]

_URI = "ssh://"

# What may be in a URI (OpenSSH's valid_domain()), and HOST[:PORT] in general.
_DOMAIN = re.compile(r"[a-z0-9](\.?[a-z0-9_-])*\.?", re.IGNORECASE)
_PASSWORD = re.compile(r"[^@]*?(:|%(25)*3a).*@", re.IGNORECASE)
_HOST_PORT = re.compile(r"(\[[^]]*\]|[^[:/][^:/]*)(?::(.*))?", re.DOTALL)


class Hop(NamedTuple):
    """``[user@]host[:port]``, before tokens are replaced."""

    user: str | None
    host: str
    port: int | None

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{user}[{self.host}]{port}" if ":" in self.host else f"{user}{self.host}{port}"


def parse_hops(text: str) -> list[Hop]:
    """Parse a list of hops; ``none`` is no hop.

    Raises:
        ValueError: one of them is no ``[user@]host[:port]``.
    """
    # OpenSSH 9.2 overlooks what follows a blank, and leaves quotes to the shell that runs its ssh.
    bare = re.sub(r"[\"']|[#\s].*", "", text, flags=re.ASCII | re.DOTALL)
    if bare.lower() == "none":
        return []
    if any(_PASSWORD.match(hop.removeprefix(_URI)) for hop in bare.split(",")):
        raise ValueError("invalid ProxyJump: no password can be given there")
    try:
        return [_parse_hop(hop) for hop in bare.split(",")]
    except ValueError as exc:
        raise ValueError(f"invalid ProxyJump {text!r}: {exc}") from None


def _parse_hop(text: str) -> Hop:
    is_uri = text.startswith(_URI)
    rest = text.removeprefix(_URI).removesuffix("/") if is_uri else text
    at = rest.find("@") if is_uri else rest.rfind("@")
    user = None if at < 0 else rest[:at]
    if user is not None and is_uri:
        from urllib.parse import unquote  # 5 ms, for those who write a URI

        user = unquote(user.partition(";")[0])
    match = _HOST_PORT.fullmatch(rest[at + 1 :])
    if match is None or user == "":
        raise ValueError("it is no [user@]host[:port]")
    host = match[1].removeprefix("[").removesuffix("]")
    if not host or (is_uri and not _DOMAIN.fullmatch(host)):
        raise ValueError(f"no valid host name {host!r}")
    return Hop(user, host, parse_port(match[2]) if match[2] else None)
