"""What a host and a user may be called, as OpenSSH has it: a shell may come to read the names."""

from __future__ import annotations

__all__ = ["is_valid_host", "is_valid_user"]

# They stand unquoted in a ProxyCommand and in Match exec (ssh.c, valid_hostname and valid_ruser).
_BAD_IN_HOST = frozenset("'`\"$\\;&<>|(){},")
_BAD_IN_USER = frozenset("'`\";&<>|(){}")


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
