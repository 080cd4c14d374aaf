"""The options of the command line that say how to log in; they are ssh's where ssh has one."""

from __future__ import annotations

import argparse
from typing import Any

from .options import DEFAULT_CONFIG_FILE, to_options

__all__ = ["add_ssh_arguments", "ssh_fields"]


def add_ssh_arguments(parser: argparse.ArgumentParser, *, timeout_help: str) -> None:
    """Add them to a parser."""
    parser.add_argument(
        "--ssh",
        metavar="SERVER",
        required=True,
        help="[user@]host[:port], ssh://[user@]host[:port], or a Host of the config file",
    )
    parser.add_argument(
        "-i", "--keyfile", metavar="FILE", action="append", help="private key; may be repeated"
    )
    parser.add_argument(
        "-J", "--jump", metavar="HOPS", help="servers before SERVER, in order: a,b (ProxyJump)"
    )
    parser.add_argument(
        "-F",
        "--config-file",
        metavar="FILE",
        default=DEFAULT_CONFIG_FILE,
        help="ssh_config(5) file; none reads none (default: %(default)s, then the system's)",
    )
    parser.add_argument(
        "--known-hosts", metavar="FILE", action="append", help="known_hosts file; may be repeated"
    )
    parser.add_argument(
        "--accept-new", action="store_true", help="add an unknown host key to known_hosts"
    )
    parser.add_argument(
        "--backend", choices=("sshtunnel", "openssh"), default="sshtunnel", help="who does the SSH"
    )
    parser.add_argument("--connect-timeout", metavar="SECONDS", type=float, help=timeout_help)


def ssh_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `SSHOptions` that were given.

    Raises:
        ValueError: the server is malformed.
    """
    return {
        "server": to_options(arguments.ssh).server,
        "keyfile": arguments.keyfile,
        "jump": () if arguments.jump is None else arguments.jump,
        "config_file": None if arguments.config_file == "none" else arguments.config_file,
        "known_hosts": arguments.known_hosts,
        "strict_host_key_checking": "accept-new" if arguments.accept_new else None,
        "backend": arguments.backend,
        "connect_timeout": arguments.connect_timeout,
    }
