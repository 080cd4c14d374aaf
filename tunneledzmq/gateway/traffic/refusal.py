"""Why a server opens no channel (RFC 4254, section 5.1), in words that help."""

from __future__ import annotations

from ...shared.text import printable

__all__ = ["CONNECT_FAILED", "PROHIBITED", "refusal"]

PROHIBITED = 1
CONNECT_FAILED = 2


def refusal(code: int, reason: str | bytes) -> str:
    """Return the words for the server's `code` and `reason`."""
    text = printable(reason.strip())
    if code == PROHIBITED:
        return (
            "the server forbids forwarding to it (administratively prohibited; see "
            f"AllowTcpForwarding and PermitOpen in its sshd_config): {text}"
        )
    if code == CONNECT_FAILED:
        return f"the server cannot connect to it; it may not be up yet: {text}"
    return f"the server opens no channel to it: {text} (code {code})"
