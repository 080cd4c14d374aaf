"""What the gateway is told about how to log in."""

from __future__ import annotations

import os
from typing import Any

from ..options import DEFAULT_CONFIG_FILE, NO_HOPS, SSHOptions
from ..shared.control import Message
from ..shared.system.paths import absolute

__all__ = ["login_request", "working_directory"]


def login_request(options: SSHOptions) -> Message:
    """Say what the gateway must know to log in, with absolute paths."""
    user, host, port = options.address
    jump = "none" if options.jump == NO_HOPS else "given" if options.jump else "config"
    return {
        "host": host,
        "user": user,
        "port": port,
        "home": os.path.expanduser("~"),
        "directory": working_directory(),
        "keyfiles": options.keyfile and _absolute(options.keyfile),
        "passphrase": options.passphrase,
        "password": options.password,
        "agent": options.agent,
        "jump": jump,
        "config_file": options.config_file and _absolute([options.config_file])[0],
        "default_config": options.config_file == DEFAULT_CONFIG_FILE,
        "known_hosts": options.known_hosts and _absolute(options.known_hosts),
        "strict_host_key_checking": options.strict_host_key_checking,
        "compression": options.compression,
        "ciphers": options.ciphers,
        "connect_timeout": options.connect_timeout,
        "server_alive_interval": options.server_alive_interval,
        "server_alive_count_max": options.server_alive_count_max,
        "backend": options.backend,
    }


def working_directory() -> str:
    """Return the working directory, also where there is none any more."""
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return "/"


def _absolute(paths: Any) -> list[str]:
    here = working_directory()
    return [absolute(os.path.expanduser(path), here) for path in paths]
