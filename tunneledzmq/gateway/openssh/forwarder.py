"""The way to a server by the system's ``ssh``."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import shutil
import socket
import socketserver
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import cycle, islice
from string import ascii_lowercase

from ...shared.directory import restore
from ...shared.environment import environment_of_others
from ...shared.listener import address_of
from ...shared.system.tcp import watch_peer
from ..attempt import Attempt
from ..reach.connect import connect
from ..traffic.servers import StreamServer, TCPServer
from ..traffic.transport import Transport
from . import mux
from .answers import Answers
from .command import OpenSSHLogin, master_command
from .errors import changed_host_key, login_error, unusable_keyfiles
from .hops import Hops
from .process import MasterProcess
from .said import Said
from .transport import OpenSSHTransport

__all__ = ["OpenSSHForwarder"]

logger = logging.getLogger("tunneledzmq")

# Seconds between looks for the control socket, which appears just after the login.
_LOOK_STEP = 0.005

# Seconds for the last words of an ssh that has ended.
_LAST_WORDS = 0.5


class OpenSSHForwarder:
    """Masters (``ssh -M``), one after the other, and the listeners, which outlive them.

    Args:
        login: where and how to log in.
        directory: a private one.
        on_end: called with the session and the reason when one has ended, on its thread.
    """

    def __init__(
        self,
        login: OpenSSHLogin,
        directory: str,
        on_end: Callable[[Transport, str], None],
    ) -> None:
        self.login = login
        self._directory = directory
        self._names = cycle(ascii_lowercase)
        self._on_end = on_end
        self._servers: list[TCPServer | StreamServer] = []

    def dial(self, attempt: Attempt) -> OpenSSHTransport:
        """Log in, or find the user's own master, which has.

        Raises:
            LoginError: it cannot be done.
        """
        said = Said()
        try:
            transport = self._users_master(attempt, said) or self._own_master(attempt, said)
        except (OSError, mux.ProtocolError) as exc:
            attempt.abort()
            code = exc.errno if isinstance(exc, OSError) else None
            raise self.login.no_connection(code or errno.EPROTO, f"ssh: {exc}") from exc
        except BaseException:
            attempt.abort()
            raise
        transport.start()
        attempt.on_abort(transport.abort)
        return transport

    def make_server(
        self, remote: tuple[str, int], local: str, listener: socket.socket | None = None
    ) -> TCPServer | StreamServer:
        """Make a listener, or take over what listens on `local` already.

        Raises:
            OSError: the local endpoint cannot be had.
        """
        # No handler is ever run: listeners hand their connections to the pump.
        handler = socketserver.BaseRequestHandler
        address = address_of(local)
        kind = StreamServer if isinstance(address, str) else TCPServer
        server: TCPServer | StreamServer = kind.around(listener)(address, handler, logger=logger)
        self._servers.append(server)
        return server

    def drop_server(self, server: TCPServer | StreamServer) -> None:
        """Close a listener."""
        self._servers.remove(server)
        server.server_close()

    def close(self) -> None:
        """Close all listeners."""
        for server in list(self._servers):
            self.drop_server(server)

    # Logging in

    def _users_master(self, attempt: Attempt, said: Said) -> OpenSSHTransport | None:
        """Take the master that ``ssh`` itself would take, if there is one."""
        if not self.login.control_path:
            return None
        try:
            found = OpenSSHTransport(self.login.control_path, self._on_end, None, said)
        except (OSError, mux.ProtocolError):
            return None
        logger.info("%s: over the master at %s", self.login.server, self.login.control_path)
        attempt.questions.tell(
            "authenticate", f"before, by the master at {self.login.control_path}"
        )
        return found

    def _own_master(self, attempt: Attempt, said: Said) -> OpenSSHTransport:
        self._check_keyfiles()
        if self.login.strict_host_key_checking != "yes" and self.login.user_known_hosts:
            _open_for_new_keys(self.login.user_known_hosts[0])
        # A connection that cannot be made needs no ssh to be found out.
        sock = None if self.login.connects_itself else self._connect(attempt)
        directory = self._own_directory()
        attempt.on_abort(partial(shutil.rmtree, directory, ignore_errors=True))
        answers = Answers(self.login, said, attempt.questions, directory, sock)
        try:
            return self._log_in(attempt, answers, said, directory)
        finally:
            answers.close()

    def _own_directory(self) -> str:
        # There may be files of an attempt that was left behind. And a path that grew with their
        # number would be too long for a Unix socket one day.
        restore(self._directory)
        for name in islice(self._names, len(ascii_lowercase)):
            directory = os.path.join(self._directory, f"s{name}")
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
                return directory
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), directory)

    def _check_keyfiles(self) -> None:
        # ssh would go on without.
        for path in self.login.keyfiles or ():
            try:
                with open(path, "rb"):
                    pass
            except OSError as exc:
                raise self.login.no_entry(
                    exc.errno or errno.EIO, f"the key file {path} cannot be read: {exc.strerror}"
                ) from exc

    def _connect(self, attempt: Attempt) -> socket.socket:
        sock = connect(self.login, attempt)
        sock.setblocking(True)
        if sock.family != socket.AF_UNIX:
            # ssh asks for it only for a terminal's sake. Without, what is small waits for the
            # acknowledgement of what was before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watch_peer(sock, self.login.patience)
        return sock

    def _log_in(
        self, attempt: Attempt, answers: Answers, said: Said, directory: str
    ) -> OpenSSHTransport:
        control_path = os.path.join(directory, "ssh")
        command = master_command(self.login, control_path, answers.path, answers.hop)
        process = MasterProcess(command, _environment(answers.askpass))
        try:
            attempt.on_abort(process.kill)
            self._wait_for_login(attempt, process, answers, said, control_path)
            transport = OpenSSHTransport(control_path, self._on_end, process, said, directory)
        except BaseException:
            process.end()
            raise
        finally:
            for note in unusable_keyfiles(said):
                logger.warning("%s: %s", self.login.server, note)
        if file := said.find_own(r"Failed to add the host to the list of known hosts \((.*)\)\."):
            logger.warning(
                "%s: the host key was not added to known_hosts: ssh cannot write to %s",
                self.login.server,
                file[1],
            )
        if changed := changed_host_key(said):
            logger.warning(
                "%s: %s; going on without password, as strict_host_key_checking=no",
                self.login.server,
                changed,
            )
        if added := said.find_own(r"Warning: (Permanently added .*)"):
            logger.info("%s: %s", self.login.server, added[1])
        return transport

    def _wait_for_login(
        self,
        attempt: Attempt,
        process: MasterProcess,
        answers: Answers,
        said: Said,
        control_path: str,
    ) -> None:
        with selectors.DefaultSelector() as selector:
            for source in (process.stderr, process.life, answers):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = {
                    key.fileobj
                    for key, _ in selector.select(_LOOK_STEP if said.authenticated else None)
                }
                if process.stderr in ready and not process.read_stderr(said):
                    selector.unregister(process.stderr)
                _tell(attempt, said)
                if process.life in ready:
                    _read_to_the_end(process, said)
                    _tell(attempt, said)
                    raise login_error(
                        self.login,
                        said,
                        Hops.said(answers.hop),
                        answers.skipped,
                        told=answers.told,
                    )
                if answers in ready:
                    # It has said before it asked what it is about.
                    process.read_stderr(said)
                    answers.answer()
                if said.authenticated and os.path.exists(control_path):
                    return


def _tell(attempt: Attempt, said: Said) -> None:
    """Tell of the steps that ssh has done."""
    for step, detail in said.steps():
        attempt.questions.tell(step, detail)


def _read_to_the_end(process: MasterProcess, said: Said) -> None:
    # Its ProxyCommand may live a little longer, and say more.
    deadline = time.monotonic() + _LAST_WORDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while process.read_stderr(said) and (left := deadline - time.monotonic()) > 0:
            selector.select(left)


def _open_for_new_keys(known_hosts: str) -> None:
    """Make what ssh would append a key to, closed to others, and ending with a whole line."""
    with suppress(OSError):
        os.makedirs(os.path.dirname(known_hosts), 0o700, exist_ok=True)
        with open(os.open(known_hosts, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
                file.write(b"\n")


def _environment(askpass: str) -> dict[str, str]:
    environment = {
        **environment_of_others(),
        "LC_ALL": "C",
        "SSH_ASKPASS": askpass,
        "SSH_ASKPASS_REQUIRE": "force",
    }
    # Before OpenSSH 8.4 it was asked for under X only; we have no terminal, whatever it is.
    environment.setdefault("DISPLAY", ":0")
    # bash takes the helper's socket for a remote login, and would read ~/.bashrc at the top level.
    if environment.get("SHLVL", "0") == "0":
        environment["SHLVL"] = "1"
    # ssh has it run a ProxyCommand.
    if os.path.basename(environment.get("SHELL", "")) in ("nologin", "false"):
        environment["SHELL"] = "/bin/sh"
    return environment
