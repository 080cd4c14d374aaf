"""The way to a server by the system's ``ssh``."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ...listener import address_of
from ..backend import Transport
from ..forward import StreamServer, TCPServer
from ..handshake import connect, watch_peer
from ..pump import Pump
from ..questions import Questions
from . import mux
from .answers import Answers
from .command import OpenSSHLogin, master_command
from .errors import changed_host_key, login_error
from .hops import Hops
from .process import MasterProcess
from .said import Said
from .transport import OpenSSHTransport

__all__ = ["OpenSSHForwarder"]

logger = logging.getLogger("tunneledzmq")

# Seconds between looks for the control socket, which appears just after the login.
_LOOK_STEP = 0.005

# Seconds for a login that is given up.
_GIVE_UP_TIMEOUT = 2.0

# Seconds for the last words of an ssh that has ended.
_LAST_WORDS = 0.5


class OpenSSHForwarder:
    """Masters (``ssh -M``), one after the other, and the listeners, which outlive them.

    Args:
        login: where and how to log in.
        directory: a private one.
        questions: where the program is asked.
        on_end: called with the reason when a session has ended, on its thread.
    """

    def __init__(
        self,
        login: OpenSSHLogin,
        directory: str,
        questions: Questions,
        on_end: Callable[[Transport, str], None],
    ) -> None:
        self.login = login
        self.pump = Pump()
        self.transport: OpenSSHTransport | None = None
        self._directory = directory
        self._control_path = os.path.join(directory, "ssh")
        self.questions = questions
        self._on_end = on_end
        self._servers: list[TCPServer | StreamServer] = []

        # Held while there are files of a login in the directory, and a process.
        self._logging_in = threading.Lock()
        # Of what is being dialled, for abort().
        self._aborted = False
        self._sock: socket.socket | None = None
        self._process: MasterProcess | None = None
        self._answers: Answers | None = None

    def prepare(self) -> None:
        """Forget an earlier :meth:`abort`; to be called before :meth:`dial`."""
        self._aborted = False

    def dial(self) -> OpenSSHTransport:
        """Log in, or find the user's own master, which has.

        Raises:
            LoginError: it cannot be done.
        """
        said = Said()
        try:
            transport = self._users_master(said) or self._own_master(said)
        except (OSError, mux.ProtocolError) as exc:
            code = exc.errno if isinstance(exc, OSError) else None
            raise self.login.no_connection(code or errno.EPROTO, f"ssh: {exc}") from exc
        self.transport = transport
        transport.start()
        return transport

    def abort(self) -> None:
        """Give up what is being dialled, from any thread."""
        self._aborted = True
        if self._sock is not None:
            self._sock.close()
        if self._process is not None:
            self._process.kill()

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

    def after_fork(self) -> None:
        """Close a forked child's copies of what belongs to its parent's session."""
        self.pump.after_fork()
        for part in (self._process, self._answers, self.transport):
            if part is not None:
                part.after_fork()

    def close(self) -> None:
        """End the session in order, close all listeners."""
        transport = self.transport
        if transport is not None:
            transport.disconnect()
            transport.join()
        # What was given up takes its files along; then the directory can be removed.
        if self._logging_in.acquire(timeout=_GIVE_UP_TIMEOUT):
            self._logging_in.release()
        for server in list(self._servers):
            self.drop_server(server)
        self.pump.close()

    # Logging in

    def _users_master(self, said: Said) -> OpenSSHTransport | None:
        """Take the master that ``ssh`` itself would take, if there is one."""
        if not self.login.control_path:
            return None
        try:
            found = OpenSSHTransport(
                self.login.control_path, self.pump, self._session_ended, None, said
            )
        except (OSError, mux.ProtocolError):
            return None
        logger.info("%s: over the master at %s", self.login.server, self.login.control_path)
        return found

    def _own_master(self, said: Said) -> OpenSSHTransport:
        self._check_keyfiles()
        if self.login.strict_host_key_checking != "yes" and self.login.user_known_hosts:
            _open_for_new_keys(self.login.user_known_hosts[0])
        # A connection that cannot be made needs no ssh to be found out.
        self._sock = None if self.login.connects_itself else self._connect()
        with self._logging_in:
            if self._aborted:
                if self._sock is not None:
                    self._sock.close()
                raise self.login.no_connection(errno.ECONNABORTED, "the login was given up")
            answers = Answers(self.login, said, self.questions, self._directory, self._sock)
            self._answers = answers
            try:
                return self._log_in(answers, said)
            finally:
                answers.close()
                self._answers = self._sock = None

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

    def _connect(self) -> socket.socket:
        sock = connect(self.login, self.questions)
        sock.setblocking(True)
        if sock.family != socket.AF_UNIX:
            # ssh asks for it only for a terminal's sake. Without, what is small waits for the
            # acknowledgement of what was before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watch_peer(sock, self.login.patience)
        return sock

    def _log_in(self, answers: Answers, said: Said) -> OpenSSHTransport:
        with suppress(FileNotFoundError):
            os.unlink(self._control_path)
        command = master_command(self.login, self._control_path, answers.path, answers.hop)
        process = MasterProcess(command, _environment(answers.askpass))
        self._process = process
        try:
            if self._aborted:
                process.kill()
            self._wait_for_login(process, answers, said)
            transport = OpenSSHTransport(
                self._control_path, self.pump, self._session_ended, process, said
            )
        except BaseException:
            process.end()
            raise
        finally:
            self._process = None
        if changed := changed_host_key(said):
            logger.warning(
                "%s: %s; going on without password, as strict_host_key_checking=no",
                self.login.server,
                changed,
            )
        if added := said.find_own(r"Warning: (Permanently added .*)"):
            logger.info("%s: %s", self.login.server, added[1])
        return transport

    def _tell(self, said: Said) -> None:
        """Tell of the steps that ssh has done."""
        for step, detail in said.steps():
            self.questions.tell(step, detail)

    def _wait_for_login(self, process: MasterProcess, answers: Answers, said: Said) -> None:
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
                self._tell(said)
                if process.life in ready:
                    _read_to_the_end(process, said)
                    self._tell(said)
                    raise login_error(self.login, said, Hops.said(answers.hop), answers.skipped)
                if answers in ready:
                    # It has said before it asked what it is about.
                    process.read_stderr(said)
                    answers.answer()
                if said.authenticated and os.path.exists(self._control_path):
                    return

    def _session_ended(self, transport: OpenSSHTransport, reason: str) -> None:
        if transport is self.transport:
            self.transport = None
            self._on_end(transport, reason)


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
        **os.environ,
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
