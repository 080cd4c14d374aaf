"""paramiko's `Transport` with the pump inside: what of paramiko's session layer we lean on.

Channels here are :class:`Connection` objects that never block, in place of ``paramiko.Channel``
with its locks, buffers and waiting threads.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.common import (
    DEBUG,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DISCONNECT,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_SERVICE_REQUEST,
)
from paramiko.message import Message

from .auth.userauth import Userauth
from .connection import Connection
from .packetizer import HEADROOM, TAILROOM, LinkPacketizer, packetizer_class
from .pump import Link
from .refusal import refusal
from .window import FIRST_SIZE, Path

if TYPE_CHECKING:
    Handler = Callable[[Connection, Message], None]

__all__ = ["ForwardTransport"]

# The largest data that we send in one packet (RFC 4253, section 6.1, and OpenSSH's own).
_MAX_DATA_OUT = 1 << 15

# The largest that we take. sshd sends one packet for each 32 KiB that it reads from the peer: with
# larger ones it gets rid of what it has piled up while the network was slow.
_MAX_DATA_IN = 7 << 15

# Bytes to read from libzmq at once.
_READ_SIZE = 1 << 19

# RFC 4253, section 11.1.
_DISCONNECT_BY_APPLICATION = 11

# Messages of the authentication and of channels begin here (RFC 4250, section 4.1.2).
_FIRST_USER_MESSAGE = 50

# Where the peer is said to come from: Unix sockets have no address.
_ORIGIN = ("127.0.0.1", 0)

# aes128-gcm needs one pass over the data where paramiko's first choice, aes128-ctr, needs two.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)


class ForwardTransport(paramiko.ServiceRequestingTransport):  # type: ignore[misc]
    """An SSH session for ``direct-tcpip`` channels.

    Args:
        link: the connection to the server.
        on_end: called with the reason when the session has ended, on this transport's thread,
            which runs the link's pump.
    """

    packetizer: LinkPacketizer
    auth_handler: Userauth

    def __init__(
        self,
        link: Link,
        on_end: Callable[[ForwardTransport, str], None],
    ) -> None:
        self.pump = link.pump
        self.ended = False
        # For whichever connection reads from libzmq at the moment.
        self._read_buffer = memoryview(bytearray(HEADROOM + _READ_SIZE + TAILROOM))
        self.read_buffer = self._read_buffer[HEADROOM:-TAILROOM]
        self.link = link
        self._on_end = on_end
        # Channels until the server has closed them too, by our numbers.
        self.connections: dict[int, Connection] = {}
        self._numbers = count()
        # Connections that wait until the session takes data again, and messages that do.
        self.paused: list[Connection] = []
        self._deferred: list[Message] = []
        self._service_accepted = threading.Event()
        self.path = Path()
        # When the questions were sent to which there is no answer yet, and who wants to know.
        self._asked: deque[tuple[float, Callable[[float | None], None] | None]] = deque()
        # What the server said when it ended the session, if it did.
        self.disconnect_reason = ""
        # The host key that was verified; a key exchange must not bring another one.
        self._pinned: bytes | None = None

        super().__init__(link, packetizer_class=packetizer_class())
        self.packetizer.transport = self
        self.set_log_channel("tunneledzmq.paramiko")
        options = self.get_security_options()
        known = options.ciphers
        options.ciphers = [name for name in CIPHERS if name in known]
        # Where there is no AES-GCM, these can still be used in batches.
        options.digests = sorted(options.digests, key=lambda name: "-etm@" not in name)
        self._handler_table[MSG_CHANNEL_OPEN_SUCCESS] = self._on_open_success
        self._handler_table[MSG_CHANNEL_OPEN_FAILURE] = self._on_open_failure
        # paramiko's would be for someone who waits for the answer; nobody does.
        self._handler_table[MSG_REQUEST_SUCCESS] = self._on_answer
        self._handler_table[MSG_REQUEST_FAILURE] = self._on_answer
        link.on_writable = self.resume

    def pin_host_key(self) -> None:
        """Insist on the present host key in all key exchanges to come."""
        self._pinned = self.get_remote_server_key().asbytes()

    def run(self) -> None:
        """Run the session, and tell when it ends (this is the thread's body)."""
        try:
            super().run()
        finally:
            with self.pump.lock:
                self.ended = True
            self._on_end(self, self.disconnect_reason or _reason(self.saved_exception))
            with self.pump.lock:
                for connection in list(self.connections.values()):
                    connection.lost()
            self._let_go()

    def _let_go(self) -> None:
        """Drop the buffers, and what would keep this object alive: there may be many sessions."""
        self.link.abort()
        self.link.release()
        self.pump.close()
        self.packetizer.release()
        self.connections.clear()
        self.paused.clear()
        self._deferred.clear()
        self._asked.clear()
        self._read_buffer = self.read_buffer = memoryview(b"")
        self._handler_table.clear()

    @property
    def writable(self) -> bool:
        """Whether channel data may be sent now: no key exchange goes on, and there is room."""
        return bool(self.clear_to_send.is_set()) and not self.link.full

    @property
    def expects_packet(self) -> bool:
        """Whether a key exchange allows certain messages only."""
        return bool(self._expected_packet)

    def heard(self, now: float) -> float:
        """Return when the server was heard last (time.monotonic); `now` for what lies unread."""
        return self.link.heard(now)

    def after_fork(self) -> None:
        """Close a forked child's copy of the SSH socket."""
        self.link.after_fork()

    def abort(self) -> None:
        """End the session at once."""
        self.link.abort()

    # For connections, with the pump's lock held

    def open(self, connection: Connection, remote: tuple[str, int]) -> int:
        """Ask the server to connect to `remote`; return the channel's number."""
        number = next(self._numbers) & 0xFFFFFFFF
        self.connections[number] = connection
        # For paramiko, which looks up a channel for every message that it dispatches.
        self._channels.put(number, connection)
        message = _message(MSG_CHANNEL_OPEN)
        message.add_string("direct-tcpip")
        message.add_int(number)
        message.add_int(FIRST_SIZE)
        message.add_int(_MAX_DATA_IN)
        for host, port in (remote, _ORIGIN):
            message.add_string(host)
            message.add_int(port)
        self.send(message)
        return number

    def forget(self, connection: Connection) -> None:
        """Forget a channel that both sides have closed."""
        self.connections.pop(connection.id, None)
        self._channels.delete(connection.id)

    def send_data(self, connection: Connection, size: int) -> None:
        """Send `size` bytes of :attr:`read_buffer`; only while :attr:`writable`."""
        self.packetizer.send_data(connection, self._read_buffer, size)

    def send_eof(self, connection: Connection) -> None:
        """Tell the server that nothing more comes."""
        self._send_to_channel(MSG_CHANNEL_EOF, connection)

    def send_close(self, connection: Connection) -> None:
        """Close our side of the channel."""
        self._send_to_channel(MSG_CHANNEL_CLOSE, connection)

    def refuse_request(self, connection: Connection) -> None:
        """Answer a request for which direct-tcpip channels have no use."""
        self._send_to_channel(MSG_CHANNEL_FAILURE, connection)

    def send_window_adjust(self, connection: Connection, size: int) -> None:
        """Let the server send `size` more bytes."""
        self._send_to_channel(MSG_CHANNEL_WINDOW_ADJUST, connection, size)

    def _send_to_channel(self, kind: int, connection: Connection, *values: int) -> None:
        message = _message(kind)
        message.add_int(connection.remote_id)
        for value in values:
            message.add_int(value)
        self.send(message)

    # For any thread

    def send(self, message: Message) -> None:
        """Send a message. That the session is gone is told by its thread, not here."""
        with suppress(EOFError, OSError):
            self._send_message(message)

    def ask_alive(self, on_answer: Callable[[float | None], None] | None = None) -> None:
        """Send a request that the server answers, as OpenSSH's ServerAliveInterval does.

        Args:
            on_answer: called with the seconds that the answer took.
        """
        message = _message(MSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        with self.pump.lock:
            self._asked.append((time.monotonic(), on_answer))
            self.send(message)

    def disconnect(self) -> None:
        """End the session in order."""
        with self.pump.lock:
            message = _message(MSG_DISCONNECT)
            message.add_int(_DISCONNECT_BY_APPLICATION)
            message.add_string("")
            message.add_string("")
            self.send(message)
        self.close()

    def resume(self) -> None:
        """Send what waited, and let connections read again."""
        with self.pump.lock:
            if not self.clear_to_send.is_set():
                return
            deferred, self._deferred = self._deferred, []
            for message in deferred:
                self._send_message(message)
            if not self.link.full:
                paused, self.paused = self.paused, []
                for connection in paused:
                    connection.resume()

    def ensure_session(self) -> None:
        """Ask for the authentication service, once (RFC 4253, section 10).

        Does what paramiko's method does, without its steps of 0.1 s.
        """
        if self._service_accepted.is_set():
            return
        message = _message(MSG_SERVICE_REQUEST)
        message.add_string("ssh-userauth")
        self._asked.append((time.monotonic(), None))
        self._send_message(message)
        while not self._service_accepted.wait(0.1):
            if not self.active:
                raise self.get_exception() or paramiko.SSHException("No existing session")
        self.auth_handler = self.get_auth_handler()

    def get_auth_handler(self) -> Userauth:
        """Make the handler for the authentication requests."""
        return Userauth(self)

    # paramiko's inside

    def _log(self, level: int, msg: str, *args: Any) -> None:
        # What went wrong is told by whoever uses the session, without paramiko's tracebacks.
        super()._log(DEBUG, msg, *args)

    def _parse_service_accept(self, m: Message) -> None:
        super()._parse_service_accept(m)
        if self._service_userauth_accepted:
            self._on_answer()
            self._service_accepted.set()

    def _send_message(self, data: Message) -> None:
        # One order of locks for all threads: the pump's before the packetizer's.
        with self.pump.lock:
            # RFC 4253, section 7.1: only the transport's own messages during a key exchange.
            if data.asbytes()[0] >= _FIRST_USER_MESSAGE and not self.clear_to_send.is_set():
                self._deferred.append(data)
            else:
                super()._send_message(data)

    def _parse_newkeys(self, m: Message) -> None:
        # Nothing may overtake what was deferred.
        with self.pump.lock:
            super()._parse_newkeys(m)
            self.resume()

    def _parse_disconnect(self, m: Message) -> None:
        code = m.get_int()
        self.disconnect_reason = m.get_text() or f"reason {code} of RFC 4253, section 11.1"
        self._log(DEBUG, f"disconnected by the server: {self.disconnect_reason}")

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        super()._verify_key(host_key, sig)
        if self._pinned is not None and not hmac.compare_digest(self._pinned, host_key):
            raise paramiko.SSHException("the host key changed in the middle of the session")

    def _on_answer(self, _: Message | None = None) -> None:
        # Answers come in order (RFC 4254, section 4).
        if not self._asked:
            return
        asked_at, tell = self._asked.popleft()
        seconds = time.monotonic() - asked_at
        self.path.answered(seconds)
        if tell is not None:
            tell(seconds)

    def _on_open_success(self, m: Message) -> None:
        number, remote_id, window, max_packet = (m.get_int() for _ in range(4))
        with self.pump.lock:
            connection = self.connections.get(number)
            if connection is None or connection.answered:
                raise paramiko.SSHException("the server opened a channel that was not asked for")
            if not max_packet:
                raise paramiko.SSHException("the server takes packets of no size")
            connection.opened(remote_id, window, min(max_packet, _MAX_DATA_OUT))

    def _on_open_failure(self, m: Message) -> None:
        number, code, reason = m.get_int(), m.get_int(), m.get_text()
        with self.pump.lock:
            connection = self.connections.get(number)
            if connection is None or connection.answered:
                raise paramiko.SSHException("the server refused a channel that was not asked for")
            self.forget(connection)
            self._log(DEBUG, f"channel {number}: {reason} ({code})")
            connection.refused(refusal(code, reason))

    _channel_handler_table: dict[int, Handler]


def _reason(error: Exception | None) -> str:
    if error is None or isinstance(error, EOFError):
        return "the server closed the connection"
    return str(error) or type(error).__name__


def _message(kind: int) -> Message:
    message = Message()
    message.add_byte(bytes([kind]))
    return message


def _on_data(connection: Connection, m: Message) -> None:
    data = memoryview(m.get_binary())
    with connection.pump.lock:
        connection.feed(data)


def _on_extended_data(connection: Connection, m: Message) -> None:
    # direct-tcpip has no such data, but it takes up window.
    m.get_int()
    with connection.pump.lock:
        connection.skip(len(m.get_binary()))


def _on_window_adjust(connection: Connection, m: Message) -> None:
    with connection.pump.lock:
        connection.window_adjust(m.get_int())


def _on_eof(connection: Connection, m: Message) -> None:
    with connection.pump.lock:
        connection.eof()


def _on_close(connection: Connection, m: Message) -> None:
    with connection.pump.lock:
        connection.close()


def _on_request(connection: Connection, m: Message) -> None:
    m.get_text()
    transport = connection.transport
    if m.get_boolean() and isinstance(transport, ForwardTransport):
        transport.refuse_request(connection)


def _ignore(connection: Connection, m: Message) -> None:
    pass


ForwardTransport._channel_handler_table = {
    MSG_CHANNEL_SUCCESS: _ignore,
    MSG_CHANNEL_FAILURE: _ignore,
    MSG_CHANNEL_DATA: _on_data,
    MSG_CHANNEL_EXTENDED_DATA: _on_extended_data,
    MSG_CHANNEL_WINDOW_ADJUST: _on_window_adjust,
    MSG_CHANNEL_REQUEST: _on_request,
    MSG_CHANNEL_EOF: _on_eof,
    MSG_CHANNEL_CLOSE: _on_close,
}
