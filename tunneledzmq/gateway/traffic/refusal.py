"""Why a server opens no channel (RFC 4254, section 5.1), in words that help."""

from __future__ import annotations

from ...shared.text import because, printable

__all__ = ["CONNECT_FAILED", "PROHIBITED", "refusal"]

PROHIBITED = 1
CONNECT_FAILED = 2


def refusal(code: int, reason: str | bytes) -> str:
    """Return the words for the server's `code` and `reason`."""
    text = printable(reason.strip())
    if code == PROHIBITED:
        return because(
            "the server forbids forwarding to it (administratively prohibited; see "
            "AllowTcpForwarding and PermitOpen in its sshd_config)",
            text,
        )
    if code == CONNECT_FAILED:
        return because("the server cannot connect to it; it may not be up yet", text)
    return because(f"the server opens no channel to it (code {code})", text)
