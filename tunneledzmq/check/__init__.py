"""``python -m tunneledzmq check``: a tunnel step by step, and what is wrong with it."""

from __future__ import annotations

import argparse

from ..options import DEFAULT_CONFIG_FILE, SSHOptions, to_options
from .show import choose
from .steps import Check

__all__ = ["main"]

_DESCRIPTION = """\
Test the way of a ZeroMQ socket through an SSH server to a peer, as connect(ADDR, ssh=SERVER) would
go it, step by step. Nothing is sent to the peer but the greeting of ZeroMQ's protocol.
"""

_EPILOG = """\
steps:
  resolve       find the server: the config file, and its name's addresses
  connect       connect to it, over its hops if it has some
  banner        hear that it speaks SSH
  host key      have it prove that it is the one that known_hosts knows
  authenticate  be let in
  forward       have it connect to ADDR
  zmtp          hear that what listens there speaks ZeroMQ's protocol
  round trip    of the SSH connection itself, the median of several

exit status:
  0  all steps went well
  1  one failed; the message says what to do
  2  the command line is wrong

examples:
  tunneledzmq check tcp://10.0.1.2:5555 --ssh me@bastion
  tunneledzmq check tcp://127.0.0.1:5555 --ssh inner -J me@bastion -i ~/.ssh/lab --json

"""


def main(argv: list[str]) -> int:
    """Check a tunnel.

    Args:
        argv: the command line after ``check``.

    Returns:
        The exit status: 0; 1 if a step failed; 2 if the command line is wrong; 130 after Ctrl-C.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    show = choose(as_json=arguments.json)
    try:
        check = Check(arguments.addr, _options(arguments), show.step)
    except (ValueError, TypeError) as exc:
        parser.error(str(exc))
    show.start(f"{arguments.addr} over {arguments.ssh}")
    try:
        ok = check.run()
    except KeyboardInterrupt:
        return 130
    show.end(ok)
    return 0 if ok else 1


def _options(arguments: argparse.Namespace) -> SSHOptions:
    return SSHOptions(
        to_options(arguments.ssh).server,
        keyfile=arguments.keyfile,
        jump=() if arguments.jump is None else arguments.jump,
        config_file=None if arguments.config_file == "none" else arguments.config_file,
        known_hosts=arguments.known_hosts,
        strict_host_key_checking="accept-new" if arguments.accept_new else None,
        backend=arguments.backend,
        connect_timeout=arguments.connect_timeout,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunneledzmq check",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("addr", metavar="ADDR", help="tcp://HOST:PORT, as the server sees it")
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
    parser.add_argument(
        "--connect-timeout",
        metavar="SECONDS",
        type=float,
        help="for the login, and for the peer's greeting (default: 10, or the config file's)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
