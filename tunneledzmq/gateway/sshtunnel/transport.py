"""paramiko's `Transport` with the pump inside: what of paramiko's session layer we lean on.

Channels never block here; they stand in place of ``paramiko.Channel`` with its locks, buffers and
waiting threads.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import paramiko
from paramiko.common import (
    DEBUG,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DISCONNECT,
    MSG_GLOBAL_REQUEST,
    MSG_NAMES,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_SERVICE_REQUEST,
    MSG_UNIMPLEMENTED,
)
from paramiko.message import Message

from ...shared.text import DISPLAY_LIMIT, printable
from ..auth.userauth import Userauth
from ..traffic.refusal import refusal
from ..traffic.transport import TURN, Channel
from ..traffic.window import FIRST_SIZE, Path
from ..trust.certificate import HostCertificate, is_certificate, key_of, plain_algorithm
from ..wire import Reader
from .channels import HANDLERS, HARMLESS, Handler
from .identification import read_identification
from .link import Link
from .message import FarMessage
from .packetizer import HEADROOM, TAILROOM, LinkPacketizer, packetizer_class

__all__ = ["ForwardTransport"]

# The largest data that we send in one packet (RFC 4253, section 6.1, and OpenSSH's own).
_MAX_DATA_OUT = 1 << 15

# The largest that we take. sshd sends one packet for each 32 KiB that it reads from the peer: with
# larger ones it gets rid of what it has piled up while the network was slow.
_MAX_DATA_IN = 7 << 15

# Bytes to read from libzmq at once.
_READ_SIZE = 1 << 19

# A turn on a link that is slower than its senders: each one's turn is in front of all the others'.
_SHORT_TURN = 1 << 15

# RFC 4253, section 11.1.
_DISCONNECT_BY_APPLICATION = 11

# Messages of the authentication and of channels begin here (RFC 4250, section 4.1.2).
_FIRST_USER_MESSAGE = 50

# Messages that wait for the end of a key exchange: more of them are answers that the server makes
# us give.
_MAX_DEFERRED = 1 << 15

# Extensions that a server may name, as with OpenSSH (kex_input_ext_info).
_MAX_EXTENSIONS = 1023

# Bytes of a host key, or of a signature, at most: four integers of the largest size. What paramiko
# does with one takes a time that grows with the square of that.
_MAX_KEY = 1 << 14

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


# paramiko knows the method by the name that it had before RFC 8731 alone, which newer servers may
# leave out.
_CURVE, _OLD_CURVE = "curve25519-sha256", "curve25519-sha256@libssh.org"


def _with_curve() -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the key exchange methods that are offered, and all that there are."""
    preferred = tuple(paramiko.Transport._preferred_kex)
    known = dict(paramiko.Transport._kex_info)
    if _OLD_CURVE in known and _CURVE not in known:
        known[_CURVE] = known[_OLD_CURVE]
        at = preferred.index(_OLD_CURVE)
        preferred = (*preferred[:at], _CURVE, *preferred[at:])
    return preferred, known


