"""The connection to a server: over its hop, over a command, or directly."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from ...shared.system.advice import reason_of
from ...shared.system.leg import connect_to
from ...shared.system.tcp import watch_peer
from ..attempt import Attempt
from ..login import HUNG_UP, Login
from ..questions import Questions
from .proxy_command import connect_over_command

__all__ = ["connect"]


def connect(login: Login, attempt: Attempt) -> socket.socket:
    """Connect to the server: over its hop, over a command, or directly.

    Raises:
        LoginError: it cannot be reached.
    """
    questions = attempt.questions
    if login.behind_hop:
        questions.tell("resolve", "by the hop")
        sock = _connect_over_hop(login, questions.hop(login))
        done = "over the hop"
    elif login.proxy_command is not None:
        questions.tell("resolve", "by the ProxyCommand")
        sock = connect_over_command(login)
        done = f"over ProxyCommand {login.proxy_command!r}"
    else:
        sock, address = _connect_directly(login, questions)
        done = "{} port {}".format(*address)
    attempt.on_abort(sock.close)
    questions.tell("connect", done)
    return sock


def _connect_over_hop(login: Login, endpoint: str) -> socket.socket:
    try:
        return connect_to(endpoint, login.connect_timeout)
    except OSError as exc:
        raise login.no_connection(
            exc.errno or errno.ECONNABORTED, f"the gateway of its hop is gone: {exc}"
        ) from exc


def _connect_directly(login: Login, questions: Questions) -> tuple[socket.socket, tuple[Any, ...]]:
    """Try the addresses of the server one after the other; return the one that is connected, too.

    A socket that is reset soon does not know its peer any more.
    """
    deadline = time.monotonic() + login.connect_timeout
    try:
        found = socket.getaddrinfo(login.host, login.port, login.address_family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise login.no_connection(
            errno.EHOSTUNREACH,
            f"the name {login.host!r} was not found ({exc}): check how it is written; it must be "
            "known to this machine, or have a Host entry with a HostName in the config file",
        ) from exc
    questions.tell("resolve", ", ".join(dict.fromkeys(str(address[0]) for *_, address in found)))
    failure: OSError = TimeoutError()
    for left, (family, kind, protocol, _, address) in zip(
        range(len(found), 0, -1), found, strict=True
    ):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(max(0.1, (deadline - time.monotonic()) / left))
            _bind(sock, login)
            sock.connect(address)
            watch_peer(sock, login.server_alive_interval * login.server_alive_count_max)
            return sock, address
        except OSError as exc:
            if sock is not None:
                sock.close()
            failure = exc
    if isinstance(failure, TimeoutError):
        raise login.timed_out() from failure
    if isinstance(failure, ConnectionResetError):
        advice = HUNG_UP
    elif isinstance(failure, ConnectionRefusedError):
        advice = "the connection was refused: does an SSH server listen on that port?"
    else:
        advice = f"cannot be reached: {reason_of(failure)}"
    raise login.no_connection(failure.errno or errno.ECONNABORTED, advice) from failure


def _bind(sock: socket.socket, login: Login) -> None:
    """Choose our own address (BindAddress)."""
    if login.bind_address is None:
        return
    try:
        found = socket.getaddrinfo(login.bind_address, 0, sock.family, socket.SOCK_STREAM)
        sock.bind(found[0][4])
    except (OSError, UnicodeError) as exc:
        # The same for all addresses of the server, but for those of another family.
        raise OSError(
            errno.EADDRNOTAVAIL, f"BindAddress {login.bind_address!r} cannot be used: {exc}"
        ) from exc
