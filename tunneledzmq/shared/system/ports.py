"""TCP ports that are ours, whether we listen or not.

While nobody listens on a port, connects to it fail at once, as they do while a peer is down; but
nobody else must get it meanwhile.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

__all__ = ["before_listen", "claim_port", "stop_listening"]


def _family(address: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


if sys.platform == "win32":

    def claim_port(address: tuple[str, int]) -> socket.socket:
        """Return a TCP socket that has a port for itself, without listening on it.

        Args:
            address: host and port; 0 for any port.

        Raises:
            OSError: the port is taken, or cannot be had.
        """
        # Without SO_REUSEADDR, which would let other users share it, and take connections. With
        # SO_EXCLUSIVEADDRUSE we could not have it again while there are connections of it.
        sock = socket.socket(_family(address), socket.SOCK_STREAM)
        try:
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def before_listen(sock: socket.socket) -> None:
        """Nothing is in the way: connections that are left in the kernel keep no port here."""

    def stop_listening(sock: socket.socket) -> socket.socket:
        """Return a socket that has the port of `sock`, which is closed, and does not listen.

        Raises:
            OSError: the port is lost.
        """
        host, port = address = sock.getsockname()[:2]
        with socket.socket(sock.family, socket.SOCK_STREAM) as guard:
            # Who has a port on all addresses keeps it from other users on each of them. In Wine
            # there is none, since Linux lets nobody have it beside a listener.
            with suppress(OSError):
                guard.bind(("::" if ":" in host else "0.0.0.0", port))
            sock.close()
            return claim_port(address)

else:

    def claim_port(address: tuple[str, int]) -> socket.socket:
        """Return a TCP socket that has a port for itself, without listening on it.

        Args:
            address: host and port; 0 for any port.

        Raises:
            OSError: the port is taken, or cannot be had.
        """
        family = _family(address)
        with socket.socket(family, socket.SOCK_STREAM) as chosen:
            _share_port(chosen, True)
            chosen.bind(address)
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                _share_port(sock, True)
                # By its number: Linux takes a port that it chose itself back from who stops
                # listening.
                sock.bind(chosen.getsockname())
                chosen.close()
                # Only to listen tells whether the port is somebody else's.
                sock.listen(1)
                _share_port(sock, False)
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            except BaseException:
                sock.close()
                raise
        return sock

    def before_listen(sock: socket.socket) -> None:
        """Let a port be listened on whatever is left in the kernel of earlier connections."""
        _share_port(sock, True)

    def stop_listening(sock: socket.socket) -> socket.socket:
        """Return a socket that has the port of `sock`, here itself, and does not listen.

        Raises:
            OSError: the system cannot do that.
        """
        sock.shutdown(socket.SHUT_RDWR)
        _share_port(sock, False)
        return sock

    def _share_port(sock: socket.socket, share: bool) -> None:
        """Let others bind to the port of a socket, such as connections that are left in the kernel.

        Not shared and not listening, Linux keeps it for us.
        """
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, share)
