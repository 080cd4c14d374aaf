"""sshtunnel's forwarder, with this package's login, transport and listeners at its seams."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sshtunnel import BaseSSHTunnelForwarderError, SSHTunnelForwarder, _ForwardHandler

from ..listener import address_of
from .auth import authenticate, load_identities
from .forward import StreamServer, TCPServer
from .handshake import connect, handshake
from .known_hosts import fingerprint
from .login import Login, LoginError
from .proxy_command import explain
from .pump import Link, Pump
from .questions import Questions
from .text import printable
from .transport import ForwardTransport

__all__ = ["TunnelForwarder"]

# Seconds to wait for the thread of an SSH session that was told to end.
_END_TIMEOUT = 5.0


class TunnelForwarder(SSHTunnelForwarder):  # type: ignore[misc]
    """An ``SSHTunnelForwarder`` whose listeners outlive its SSH sessions.

    What it does otherwise than its base class: the host key is verified before anything is told to
    the server (``_connect_to_gateway``); errors say why; one thread, that of the
    transport, carries all connections (``_get_transport`` and the server classes).

    Args:
        login: where and how to log in.
        questions: where the program is asked.
        on_end: called with the reason when a session has ended, on its thread.
    """

    def __init__(
        self,
        login: Login,
        questions: Questions,
        on_end: Callable[[ForwardTransport, str], None],
    ) -> None:
        super().__init__(
            (login.host, login.port),
            ssh_config_file=None,
            ssh_username=login.user,
            allow_agent=False,
            compression=login.compression,
            set_keepalive=0.0,
            threaded=False,
            logger=logging.getLogger("tunneledzmq.sshtunnel"),
        )
        self.login = login
        self.questions = questions
        self.pump = Pump()
        self.transport: ForwardTransport | None = None
        self._on_end = on_end
        self._link: Link | None = None
        self._sock: socket.socket | None = None
        self._aborted = False
        # Of make_server(), for the seams that it calls.
        self._listener: socket.socket | None = None

    def dial(self) -> ForwardTransport:
        """Set up an SSH session.

        Raises:
            LoginError: it cannot be had.
        """
        try:
            self._connect_to_gateway()
        except BaseException:
            self.abort()
            raise
        self.transport = self._transport
        return self._transport

    def prepare(self) -> None:
        """Forget an earlier :meth:`abort`; to be called before :meth:`dial`."""
        self._aborted = False

    def abort(self) -> None:
        """Give up what is being dialled, from any thread."""
        self._aborted = True
        if self._link is not None:
            self._link.abort()
        elif self._sock is not None:
            self._sock.close()

    def make_server(
        self, remote: tuple[str, int], local: str, listener: socket.socket | None = None
    ) -> TCPServer | StreamServer:
        """Make a listener, or take over what listens on `local` already.

        Raises:
            OSError: the local endpoint cannot be had.
        """
        self._listener = listener
        try:
            self._make_ssh_forward_server(remote, address_of(local))
        except BaseSSHTunnelForwarderError as exc:
            # sshtunnel says only that something went wrong.
            raise exc.__context__ or exc from None
        finally:
            self._listener = None
        server: TCPServer | StreamServer = self._server_list[-1]
        return server

    def drop_server(self, server: TCPServer | StreamServer) -> None:
        """Close a listener."""
        self._server_list.remove(server)
        self.tunnel_is_up.pop(server.server_address, None)
        server.server_close()

    def after_fork(self) -> None:
        """Close a forked child's copy of the SSH socket."""
        self.pump.after_fork()
        if self._link is not None:
            self._link.after_fork()

    def close(self) -> None:
        """End the session in order, close all listeners."""
        transport = self.transport
        if transport is not None:
            transport.disconnect()
            transport.join(_END_TIMEOUT)
        for server in list(self._server_list):
            self.drop_server(server)
        self.pump.close()

    # sshtunnel's seams

    def _connect_to_gateway(self) -> None:
        # A key that cannot be used needs no server to be found out.
        identities = load_identities(self.login)
        self._transport = self._get_transport()
        try:
            trusted = handshake(self._transport, self.login)
        except LoginError as exc:
            raise explain(exc, self._sock, self.login) from exc
        key = self._transport.get_remote_server_key()
        self.questions.tell("host key", f"{key.get_name()} {fingerprint(key)}")
        authenticate(self._transport, self.login, self.questions, identities, trusted=trusted)
        self.questions.tell("authenticate", f"as {self.login.user}")
        # The session has no need to wake up now and then any more.
        self._transport.link.settimeout(None)

    def _get_transport(self) -> ForwardTransport:
        self._link = None
        self._sock = connect(self.login, self.questions)
        self._link = Link(self._sock, self.pump)
        if self._aborted:
            self._link.abort()
        transport = ForwardTransport(self._link, self.pump, self._session_ended)
        transport.packetizer.on_banner = partial(self.questions.tell, "banner")
        transport.use_compression(self.login.compression)
        return transport

    def _session_ended(self, transport: ForwardTransport, error: Exception | None) -> None:
        transport.link.abort()
        if transport is self.transport:
            self.transport = None
            self._on_end(transport, transport.disconnect_reason or _reason(error))

    def _make_ssh_forward_handler_class(self, remote_address_: tuple[str, int]) -> Any:
        # No handler is ever run: listeners hand their connections to the pump. It only tells the
        # remote address, also before the first session.
        return type("Handler", (_ForwardHandler,), {"remote_address": remote_address_})

    def _make_ssh_forward_server_class(self, remote_address_: tuple[str, int]) -> Any:
        return TCPServer.around(self._listener)

    def _make_stream_ssh_forward_server_class(self, remote_address_: tuple[str, int]) -> Any:
        return StreamServer.around(self._listener)

    @staticmethod
    def _consolidate_auth(**kwargs: Any) -> Any:
        # Neither a password, which the repr would show, nor keys: see authentication.py.
        return None, []

    @staticmethod
    def _get_binds(*args: Any, **kwargs: Any) -> list[Any]:
        # Listeners are made one by one.
        return []

    def __del__(self) -> None:
        # The gateway closes it.
        with suppress(AttributeError):
            self.pump.close()


def _reason(error: Exception | None) -> str:
    text = "" if error is None else printable(str(error))
    if not text and (error is None or isinstance(error, EOFError)):
        return "the server closed the connection"
    return text or type(error).__name__
