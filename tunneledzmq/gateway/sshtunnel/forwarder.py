"""sshtunnel's forwarder, with this package's login, transport and listeners at its seams."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from sshtunnel import BaseSSHTunnelForwarderError, SSHTunnelForwarder, _ForwardHandler

from ...shared.listener import address_of
from ..attempt import Attempt
from ..auth import authenticate, load_identities
from ..login import Learned, Login, LoginError
from ..reach.connect import connect
from ..reach.proxy_command import explain, why_ended
from ..reach.shell import finish
from ..traffic.pump import Pump
from ..traffic.servers import StreamServer, TCPServer
from ..trust.known_hosts import fingerprint
from .handshake import handshake
from .link import Link
from .transport import ForwardTransport

__all__ = ["TunnelForwarder"]


_logger = logging.getLogger("tunneledzmq.sshtunnel")


def _is_true(record: logging.LogRecord) -> bool:
    # The config file has been read, by us.
    return not record.getMessage().startswith("Skipping loading of ssh configuration file")


_logger.addFilter(_is_true)


class TunnelForwarder(SSHTunnelForwarder):  # type: ignore[misc]
    """An ``SSHTunnelForwarder`` whose listeners outlive its SSH sessions.

    What it does otherwise than its base class: the host key is verified before anything is told to
    the server (``_connect_to_gateway``); errors say why; one thread, that of the
    transport, carries all connections (``_get_transport`` and the server classes).

    Args:
        login: where and how to log in.
        on_end: called with the session and the reason when one has ended, on its thread.
    """

    def __init__(self, login: Login, on_end: Callable[[ForwardTransport, str], None]) -> None:
        super().__init__(
            (login.host, login.port),
            ssh_config_file=None,
            ssh_username=login.user,
            allow_agent=False,
            compression=login.compression,
            set_keepalive=0.0,
            threaded=False,
            logger=_logger,
        )
        self.login = login
        self._learned = Learned()
        self._on_end = on_end
        # The attempt of the thread that logs in, for the seams that sshtunnel calls on it.
        self._dialling = threading.local()
        # Of make_server(), for the seams that it calls.
        self._listener: socket.socket | None = None

    def dial(self, attempt: Attempt) -> ForwardTransport:
        """Set up an SSH session.

        Raises:
            LoginError: it cannot be had.
        """
        self._dialling.attempt = attempt
        try:
            self._connect_to_gateway()
        except BaseException:
            attempt.abort()
            raise
        transport: ForwardTransport = self._dialling.transport
        return transport

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

    def close(self) -> None:
        """Close all listeners, and see the commands end that led to the server."""
        for server in list(self._server_list):
            self.drop_server(server)
        finish()

    # sshtunnel's seams

    def _connect_to_gateway(self) -> None:
        attempt: Attempt = self._dialling.attempt
        # A key that cannot be used needs no server to be found out.
        identities = load_identities(self.login)
        transport = self._dialling.transport = self._get_transport()
        questions = attempt.questions
        try:
            trusted = handshake(transport, self.login, self._learned)
            key = transport.host_key
            questions.tell("host key", f"{key.get_name()} {fingerprint(key)}")
            authenticate(
                transport, self.login, self._learned, questions, identities, trusted=trusted
            )
        except LoginError as exc:
            raise explain(exc, self._dialling.sock, self.login) from exc
        questions.tell("authenticate", f"as {self.login.user}")
        attempt.check()
        # The session has no need to wake up now and then any more.
        transport.link.settimeout(None)

    def _get_transport(self) -> ForwardTransport:
        attempt: Attempt = self._dialling.attempt
        sock = self._dialling.sock = connect(self.login, attempt)
        link = Link(sock, Pump())
        # The session's thread may wait for the socket: nobody else may close it from now on.
        attempt.on_abort(link.abort, instead_of=sock.close)
        transport = ForwardTransport(link, partial(self._on_session_end, sock))
        transport.packetizer.on_banner = partial(attempt.questions.tell, "banner")
        transport.use_compression(self.login.compression)
        return transport

    def _on_session_end(
        self, sock: socket.socket, transport: ForwardTransport, reason: str
    ) -> None:
        if not transport.disconnect_reason:
            reason = why_ended(sock, self.login) or reason
        self._on_end(transport, reason)

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
        pass
