"""``Host`` and ``Match``: for which servers the lines of a config file count."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .syntax import split_word
from .tokens import Tokens
from .wildcards import match_list, match_pattern

__all__ = ["Block", "Criterion", "Situation", "matches", "parse_host", "parse_match"]

_WITHOUT_ARGUMENT = ("canonical", "final")
_WITH_ARGUMENT = (
    "exec",
    "host",
    "localnetwork",
    "localuser",
    "originalhost",
    "tagged",
    "user",
    # Of a session that has one; here it is none.
    "command",
    "sessiontype",
    "version",
)


class Criterion(NamedTuple):
    """One condition of a block."""

    kind: str
    argument: str
    negated: bool


class Block(NamedTuple):
    """Lines that count under some conditions."""

    where: str
    """File and line, for messages."""

    criteria: tuple[Criterion, ...]
    """All must hold."""

    outer: int | None
    """Number of the block in which its file is included."""


@dataclass(frozen=True)
class Situation:
    """What conditions are about, while a config file is read."""

    tokens: Tokens
    """``host`` is the present HostName, ``user`` the present User."""

    block_host: str
    """What Host lines are compared with: what was asked for; in the final pass its HostName."""

    tag: str
    final: bool
    run: Callable[[str], bool]
    """Tells whether a command succeeds."""


def parse_host(arguments: list[str]) -> tuple[Criterion, ...]:
    """Parse what stands behind ``Host``.

    Raises:
        ValueError: it is malformed.
    """
    if "" in arguments:
        raise ValueError("empty argument")
    # Without a pattern it is for no host: none is called "".
    return tuple(
        Criterion("pattern", argument.removeprefix("!"), argument.startswith("!"))
        for argument in arguments or [""]
    )


def parse_match(text: str) -> tuple[Criterion, ...]:
    """Parse what stands behind ``Match``.

    Raises:
        ValueError: it is malformed.
    """
    criteria: list[Criterion] = []
    word, rest = _next(text)
    while word:
        kind = word.removeprefix("!").lower()
        argument = ""
        if kind == "all":
            # As in OpenSSH: at most one condition before it, and nothing behind.
            argument, rest = _next(rest)
            if len(criteria) > 1 or argument:
                raise ValueError(f"{word!r} cannot be combined with other Match attributes")
        elif kind in _WITH_ARGUMENT:
            argument, rest = _next(rest)
            if not argument:
                raise ValueError(f"missing Match criteria for {word}")
        elif kind not in _WITHOUT_ARGUMENT:
            raise ValueError(f"unsupported Match attribute {word!r}")
        criteria.append(Criterion(kind, argument, word.startswith("!")))
        if kind == "all":
            break
        word, rest = _next(rest)
    if not criteria:
        raise ValueError("one or more attributes required for Match")
    if rest:
        raise ValueError("extra arguments at end of line")
    return tuple(criteria)


def _next(text: str) -> tuple[str, str]:
    """Split off a word; there is none in a comment, nor where a quote is not closed."""
    try:
        word, rest = split_word(text)
    except ValueError:
        return "", ""
    return ("", "") if word.startswith("#") else (word, rest)


def matches(criteria: tuple[Criterion, ...], situation: Situation) -> bool:
    """Tell whether the conditions hold; commands are run only if all before them do.

    Raises:
        ValueError: a command cannot be run.
    """
    if not criteria or criteria[0].kind == "pattern":
        hits = [c for c in criteria if match_pattern(situation.block_host, c.argument)]
        return not criteria or (bool(hits) and not any(c.negated for c in hits))
    for criterion in criteria:
        if criterion.kind == "exec":  # an unknown token is an error in what is not run too
            situation.tokens.expand(criterion.argument)
    return all(_holds(c, situation) != c.negated for c in criteria)


def _holds(criterion: Criterion, situation: Situation) -> bool:
    kind, argument, _ = criterion
    tokens = situation.tokens
    if kind == "all":
        return True
    if kind in ("canonical", "final"):
        return situation.final
    if kind == "host":
        return match_list(tokens.host, argument, ignore_case=True)
    if kind == "originalhost":
        return match_list(tokens.host_argument, argument, ignore_case=True)
    if kind == "user":
        return match_list(tokens.user, argument)
    if kind == "localuser":
        return match_list(tokens.local_user, argument)
    if kind == "tagged":
        return match_list(situation.tag, argument)
    if kind == "localnetwork":
        return _in_networks(argument)
    if kind == "exec":
        return situation.run(tokens.expand_command(argument))
    if kind == "sessiontype":
        return match_list("none", argument)
    if kind == "version":
        return match_list("tunneledzmq", argument)
    return False  # "command": there is none


def _in_networks(patterns: str) -> bool:
    """Tell whether this machine has an address in one of the networks."""
    networks = [ipaddress.ip_network(pattern) for pattern in patterns.split(",")]
    return any(address in network for network in networks for address in _local_addresses(networks))


def _local_addresses(
    networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    # Without a list of the interfaces: the address that would be used towards each network.
    for network in networks:
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((str(network[min(1, network.num_addresses - 1)]), 9))
            except OSError:
                continue
            yield ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
