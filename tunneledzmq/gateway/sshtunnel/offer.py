"""What to say where client and server have no algorithm in common."""

from __future__ import annotations

import re
import shutil
import subprocess

from ...shared.system.advice import HAS_OPENSSH
from .transport import ForwardTransport

__all__ = ["no_common_algorithm"]

# Of ssh_config(5), in the order in which they are agreed on: where the server's offer stands, ours,
# all that paramiko has, and what ``ssh -Q`` calls it.
_LISTS = {
    "KexAlgorithms": ("kex_algo_list", "preferred_kex", "_kex_info", "kex"),
    "HostKeyAlgorithms": ("server_key_algo_list", "preferred_keys", "_key_info", "key"),
    "Ciphers": ("server_encrypt_algo_list", "preferred_ciphers", "_cipher_info", "cipher"),
    "MACs": ("server_mac_algo_list", "preferred_macs", "_mac_info", "mac"),
}

# What stands among the methods of the key exchange without being one.
_NO_METHODS = ("ext-info-", "kex-strict-")

# A name (RFC 4250, section 4.6.1); what else stands in a list is not repeated. How many are.
_NAME = re.compile(r"[A-Za-z0-9.@_+-]{1,64}")
_MAX_SHOWN = 30

# Seconds for ssh to say what it knows.
_TIMEOUT = 5.0


def no_common_algorithm(transport: ForwardTransport) -> str:
    """Tell what the server offers, and what to write; nothing if that is not why it failed."""
    for word, (theirs, ours, known, query) in _LISTS.items():
        offer = [
            name
            for name in transport.offer.get(theirs, ())
            if _NAME.fullmatch(name) and not name.startswith(_NO_METHODS)
        ]
        if offer and not set(offer).intersection(getattr(transport, ours)):
            shown = ", ".join(offer[:_MAX_SHOWN])
            return f"of {word}, the server offers {shown}: " + _advice(
                word, offer, list(getattr(transport, known)), query
            )
    return ""


def _advice(word: str, offer: list[str], known: list[str], query: str) -> str:
    if found := _first(offer, known):
        if word == "Ciphers":
            return f"pass ciphers='+{found}', if it is to be trusted"
        return f"write {word} +{found} into the config file, if it is to be trusted"
    if not HAS_OPENSSH:
        return "paramiko knows none of these; update the server"
    if found := _first(offer, _known_to_ssh(query)):
        return (
            f"pass backend='openssh', since only ssh knows {found} (an old one has to be allowed "
            f"there, too: {word} +{found} in the config file)"
        )
    return "neither paramiko nor the ssh of this machine knows any of these; update either side"


def _first(offer: list[str], known: list[str]) -> str | None:
    return next((name for name in offer if name in known), None)


def _known_to_ssh(query: str) -> list[str]:
    ssh = shutil.which("ssh")
    if ssh is None:
        return []
    try:
        said = subprocess.run(
            [ssh, "-Q", query],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.decode(errors="replace").split()
