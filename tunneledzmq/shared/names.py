"""Names of servers, hosts and users, as OpenSSH has them: a shell may come to read the names."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

__all__ = [
    "ServerAddress",
    "is_ipv6",
    "is_valid_host",
    "is_valid_user",
    "parse_server",
    "split_host_port",
]

_SCHEME = "ssh://"
# A colon, and what stands for one in a URI.
_COLONS = (":", "%3a", "%3A", "%253a", "%253A")

_PORT = re.compile(r"0*[0-9]{1,5}\Z")
_NAME = re.compile(r"[^\[\]/:@*?#]+\Z")
_ALIAS = re.compile(r"[^\[\]:@]+\Z")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]+\Z")

# They stand unquoted in a ProxyCommand and in Match exec (ssh.c, valid_hostname and valid_ruser).
_BAD_IN_HOST = frozenset("'`\"$\\;&<>|(){},")
_BAD_IN_USER = frozenset("'`\";&<>|(){}")


class ServerAddress(NamedTuple):
    """``[user@]host[:port]``, taken apart; what was not given is `None`."""

    user: str | None
    host: str
    port: int | None


def parse_server(text: str, option: str = "ssh") -> ServerAddress:
    """Parse ``[user@]host[:port]`` or ``ssh://[user@]host[:port]``.

    Args:
        text: what to parse.
        option: where it stands, for messages.

    Raises:
        ValueError: `text` is anything else. What may be a password in it is not repeated.
    """
    if not text and option != "ssh":
        raise ValueError(f"{option}= has an empty name in it")
    if not text:
        raise ValueError("ssh= is empty; to connect without a tunnel, pass ssh=None")
    is_uri = text[: len(_SCHEME)].lower() == _SCHEME
    _check_scheme(text, option)
    rest = text[len(_SCHEME) :].removesuffix("/") if is_uri else text
    if is_uri and "/" in rest.rpartition("@")[2]:
        raise ValueError(
            f"an ssh:// address ends with the port: it has no path ({option}={_shown(text)})"
        )
    user, at, host_port = rest.rpartition("@")
    # A host may have a colon, but none that is written otherwise, except for a scope.
    hidden = () if host_port.startswith("[") else _COLONS[1:]
    if any(colon in user for colon in _COLONS) or any(colon in host_port for colon in hidden):
        raise ValueError(
            "a password does not belong in [user@]host[:port]: pass SSHOptions(password=...) "
            f"({option}={_shown(text)})"
        )
    try:
        # As ssh takes them: an IPv6 address as it is, and aliases.
        bare = not is_uri and is_ipv6(host_port.partition("%")[0])
        host, port = split_host_port(f"[{host_port}]" if bare else host_port, _ALIAS)
    except ValueError as exc:
        raise ValueError(f"not [user@]host[:port]: {exc} ({option}={_shown(text)})") from None
    if is_uri:
        from urllib.parse import unquote  # 5 ms, for those who write a URI

        user = unquote(user)
    if at and not (user and is_valid_user(user)):
        raise ValueError(f"no valid user name before the @ ({option}={_shown(text)})")
    return ServerAddress(user if at else None, host, port)


def _check_scheme(text: str, option: str) -> None:
    scheme, colon, _ = text.partition("://")
    if not colon or not scheme.isalnum() or scheme.lower() == "ssh":
        return
    if scheme.lower() in ("tcp", "ipc", "inproc"):
        raise ValueError(
            f"a {scheme}:// address is a ZeroMQ socket's, no SSH server: are addr and {option}= "
            "the wrong way round?"
        )
    raise ValueError(
        f"{option}= takes [user@]host[:port], or ssh://[user@]host[:port], and no {scheme}:// "
        "address"
    )


def _shown(text: str) -> str:
    """Show `text` up to what may be the colon before a password."""
    start = len(_SCHEME) if text[: len(_SCHEME)].lower() == _SCHEME else 0
    ends = [end for colon in _COLONS if (end := text.find(colon, start)) >= 0]
    return repr(f"{text[: min(ends)]}:..." if ends else text)


def split_host_port(text: str, name: re.Pattern[str] = _NAME) -> tuple[str, int | None]:
    """Split ``HOST[:PORT]``; an IPv6 HOST stands in brackets.

    Args:
        text: what to split.
        name: what a name looks like.

    Raises:
        ValueError: HOST or PORT is malformed; the message does not repeat `text`.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError("a bracket is not closed")
        address, percent, scope = host.partition("%")
        if not is_ipv6(address):
            raise ValueError("what stands in brackets is no IPv6 address")
        if percent and not _SCOPE.match(scope):
            raise ValueError("no valid scope behind the IPv6 address, such as %eth0")
        if rest and not rest.startswith(":"):
            raise ValueError("only :PORT may follow the bracket")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            raise ValueError("more than one colon: an IPv6 address stands in brackets, [::1]")
        if not name.match(host) or not is_valid_host(host):
            raise ValueError("no valid host name" if host else "no host name")
    if not colon:
        return host, None
    if not _PORT.match(port) or not 0 < int(port) < 65536:
        raise ValueError("the port must be a number from 1 to 65535")
    return host, int(port)


def is_ipv6(host: str) -> bool:
    """Tell whether `host` is an IPv6 address, with or without a scope."""
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def is_valid_host(host: str) -> bool:
    """Tell whether `host` has no character that OpenSSH refuses in a host name."""
    return (
        not host.startswith("-")
        and host.isprintable()
        and " " not in host
        and _BAD_IN_HOST.isdisjoint(host)
    )


def is_valid_user(user: str) -> bool:
    r"""Tell whether `user` has no character that OpenSSH refuses in a user name.

    White space may not come before a ``-``, nor ``\`` last.
    """
    return (
        not user.startswith("-")
        and user.isprintable()
        and " -" not in user
        and not user.endswith("\\")
        and _BAD_IN_USER.isdisjoint(user)
    )
