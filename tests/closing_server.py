"""The embedded SSH server, but one that closes a channel as soon as the peer has ended.

OpenSSH waits for the client's end of file first. Twisted Conch, node's ssh2 and Erlang do not.
"""

from __future__ import annotations

from unittest import mock

from tunneledzmq.demo import child, server, sshd


class ClosingServer(server.EmbeddedServer):
    """A server that does not wait for the client's end of file."""

    def start(self) -> None:
        """Start, and wait until it listens."""

        def start_this_module(_: str, config: dict[str, object]) -> child.ChildProcess:
            return child.ChildProcess(__name__, config)

        with mock.patch.object(server, "ChildProcess", start_this_module):
            super().start()


def _close_at_once(self: sshd.Destination) -> bool:
    self.close()
    return False


def main() -> None:
    """Serve as the embedded server does otherwise."""
    sshd.Destination.eof_received = _close_at_once  # type: ignore[assignment, method-assign]
    sshd.main()
