"""Options that log in to one of the tests' servers, with nothing of the user's own."""

from __future__ import annotations

from typing import Any, Protocol

from tunneledzmq import SSHOptions

defaults: dict[str, Any] = {}
"""Fields that are added to all options: the test's backend."""


class Server(Protocol):
    """What the tests' SSH servers have in common."""

    host: str
    port: int
    user: str
    keyfile: str
    known_hosts: str
    authorized_keys: str

    @property
    def server(self) -> str:
        """What a user would write: `user@host:port`."""


def entry_for(name: str, server: Server, *lines: str) -> str:
    """Return a block of a config file that logs in to `server`, `lines` taking precedence."""
    block = [
        f"Host {name}",
        *lines,
        f"HostName {server.host}",
        f"Port {server.port}",
        f"User {server.user}",
        f"IdentityFile {server.keyfile}",
        "IdentityAgent none",
        f"UserKnownHostsFile {server.known_hosts}",
    ]
    return "\n  ".join(block) + "\n"


def arguments_for(server: Server, **fields: Any) -> dict[str, Any]:
    """Return the options' keywords, `fields` taking precedence."""
    return {
        "server": server.server,
        "keyfile": server.keyfile,
        "known_hosts": server.known_hosts,
        "config_file": None,
        "agent": False,
        **defaults,
        **fields,
    }


def options_for(server: Server, **fields: Any) -> SSHOptions:
    """Return options that log in to `server`, `fields` taking precedence."""
    return SSHOptions(**arguments_for(server, **fields))
