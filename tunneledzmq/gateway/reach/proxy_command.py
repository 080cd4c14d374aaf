"""ProxyCommand: a process in place of the TCP connection to the server."""

from __future__ import annotations

import errno
import re
import socket

from ...shared.system.descriptors import socketpair
from ...shared.system.job import REPLACE_SHELL
from ..login import BY_HAND, HUNG_UP, Login, LoginError
from .shell import ShellCommand

__all__ = ["ProxySocket", "connect_over_command", "explain", "why_ended"]


# Seconds for a command to end with the connection over which it leads.
_ENDS_WITHIN = 0.1

# An ssh that leads to the server (-W), and what it says for want of somebody to ask.
_SSH = re.compile(r"(?:\S*/)?ssh\s.*-W", re.DOTALL)
_CANNOT_ASK = re.compile(r"Permission denied|Host key verification failed|passphrase", re.DOTALL)


class ProxySocket(socket.socket):
    """Our end of the connection to a command; closing it ends the command.

    Nobody waits for that who closes it, or shuts it down: a thread that decides, or carries.
    """

    command: ShellCommand | None = None

    def shutdown(self, how: int) -> None:
        """Shut the socket down, and have the command ended: closing it is what comes next."""
        try:
            super().shutdown(how)
        finally:
            self._let_go()

    def close(self) -> None:
        """Close the socket, and have the command ended."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        if self.command is not None:
            self.command.close()


def connect_over_command(login: Login) -> ProxySocket:
    """Start the command.

    Raises:
        LoginError: it cannot be started.
    """
    assert login.proxy_command is not None
    ours, theirs = socketpair()
    sock = ProxySocket(fileno=ours.detach())
    with theirs:
        try:
            # So that the process that we end is the command itself.
            sock.command = ShellCommand(
                f"{REPLACE_SHELL}{login.proxy_command}",
                login.directory,
                stdin=theirs,
                stdout=theirs,
            )
        except OSError as exc:
            sock.close()
            raise login.no_connection(
                exc.errno or errno.EIO, f"ProxyCommand {login.proxy_command!r}: {exc}"
            ) from exc
    return sock


def explain(error: LoginError, sock: socket.socket | None, login: Login) -> LoginError:
    """Say what the command had to do with it that there is no session, and end it.

    Waits for its end, a second at most.
    """
    command = sock.command if isinstance(sock, ProxySocket) else None
    if command is None or error.kind != "SSHConnectionError":
        return error
    command.end()
    reason = error.message.removeprefix(f"{login.server}: ")
    said = command.describe()
    if reason == HUNG_UP and command.status:
        reason = BY_HAND  # the command has ended by itself: nobody may listen there
    text = f"ProxyCommand {login.proxy_command!r} failed ({said}): {reason}"
    if _SSH.match(login.proxy_command or "") and _CANNOT_ASK.search(said):
        text += (
            ". There is no terminal at which it could ask; over a ProxyJump, or jump=, what a hop "
            "wants is asked for"
        )
    return login.no_connection(error.errno, text)


def why_ended(sock: socket.socket, login: Login) -> str:
    """Say how the command of a session has failed that has ended; nothing if it has not."""
    command = sock.command if isinstance(sock, ProxySocket) else None
    if command is None or not command.wait(_ENDS_WITHIN):
        return ""
    command.end()
    how = command.describe().replace("\n", "; ")  # it is a line in a log
    return f"ProxyCommand {login.proxy_command!r} ended ({how})"
