"""sshtunnel's listeners, which refuse connections as long as there is no way to the peer."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, Protocol

from sshtunnel import _ForwardServer, _StreamForwardServer

from ...shared.directory import restore
from ...shared.listener import BACKLOG, bind_private, take_place
from ...shared.system.leg import AF_UNIX
from ...shared.system.ports import before_listen, claim_port, stop_listening

__all__ = ["Listeners", "Server", "StreamServer", "TCPServer"]


class Server:
    """What our listeners do otherwise than socketserver's.

    The endpoint is bound at all times: a port is kept from others; a path is in a private
    directory, or where the program wants it. While nobody listens on it, libzmq's connects fail, as
    they do over TCP while the peer is down.
    """

    request_queue_size = BACKLOG

    listener: Any = None
    """The program's listener, if it has made one."""

    listening = False
    socket: Any
    server_address: Any

    @classmethod
    def around(cls, listener: socket.socket | None) -> Any:
        """Return the class of servers that take over a listener, if there is one."""
        return cls if listener is None else type(cls.__name__, (cls,), {"listener": listener})

    def server_bind(self) -> None:
        """Take over the program's listener, or bind a socket."""
        if self.listener is None:
            self.bind()
            return
        self.socket.close()
        self.socket = self.listener
        self.server_address = self.listener.getsockname()
        self.listening = True

    def server_activate(self) -> None:
        """Do not listen before :meth:`listen` says so."""
        self.socket.setblocking(False)

    def bind(self) -> None:
        """Bind the socket."""
        raise NotImplementedError

    def listen(self) -> None:
        """Let connections come.

        Raises:
            OSError: the endpoint is gone, and cannot be had again.
        """
        if not self.listening:
            if not self.intact():
                self.rebind()
            self.socket.listen(self.request_queue_size)
            self.listening = True

    def refuse(self) -> None:
        """Let connections come no more; those that wait are reset."""
        if self.listening:
            self.listening = False
            self.stop()

    def intact(self) -> bool:
        """Tell whether the endpoint still leads here."""
        return True

    def keeps(self) -> bool:
        """Have the endpoint although nobody listens there, and tell whether that is so."""
        return True

    def rebind(self) -> None:
        """Have the endpoint lead here again, with a new socket that does not listen.

        Raises:
            OSError: it cannot be had.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Stop listening, and keep the endpoint if it is still ours."""
        raise NotImplementedError

    def shutdown(self) -> None:
        """Do nothing: there is no serve_forever() to be stopped."""


class Listeners(Protocol):
    """The listeners on local endpoints; it makes them."""

    def make_server(
        self, remote: tuple[str, int], local: str, listener: socket.socket | None = None
    ) -> TCPServer | StreamServer:
        """Make a listener, or take over what listens on `local` already.

        Raises:
            OSError: the local endpoint cannot be had.
        """
        ...

    def drop_server(self, server: TCPServer | StreamServer) -> None:
        """Close a listener."""
        ...

    def close(self) -> None:
        """Close all listeners."""
        ...


class TCPServer(Server, _ForwardServer):  # type: ignore[misc]
    """sshtunnel's listener on a TCP port."""

    def bind(self) -> None:
        """Bind the socket, so that it keeps its port when it stops listening."""
        self.rebind()

    def rebind(self) -> None:
        """Bind another socket to the same port."""
        self.socket.close()
        self.socket = claim_port(self.server_address)
        self.socket.setblocking(False)
        self.server_address = self.socket.getsockname()

    def listen(self) -> None:
        """Let connections come, whatever is left in the kernel of earlier ones."""
        if not self.intact():
            self.rebind()
        before_listen(self.socket)
        super().listen()

    def stop(self) -> None:
        """Stop listening, and keep the port where the system can do that."""
        try:
            self.socket = stop_listening(self.socket)
            self.socket.setblocking(False)
        except OSError:
            self.socket.close()
            self.keeps()

    def keeps(self) -> bool:
        """Bind the socket anew if its port was lost; tell whether it has it."""
        if not self.intact():
            with suppress(OSError):  # who asks tries again
                self.rebind()
        return self.intact()

    def intact(self) -> bool:
        """Tell whether the socket has its port."""
        return bool(self.socket.fileno() >= 0)


class StreamServer(Server, _StreamForwardServer):  # type: ignore[misc]
    """sshtunnel's listener on a Unix socket, closed to other users."""

    # Of the file that is ours: device and inode.
    _file: tuple[int, int] | None = None

    def server_bind(self) -> None:
        """Note which file is ours."""
        super().server_bind()
        self._note()

    def bind(self) -> None:
        """Bind with mode 0600, in place of a socket that nobody listens on."""
        restore(os.path.dirname(self.server_address))
        bind_private(self.socket, self.server_address)

    def intact(self) -> bool:
        """Tell whether the socket's file is still there."""
        return (
            self.socket.fileno() >= 0
            and self._file is not None
            and self._file == _identity(self.server_address)
        )

    def rebind(self) -> None:
        """Put another socket in the file's place."""
        restore(os.path.dirname(self.server_address))
        self._replace()

    def stop(self) -> None:
        """Put a socket that does not listen in the file's place, unless that is gone anyway."""
        if self.intact():
            with suppress(OSError):  # listen() tries again
                self._replace()
        else:
            self.socket.close()

    def _replace(self) -> None:
        ours = self.intact()
        self.socket.close()
        self.socket = socket.socket(AF_UNIX)
        self.socket.setblocking(False)
        take_place(self.socket, self.server_address, ours=ours)
        self._note()

    def server_close(self) -> None:
        """Close and remove the socket, if it is ours: this is called when bind() fails too."""
        ours = self.intact()
        super().server_close()
        if ours:
            with suppress(OSError):
                os.unlink(self.server_address)

    def _note(self) -> None:
        self._file = _identity(self.server_address)


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.lstat(path)
        return status.st_dev, status.st_ino
    return None
