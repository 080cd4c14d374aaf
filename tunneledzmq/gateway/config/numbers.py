"""Numbers, ports and times, as OpenSSH reads them: with ``strtoll``, which takes ``" +5"`` too."""

from __future__ import annotations

import re
import socket

__all__ = ["parse_number", "parse_port", "parse_time"]

_MAX_INT = 2**31 - 1

_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+")
_TIME = re.compile(rf"({_NUMBER.pattern})([smhdw]?)", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_number(text: str, largest: int = _MAX_INT) -> int:
    """Parse a number from 0 to `largest`.

    Raises:
        ValueError: it is none.
    """
    if not _NUMBER.fullmatch(text) or not 0 <= int(text) <= largest:
        raise ValueError(f"invalid number {text!r}")
    return int(text)


def parse_port(text: str) -> int:
    """Parse a port, or the name of a service.

    Raises:
        ValueError: it is none.
    """
    try:
        port = parse_number(text, 65535)
    except ValueError:
        try:
            port = socket.getservbyname(text, "tcp")
        except (OSError, ValueError):
            port = 0
    if not port:
        raise ValueError(f"bad port {text!r}")
    return port


def parse_time(text: str) -> int:
    """Return seconds: ``90``, ``1m30s``, ...

    Raises:
        ValueError: it is no time.
    """
    parts = _TIME.findall(text)
    try:
        if "".join(map("".join, parts)) != text:
            raise ValueError
        seconds = sum(parse_number(number) * _SECONDS[unit.lower()] for number, unit in parts)
        return parse_number(str(seconds))
    except ValueError:
        raise ValueError(f"invalid time {text!r}") from None
