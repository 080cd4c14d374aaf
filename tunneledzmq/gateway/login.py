"""What it takes to log in, and the error when it fails."""

from __future__ import annotations

import errno
import getpass
from dataclasses import dataclass, field
from typing import Any

from ..shared.system.account import user_name
from ..shared.text import because

__all__ = ["BY_HAND", "HUNG_UP", "Learned", "Login", "LoginError", "Request", "local_user"]


class LoginError(Exception):
    """No session.

    Args:
        kind: name of the class in :mod:`tunneledzmq.exceptions`.
        errno: an errno code.
        message: for the user.
        passing: whether it may be another time, with nobody doing anything about it.
    """

    def __init__(self, kind: str, errno: int, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.errno = errno
        self.message = message
        self.passing = passing or kind == "SSHConnectionError"

    def describe(self) -> dict[str, Any]:
        """Return the error as the control protocol has it."""
        return {"kind": self.kind, "errno": self.errno, "message": self.message}


@dataclass(frozen=True)
class Request:
    """What the program asked for: its ``SSHOptions``, with absolute paths.

    `None` where it left the choice to the config file.
    """

    host: str
    user: str | None
    port: int | None
    # Name and home of the program's user.
    local_user: str
    home: str
    # Its working directory.
    directory: str

    keyfiles: list[str] | None
    passphrase: str | None
    password: str | None
    agent: bool
    # "given": the program knows the hop itself; "none": no hop; "config": ask the config file.
    jump: str
    config_file: str | None
    # Whether that file may be missing, and the system's is read too.
    default_config: bool
    known_hosts: list[str] | None
    strict_host_key_checking: str | None
    compression: bool | None
    ciphers: list[str] | None
    connect_timeout: float | None
    server_alive_interval: float | None
    server_alive_count_max: int | None
    backend: str

    def __repr__(self) -> str:
        return f"<Request {self.host}>"


@dataclass(frozen=True)
class Login:
    """Where and how to log in, with all defaults resolved; paths are absolute."""

    server: str
    """``user@host:port``, for messages."""

    # ssh_config(5) has each of these under the same name.

    host: str
    """HostName."""

    port: int
    user: str
    directory: str = "/"
    """Where commands are run."""

    address_family: int = 0
    """A ``socket.AF_*`` constant; 0 for any."""

    bind_address: str | None = None
    connect_timeout: float = 10.0
    """Seconds for the whole login."""

    server_alive_interval: float = 15.0
    server_alive_count_max: int = 3
    compression: bool = False
    # Lists of algorithms, with what stands before them ("+", "-" or "^") before their first item.
    ciphers: list[str] | None = None
    kex_algorithms: list[str] | None = None
    macs: list[str] | None = None

    # The way to the server: over a hop, over a process, or directly.

    behind_hop: bool = False
    """The program is to be asked for the hop."""

    proxy_jump: list[str] = field(default_factory=list)
    """The hops that the config file names; none where the program knows them itself."""

    proxy_command: str | None = None
    """To be run by the shell; all tokens are replaced."""

    # Who is believed.

    strict_host_key_checking: str = "yes"
    """``"yes"``, ``"accept-new"`` or ``"no"``."""

    user_known_hosts: list[str] = field(default_factory=list)
    """Keys are added to the first, if there is one."""

    global_known_hosts: list[str] = field(default_factory=list)
    hash_known_hosts: bool = False
    revoked_host_keys: str | None = None
    host_key_alias: str | None = None
    host_key_algorithms: list[str] | None = None
    ca_signature_algorithms: list[str] | None = None
    """How an authority may sign a host's certificate; `None` for the default."""

    required_rsa_size: int = 1024
    """Bits."""

    # How to be let in.

    pubkey_accepted_algorithms: list[str] | None = None
    keyfiles: list[str] | None = None
    """Those that the program named, which must be usable."""

    identity_files: list[str] = field(default_factory=list)
    """Those of the config file, or the default ones: tried if they are there."""

    certificate_files: list[str] = field(default_factory=list)
    identities_only: bool = False
    agent: bool = True
    identity_agent: str | None = None
    """Path of the agent's socket; `None` for ``$SSH_AUTH_SOCK``."""

    passphrase: str | None = None
    password: str | None = None
    preferred_authentications: list[str] = field(
        default_factory=lambda: ["publickey", "keyboard-interactive", "password"]
    )
    """The methods that may be used, in order."""

    number_of_password_prompts: int = 3
    batch_mode: bool = False
    """Nobody is asked."""

    @property
    def known_as(self) -> tuple[str, int]:
        """Host and port under which known_hosts has the server."""
        # As with OpenSSH, an alias stands for the server, whatever its port.
        return (self.host_key_alias, 22) if self.host_key_alias else (self.host, self.port)

    def __repr__(self) -> str:
        return f"<Login {self.server}>"

    def no_connection(self, code: int, text: str) -> LoginError:
        """Make the error for a server that cannot be spoken to."""
        return LoginError("SSHConnectionError", code, f"{self.server}: {text}")

    def no_entry(self, code: int, text: str, *, passing: bool = False) -> LoginError:
        """Make the error for a server that does not let us in."""
        return LoginError("SSHAuthenticationError", code, f"{self.server}: {text}", passing=passing)

    def no_trust(self, code: int, text: str, kind: str = "HostKeyError") -> LoginError:
        """Make the error for a server that is not believed."""
        return LoginError(kind, code, f"{self.server}: {text}")

    def hung_up(self, reason: str = "") -> LoginError:
        """Make the error for a server that ends the connection before it was asked to let us in.

        Args:
            reason: what it said.
        """
        says = f"it says '{reason}'" if reason else ""
        text = because("the server closed the connection before the login", says)
        return self.no_connection(errno.ECONNRESET, text)

    def given_up(self) -> LoginError:
        """Make the error for a login that nobody waits for any more."""
        return self.no_connection(errno.ECONNABORTED, "the login was given up")

    def timed_out(self, stage: str = "") -> LoginError:
        """Make the error for a login that took longer than it may.

        Args:
            stage: the last step that was done, by its name in ``tunneledzmq check``.
        """
        within = f"within connect_timeout ({self.connect_timeout:g} s)"
        if stage == "connect" and self.proxy_command is not None:
            text = (
                f"no answer over ProxyCommand {self.proxy_command!r} {within}: does it reach the "
                "server?"
            )
        else:
            text = _TIMED_OUT.get(stage, _TIMED_OUT[""]).format(within=within)
        return self.no_connection(errno.ETIMEDOUT, text)


@dataclass
class Learned:
    """What one login has learned, for the next."""

    host_key: bytes | None = None
    """That which was accepted without being known."""

    passphrases: dict[str, str] = field(default_factory=dict)
    """The user's, by the paths of the keys that they open."""

    password: str | None = None
    """The user's, which the server has accepted."""

    def __repr__(self) -> str:
        return "<Learned>"


HUNG_UP = (
    "what listens there closed the connection before it said that it is an SSH server: has it too "
    "many logins at once (MaxStartups), or is this address banned there (fail2ban, "
    "PerSourcePenalties)? Its log tells. Or is the port another service's?"
)

# What to do about a ProxyCommand that has failed.
BY_HAND = "run it by hand to see why"

# By the last step that was done.
_TIMED_OUT = {
    "": (
        "no answer {within}: is the host up, is the port right, and does a firewall let it through?"
    ),
    "connect": (
        "connected, but what listens there did not say {within} that it is an SSH server: is the "
        "port right? If it is only slow, pass a longer connect_timeout="
    ),
    "banner": (
        "the SSH server answered, but the key exchange was not done {within}: if it is only slow, "
        "pass a longer connect_timeout="
    ),
    "host key": (
        "the SSH server answered and proved who it is, but did not authenticate us {within}: if it "
        "is only slow to decide, pass a longer connect_timeout="
    ),
}


def local_user() -> str:
    """Tell whose program it is, as ssh does: by the system, and not by a variable.

    Raises:
        LoginError: nobody says.
    """
    name = user_name()
    if name is not None:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError) as exc:
        text = f"who is the user? Neither the system nor $USER says: {exc}"
        raise LoginError("TunnelError", errno.ENOENT, text) from exc