class ForwardTransport(paramiko.ServiceRequestingTransport):  # type: ignore[misc]
    """An SSH session for ``direct-tcpip`` channels.

    Args:
        link: the connection to the server.
        on_end: called with the reason when the session has ended, on this transport's thread,
            which runs the link's pump.
    """

    packetizer: LinkPacketizer
    auth_handler: Userauth
    _preferred_kex, _kex_info = _with_curve()

    def __init__(
        self,
        link: Link,
        on_end: Callable[[ForwardTransport, str], None],
    ) -> None:
        self.pump = link.pump
        self.ended = self.carried = False
        # For whichever connection reads from libzmq at the moment.
        self._read_buffer = memoryview(bytearray(HEADROOM + _READ_SIZE + TAILROOM))
        self.read_buffer = self._read_buffer[HEADROOM:-TAILROOM]
        self.link = link
        self._on_end = on_end
        # Channels until the server has closed them too, by our numbers.
        self.connections: dict[int, Channel] = {}
        self._numbers = count()
        # Channels that wait until the session takes data again, and messages that do.
        self.paused: list[Channel] = []
        self._deferred: list[Message] = []
        self._service_accepted = threading.Event()
        self.path = Path()
        # When the questions were sent to which there is no answer yet, and who wants to know.
        self._asked: deque[tuple[float, Callable[[float | None], None] | None]] = deque()
        # What the server said when it ended the session, if it did.
        self.disconnect_reason = ""
        self.host_certificate: HostCertificate | None = None
        """What an authority says of the server's host key, if the server has shown that."""
        self.offer: dict[str, list[str]] = {}
        """The algorithms that the server offers, by paramiko's names for the lists."""
        # The host key that was verified; a key exchange must not bring another one.
        self._pinned: bytes | None = None

        super().__init__(link, packetizer_class=packetizer_class())
        self.packetizer.session = self
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
        # That of a server which knows no such requests at all.
        self._handler_table[MSG_UNIMPLEMENTED] = self._on_answer
        # What paramiko has no name for would end the session.
        for kind in range(256):
            if kind not in MSG_NAMES:
                self._handler_table[kind] = self._refuse_message
        # What is for a channel; paramiko would look it up among its own.
        for kind, handle in (*HANDLERS.items(), (MSG_CHANNEL_REQUEST, self._on_request)):
            self._handler_table[kind] = partial(self._on_channel, kind, handle)
        link.on_writable = self.resume

    def pin_host_key(self, key: paramiko.PKey) -> None:
        """Insist on the host key that was verified in all key exchanges to come."""
        self._pinned = key.asbytes()

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
    def turn(self) -> int:
        """How many bytes a connection may read now before the others get their turn."""
        return _SHORT_TURN if self.link.waits and len(self.connections) > 1 else TURN

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
        self.pump.after_fork()

    def abort(self) -> None:
        """End the session at once."""
        self.link.abort()

    def stop_thread(self) -> None:
        """Do nothing: paramiko has all sessions stop when the program ends, by ``atexit``.

        A program may have something to send by then.
        """

    # For channels, with the pump's lock held

    def open(self, channel: Channel, remote: tuple[str, int]) -> int:
        """Ask the server to connect to `remote`; return the channel's number."""
        number = next(self._numbers) & 0xFFFFFFFF
        self.connections[number] = channel
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

    def forget(self, channel: Channel) -> None:
        """Forget a channel that both sides have closed."""
        self.connections.pop(channel.id, None)

    def send_data(self, channel: Channel, size: int) -> None:
        """Send `size` bytes of :attr:`read_buffer`; only while :attr:`writable`."""
        with suppress(EOFError):  # as in send()
            self.packetizer.send_data(channel, self._read_buffer, size)

    def send_eof(self, channel: Channel) -> None:
        """Tell the server that nothing more comes."""
        self._send_to_channel(MSG_CHANNEL_EOF, channel)

    def send_close(self, channel: Channel) -> None:
        """Close our side of the channel."""
        self._send_to_channel(MSG_CHANNEL_CLOSE, channel)

    def send_window_adjust(self, channel: Channel, size: int) -> None:
        """Let the server send `size` more bytes."""
        self._send_to_channel(MSG_CHANNEL_WINDOW_ADJUST, channel, size)

    def _send_to_channel(self, kind: int, channel: Channel, *values: int) -> None:
        message = _message(kind)
        message.add_int(channel.remote_id)
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

    def get_exception(self) -> Exception | None:
        """Return what ended the session, once; what a server's words broke is an SSHException."""
        error: Exception | None = super().get_exception()
        known = (type(None), paramiko.SSHException, EOFError, OSError)
        if not isinstance(error, known):
            error = paramiko.SSHException(f"{type(error).__name__}: {error}")
        return error

    # paramiko's inside

    def _log(self, level: int, msg: str | list[str], *args: Any) -> None:
        # What went wrong is told by whoever uses the session, without paramiko's tracebacks.
        if self.logger.isEnabledFor(DEBUG):
            for text in msg if isinstance(msg, list) else [msg % args if args else msg]:
                super()._log(DEBUG, "%s", printable(text, DISPLAY_LIMIT))

    def _check_banner(self) -> None:
        packetizer = self.packetizer
        # paramiko only hashes it, and takes bytes.
        self.remote_version = read_identification(
            packetizer.read_line, lambda text: self._log(DEBUG, text)
        )
        packetizer.on_banner(printable(self.remote_version))

    def _refuse_message(self, m: Message) -> None:
        """Answer a message that we do not know (RFC 4253, section 11.4)."""
        message = _message(MSG_UNIMPLEMENTED)
        message.add_int(m.seqno)
        self.send(message)

    def _parse_kex_init(self, m: Message) -> None:
        # For an error that may come, read by itself: paramiko drops what it has read then.
        self.offer = self._really_parse_kex_init(FarMessage(m.get_remainder(), m.seqno))
        super()._parse_kex_init(m)

    def _parse_ext_info(self, msg: Message) -> None:
        count = msg.get_int()
        if count > _MAX_EXTENSIONS:
            self._refuse_message(msg)
            return
        self.server_extensions = {msg.get_text(): msg.get_text() for _ in range(count)}

    def _parse_service_accept(self, m: Message) -> None:
        if not m.get_remainder():
            # Very old servers leave the name out, which OpenSSH forgives.
            m = FarMessage(_message(0).add_string("ssh-userauth").asbytes()[1:], m.seqno)
        super()._parse_service_accept(m)
        if self._service_userauth_accepted:
            self._on_answer()
            self._service_accepted.set()

    def _send_message(self, data: Message) -> None:
        # One order of locks for all threads: the pump's before the packetizer's.
        with self.pump.lock:
            # RFC 4253, section 7.1: only the transport's own messages during a key exchange.
            if data.asbytes()[0] >= _FIRST_USER_MESSAGE and not self.clear_to_send.is_set():
                if len(self._deferred) >= _MAX_DEFERRED:
                    raise EOFError("the server asks too much in the middle of a key exchange")
                self._deferred.append(data)
            else:
                super()._send_message(data)

    def _parse_newkeys(self, m: Message) -> None:
        if self.kex_engine is None:
            self._refuse_message(m)
            return
        # Nothing may overtake what was deferred.
        with self.pump.lock:
            super()._parse_newkeys(m)
            self.resume()

    def _parse_debug(self, m: Message) -> None:
        # paramiko's takes seconds for as much as a packet holds.
        m.get_boolean()
        self._log(DEBUG, f"the server says: {printable(m.get_string())}")

    def _parse_disconnect(self, m: Message) -> None:
        code = m.get_int()
        # More lines than one would look like words of ours, and nobody may know the server yet.
        reason = printable(next(iter(m.get_string().strip().splitlines()), b""))
        self.disconnect_reason = reason or f"reason {code} of RFC 4253, section 11.1"
        self._log(DEBUG, f"disconnected by the server: {self.disconnect_reason}")

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        if max(len(host_key), len(sig)) > _MAX_KEY:
            raise paramiko.SSHException("a host key, or its signature, is too large")
        plain = host_key
        if is_certificate(self.host_key_type):
            plain = self._verify_certified(host_key, sig)
        else:
            super()._verify_key(host_key, sig)
        if self._pinned is not None and not hmac.compare_digest(self._pinned, plain):
            raise paramiko.SSHException("the host key changed in the middle of the session")

    def _verify_certified(self, blob: bytes, sig: bytes) -> bytes:
        """Verify the signature by the key of a certificate, and that of the authority."""
        try:
            certificate = HostCertificate.read(blob)
            key = key_of(certificate.key)
        except ValueError as exc:
            raise paramiko.SSHException(f"its host certificate is malformed: {exc}") from exc
        if Reader(sig).string().decode(errors="replace") != plain_algorithm(self.host_key_type):
            raise paramiko.SSHException("its signature is of another kind than was agreed on")
        if not key.verify_ssh_sig(self.H, Message(sig)):
            raise paramiko.SSHException("the signature by its host certificate's key is wrong")
        self.host_key, self.host_certificate = key, certificate
        return certificate.key

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
                # Then it is closed as soon as it is open.
                connection.refused("the server takes packets of no size")
            connection.opened(remote_id, window, min(max_packet, _MAX_DATA_OUT))

    def _on_open_failure(self, m: Message) -> None:
        number, reason = m.get_int(), refusal(m.get_int(), m.get_string())
        with self.pump.lock:
            connection = self.connections.get(number)
            if connection is None or connection.answered:
                raise paramiko.SSHException("the server refused a channel that was not asked for")
            self.forget(connection)
            self._log(DEBUG, f"channel {number}: {reason}")
            connection.refused(reason)

    def _on_request(self, channel: Channel, m: Message) -> None:
        # direct-tcpip channels have no use for any.
        m.get_text()
        if m.get_boolean():
            self._send_to_channel(MSG_CHANNEL_FAILURE, channel)

    def _on_channel(self, kind: int, handle: Handler, m: Message) -> None:
        number = m.get_int()
        connection = self.connections.get(number)
        if connection is not None:
            handle(connection, m)
        elif kind not in HARMLESS:
            raise paramiko.SSHException(
                f"the server sent {MSG_NAMES[kind]} for channel {number}, which is not open"
            )


def _reason(error: Exception | None) -> str:
    text = "" if error is None else printable(str(error))
    if not text and (error is None or isinstance(error, EOFError)):
        return "the server closed the connection"
    return text or type(error).__name__


def _message(kind: int) -> Message:
    message = Message()
    message.add_byte(bytes([kind]))
    return message
