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
        if address[1]:
            # A socket that shares its port would get one that somebody else has.
            with socket.socket(_family(address), socket.SOCK_STREAM) as probe:
                probe.bind(address)
        return _heir(address)

    def before_listen(sock: socket.socket) -> None:
        """Nothing is in the way: connections that are left in the kernel keep no port here."""

    def stop_listening(sock: socket.socket) -> socket.socket:
        """Return a socket that has the port of `sock`, which is closed, and does not listen.

        Raises:
            OSError: the port is lost.
        """
        address = sock.getsockname()[:2]
        try:
            # Beside it, so that nobody can take the port in between. Other users cannot share it.
            heir = _heir(address)
        except OSError:
            # Not so in Wine, where Linux has no sharing beside a listener.
            sock.close()
            return _heir(address)
        sock.close()
        return heir

    def _heir(address: tuple[str, int]) -> socket.socket:
        sock = socket.socket(_family(address), socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
        return sock

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
