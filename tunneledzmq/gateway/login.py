"""What it takes to log in, and the error when it fails."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

__all__ = ["Login", "LoginError"]


class LoginError(Exception):
    """No session.

    Args:
        kind: name of the class in :mod:`tunneledzmq.exceptions`.
        errno: an errno code.
        message: for the user.
    """

    def __init__(self, kind: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.errno = errno
        self.message = message

    def describe(self) -> dict[str, Any]:
        """Return the error as the control protocol has it."""
        return {"kind": self.kind, "errno": self.errno, "message": self.message}


@dataclass
class Login:
    """Where and how to log in, with all defaults resolved; paths are absolute."""

    server: str
    host: str
    port: int
    user: str
    keyfiles: list[str] | None
    default_keyfiles: list[str]
    passphrase: str | None
    password: str | None
    agent: bool
    known_hosts: list[str] | None
    strict_host_key_checking: str
    compression: bool
    ciphers: list[str] | None
    connect_timeout: float
    server_alive_interval: float
    server_alive_count_max: int

    # The host key that was accepted without being known.
    accepted_key: bytes | None = None

    def __repr__(self) -> str:
        return f"<Login {self.server}>"

    def no_connection(self, code: int, text: str) -> LoginError:
        """Make the error for a server that cannot be spoken to."""
        return LoginError("SSHConnectionError", code, f"{self.server}: {text}")

    def no_entry(self, code: int, text: str) -> LoginError:
        """Make the error for a server that does not let us in."""
        return LoginError("SSHAuthenticationError", code, f"{self.server}: {text}")

    def timed_out(self) -> LoginError:
        """Make the error for a login that took longer than it may."""
        return self.no_connection(
            errno.ETIMEDOUT,
            f"no answer within connect_timeout ({self.connect_timeout:g} s): is the host up, is "
            "the port right, and does a firewall let it through?",
        )
