"""Why a server opens no channel (RFC 4254, section 5.1), in words that help."""

from __future__ import annotations

import re

from ...shared.text import because, printable

__all__ = ["CONNECT_FAILED", "PROHIBITED", "refusal"]

PROHIBITED = 1
CONNECT_FAILED = 2

# What servers say of a name. They hand on the words of their C library (glibc, musl, BSD, macOS,
# Windows; OpenSSH, Dropbear, asyncssh and Rust's), Go's, Java's, node's, Twisted's or Erlang's.
_UNKNOWN_NAME = re.compile(
    r"name or service (?:is )?not known|(?:node|host)name nor servname|name does not resolve"
    r"|no address associated with|name has no usable address|no such host|unknown host"
    r"|UnknownHostException|UnresolvedAddress|ENOTFOUND|DNS lookup failed|nxdomain"
    r"|non-existing domain",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"failure in name resolution|name resolution failed|server misbehaving|EAI_AGAIN"
    r"|error resolving",
    re.IGNORECASE,
)


def refusal(code: int, reason: str | bytes) -> str:
    """Return the words for the server's `code` and `reason`."""
    text = printable(reason.strip())
    if code == PROHIBITED:
        return because(
            "the server forbids forwarding to it (administratively prohibited; see "
            "AllowTcpForwarding and PermitOpen in its sshd_config)",
            text,
        )
    if code == CONNECT_FAILED and _UNKNOWN_NAME.search(text):
        return because(
            "the server does not know this name; check how it is written over there", text
        )
    if code == CONNECT_FAILED and _NO_ANSWER.search(text):
        return because("the server cannot look this name up", text)
    if code == CONNECT_FAILED:
        return because("the server cannot connect to it; it may not be up yet", text)
    return because(f"the server opens no channel to it (code {code})", text)
