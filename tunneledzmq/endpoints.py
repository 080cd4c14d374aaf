"""ZeroMQ endpoints: the far one that a tunnel leads to, and the local leg's."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from .exceptions import AddressError
from .shared.names import is_ipv6, split_host_port
from .shared.system.leg import HAS_UNIX_SOCKETS

__all__ = ["RemoteEndpoint", "check_local", "excepted", "is_tcp", "parse_remote", "to_patterns"]

# sun_path has 108 bytes on Linux and 104 on the BSDs and macOS, with the closing zero.
MAX_IPC_PATH = 103

# Characters of a name in DNS (RFC 1035, section 2.3.4), written out.
_MAX_NAME = 253

# Those that libzmq knows (zmq(7)).
_PROTOCOLS = ("inproc", "ipc", "tcp", "pgm", "epgm", "norm", "tipc", "udp", "ws", "wss", "vmci")


class RemoteEndpoint(NamedTuple):
    """``tcp://HOST:PORT`` as the SSH server sees it."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def is_tcp(addr: str) -> bool:
    """Tell whether `addr` is a ``tcp://`` endpoint."""
    return addr.startswith("tcp://")


def parse_remote(addr: str) -> RemoteEndpoint:
    """Parse the endpoint that is to be reached from the SSH server.

    Args:
        addr: ``tcp://HOST:PORT``; HOST is a name, an IPv4 address or an IPv6 address. A source
            address (``tcp://SOURCE;HOST:PORT``, zmq_tcp(7)) has no meaning there, and is left out.

    Raises:
        AddressError: `addr` is anything else.
    """
    if not is_tcp(addr):
        protocol, colon, _ = addr.partition("://")
        unknown = colon and protocol not in _PROTOCOLS
        raise AddressError(
            f"ssh= takes tcp://HOST:PORT addresses only (addr={addr!r})",
            errno.EPROTONOSUPPORT if unknown else errno.EINVAL,
        )
    _, _, there = addr[len("tcp://") :].rpartition(";")
    bare, _, digits = there.rpartition(":")
    if is_ipv6(bare):
        there = f"[{bare}]:{digits}"
    try:
        host, port = split_host_port(there)
    except ValueError as exc:
        raise AddressError(f"{exc} (addr={addr!r})") from None
    if len(host) > _MAX_NAME:
        raise AddressError(
            f"a host name has at most {_MAX_NAME} characters (addr={addr[:80]!r}...)"
        )
    if port is None:
        raise AddressError(f"no port: write tcp://HOST:PORT (addr={addr!r})")
    return RemoteEndpoint(host, port)


def check_local(local: str) -> str:
    """Check an endpoint for the local leg and return it.

    Args:
        local: ``tcp://127.0.0.1:*``, ``tcp://127.0.0.1:7000`` or ``ipc:///absolute/path``.

    Raises:
        ValueError: `local` is anything else, or could be reached from other machines.
    """
    if local.startswith("ipc://"):
        if not HAS_UNIX_SOCKETS:
            raise ValueError(
                f"Python has no Unix sockets on this system: tcp://127.0.0.1:* (local={local!r})"
            )
        path = local[len("ipc://") :]
        if not os.path.isabs(path) or "\0" in path:
            raise ValueError(f"ipc:// needs an absolute path (local={local!r})")
        if len(os.fsencode(path)) > MAX_IPC_PATH:
            raise ValueError(f"path longer than {MAX_IPC_PATH} bytes (local={local!r})")
        return local
    if not is_tcp(local):
        raise ValueError(
            f"local= takes tcp://127.0.0.1:*, tcp://127.0.0.1:PORT or ipc:///path (local={local!r})"
        )
    wildcard = local.endswith((":*", ":0"))
    try:
        host, port = split_host_port(local[len("tcp://") : -2] if wildcard else local[6:])
    except ValueError as exc:
        raise ValueError(f"{exc} (local={local!r})") from None
    if not wildcard and port is None:
        raise ValueError(f"no port: write tcp://127.0.0.1:* for any (local={local!r})")
    if not _is_loopback(host):
        raise ValueError(f"the local leg must be on a loopback address (local={local!r})")
    return local


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def to_patterns(excepts: str | Iterable[str]) -> list[str]:
    """Check patterns for :func:`excepted`, one or several, and return them.

    Raises:
        ValueError: one of them is empty.
        TypeError: one of them is no text.
    """
    patterns = [excepts] if isinstance(excepts, str) else list(excepts)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"excepts= takes patterns as str, not {type(pattern).__name__}")
    patterns = [pattern.removeprefix("tcp://") for pattern in patterns]
    if not all(patterns):
        raise ValueError("a pattern of excepts= is empty")
    return patterns


def excepted(addr: str, patterns: Sequence[str]) -> bool:
    """Tell whether a ``tcp://`` address matches one of the patterns, by its host or as a whole."""
    there = addr.removeprefix("tcp://").rpartition(";")[2].lower()
    host = there.rpartition(":")[0]
    names = {there, host, host.strip("[]")}
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)
