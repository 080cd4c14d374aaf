"""Which algorithms are offered: ssh_config(5)'s lists ``a,b``, ``+a``, ``-a*``, ``^a``."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Sequence

import paramiko

from ..config.wildcards import match_list, match_pattern
from ..login import Login, LoginError
from ..trust.certificate import is_certificate

__all__ = ["apply_list", "choose_algorithms", "order_by_known"]

# Ciphers of OpenSSH that paramiko lacks: they may stand in a list that has others too.
_OTHER_CIPHERS = ("chacha20-poly1305@openssh.com", "rijndael-cbc@lysator.liu.se")


def choose_algorithms(
    transport: paramiko.Transport,
    login: Login,
    known_types: Collection[str],
    *,
    certificates: bool = False,
) -> None:
    """Set what is offered to the server, in which order.

    Args:
        known_types: types of the keys that are known for the server.
        certificates: whether there is an authority that may vouch for its key.

    Raises:
        LoginError: a list has an unknown name, or leaves nothing.
    """
    options = transport.get_security_options()
    # paramiko has no public list of all that it knows.
    ciphers, key_types = transport._cipher_info, transport._key_info
    if login.ciphers is not None:
        for name in login.ciphers:
            name = name.lstrip("+^")
            if name not in (*ciphers, *_OTHER_CIPHERS) and not login.ciphers[0].startswith("-"):
                raise _unknown(login, "Ciphers", login.ciphers, ciphers)
        options.ciphers = _apply(login, "Ciphers", login.ciphers, options.ciphers, ciphers)
    if login.kex_algorithms is not None:
        options.kex = _apply(
            login, "KexAlgorithms", login.kex_algorithms, options.kex, transport._kex_info
        )
    if login.macs is not None:
        options.digests = _apply(login, "MACs", login.macs, options.digests, transport._mac_info)
    wanted = login.host_key_algorithms
    # Where nobody can vouch for a key, its certificate tells no more than the key itself.
    known = [name for name in key_types if certificates or not is_certificate(name)]
    types = options.key_types
    if certificates:
        certified = [f"{name}-cert-v01@openssh.com" for name in types]
        types = (*[name for name in certified if name in key_types], *types)
    if wanted is not None:
        types = _apply(login, "HostKeyAlgorithms", wanted, types, known)
    if wanted is None or wanted[0].startswith(("+", "-")):
        first = [name for name in types if is_certificate(name)]
        others = [name for name in types if not is_certificate(name)]
        types = [*first, *order_by_known(others, known_types)] if others else first
    options.key_types = tuple(types)
    if login.pubkey_accepted_algorithms is not None:
        default = transport.preferred_pubkeys
        accepted = _apply(
            login,
            "PubkeyAcceptedAlgorithms",
            login.pubkey_accepted_algorithms,
            default,
            list(key_types),
        )
        transport.disabled_algorithms = {"pubkeys": [n for n in default if n not in accepted]}


def apply_list(spec: Sequence[str], default: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the algorithms that a list leaves, in order.

    Args:
        spec: the list; ``+``, ``-`` or ``^`` before its first item is for all of it.
        default: what is offered without it.
        known: all that there are. Other names in the list are left out.
    """
    sign = spec[0][0] if spec and spec[0].startswith(("+", "-", "^")) else ""
    patterns = [spec[0].removeprefix(sign), *spec[1:]]
    known, default = list(known), list(default)
    if sign == "-":
        return [name for name in default if not match_list(name, ",".join(patterns))]
    matching = [name for pattern in patterns for name in known if match_pattern(name, pattern)]
    if sign == "+":
        matching = default + matching
    elif sign == "^":
        matching += default
    return list(dict.fromkeys(matching))


def _apply(
    login: Login, word: str, spec: Sequence[str], default: Iterable[str], known: Iterable[str]
) -> list[str]:
    chosen = apply_list(spec, default, known)
    if not chosen:
        raise _unknown(login, word, spec, known)
    return chosen


def _unknown(login: Login, word: str, spec: Sequence[str], known: Iterable[str]) -> LoginError:
    return login.no_connection(
        errno.EINVAL,
        f"{word.lower() if word == 'Ciphers' else word}={','.join(spec)}: there is one among them "
        f"that this version does not know, or none that it does; it knows {','.join(known)}",
    )


def order_by_known(types: Sequence[str], known_types: Collection[str]) -> Sequence[str]:
    """Ask for the kinds of keys first that are known for the host (``order_hostkeyalgs``).

    They keep their order among each other, and all of it is kept where the best one is known.
    """

    def is_unknown(name: str) -> bool:
        return ("ssh-rsa" if name.startswith("rsa-sha2-") else name) not in known_types

    return types if not is_unknown(types[0]) else sorted(types, key=is_unknown)
