"""SSH packets in batches: what of paramiko's inside the speed depends on.

paramiko's own :class:`~paramiko.packet.Packetizer` does everything while the session is set up,
and goes on doing it where the cipher is not AES-GCM or where it is not what is expected here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    from .connection import Connection
    from .pump import Link
    from .transport import ForwardTransport

__all__ = ["BatchPacketizer", "LinkPacketizer", "packetizer_class"]

# The largest packet that OpenSSH sends or takes (packet.c, PACKET_MAX_SIZE).
_MAX_PACKET = 1 << 18

_BLOCK = 16
_TAG = 16
_U32 = struct.Struct(">I")
_U32_U32 = struct.Struct(">II")
_DATA = bytes([MSG_CHANNEL_DATA])
_DATA_HEADER = struct.Struct(">cII")
_BYTES = [bytes([value]) for value in range(256)]

# For the tests, which show that all holds without the batches too.
_DISABLED = "TUNNELEDZMQ_NO_BATCHES"


class LinkPacketizer(Packetizer):  # type: ignore[misc]
    """paramiko's packetizer over a :class:`Link`, with OpenSSH's limits for re-keying."""

    # RFC 4344, section 3: 2**31 packets, and 2**32 blocks of 16 bytes.
    REKEY_PACKETS = 1 << 31
    REKEY_BYTES = 1 << 36

    transport: ForwardTransport
    # Called with the server's identification (RFC 4253, section 4.2).
    on_banner: Callable[[str], None]

    def readline(self, timeout: float) -> str:
        """Read a line of what comes before the first packet."""
        line: str = super().readline(timeout)
        if line.startswith("SSH-"):
            self.on_banner(line)
        return line

    def set_outbound_cipher(
        self, block_engine: Any, block_size: int, *args: Any, **kw: Any
    ) -> None:
        """Take over the new key for sending; small blocks wear out sooner (RFC 4344)."""
        super().set_outbound_cipher(block_engine, block_size, *args, **kw)
        self.REKEY_BYTES = LinkPacketizer.REKEY_BYTES if block_size >= _BLOCK else 1 << 30

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read `n` bytes, if a packet may be that long."""
        if n > _MAX_PACKET:
            raise SSHException("Invalid packet length")
        data: bytes = super().read_all(n, check_rekey)
        return data

    def start_handshake(self, timeout: float) -> None:
        """Start no timer thread: whoever dials has a deadline for all of the login."""

    def send_data(self, connection: Connection, data: memoryview) -> None:
        """Send channel data in packets of the channel's size."""
        step = connection.max_packet
        for start in range(0, len(data), step):
            message = Message()
            message.add_byte(_DATA)
            message.add_int(connection.remote_id)
            message.add_string(bytes(data[start : start + step]))
            self.send_message(message)


class BatchPacketizer(LinkPacketizer):
    """Reads and writes AES-GCM packets (RFC 5647) in batches, and channel data without detours.

    Data and window adjusts of channels go straight to their :class:`Connection`; every other
    message goes the way that it goes in paramiko. The methods that send are called with the
    pump's lock held.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._link = link
        self._random = b""

        # The keys in use where the cipher is AES-GCM: None where paramiko does the work.
        self._seal: Any = None
        self._open: Any = None
        # Fixed part and invocation counter of the nonce (RFC 5647, section 7.1).
        self._seal_iv, self._seal_count = b"", 0
        self._open_iv, self._open_count = b"", 0
        # Packet sequence numbers, which AES-GCM has no use for, but what comes after it may.
        self._sequence_out = self._sequence_in = 0
        # Since the last key exchange.
        self._packets_out = self._bytes_out = 0
        self._packets_in = self._bytes_in = 0
        self._deflate: Callable[[bytes], bytes] | None = None
        self._inflate: Callable[[bytes], bytes] | None = None

    # Keys, as the key exchange sets them

    def set_outbound_cipher(
        self, block_engine: Any, block_size: int, *args: Any, **kwargs: Any
    ) -> None:
        """Take over the new key for sending."""
        if self._seal is not None:
            self._Packetizer__sequence_number_out = self._sequence_out
        super().set_outbound_cipher(block_engine, block_size, *args, **kwargs)
        self._packets_out = self._bytes_out = 0
        self._seal = None
        if kwargs.get("aead"):
            self._seal = block_engine
            self._seal_iv, self._seal_count = _split_nonce(kwargs["iv_out"])
            self._sequence_out = self._Packetizer__sequence_number_out

    def set_inbound_cipher(self, block_engine: Any, *args: Any, **kwargs: Any) -> None:
        """Take over the new key for receiving."""
        if self._open is not None:
            self._Packetizer__sequence_number_in = self._sequence_in
        super().set_inbound_cipher(block_engine, *args, **kwargs)
        self._packets_in = self._bytes_in = 0
        self._open = None
        # What paramiko has read too much of the banner comes first; that is none of ours.
        if kwargs.get("aead") and not self._Packetizer__remainder:
            self._open = block_engine
            self._open_iv, self._open_count = _split_nonce(kwargs["iv_in"])
            self._sequence_in = self._Packetizer__sequence_number_in

    def reset_seqno_out(self) -> None:
        """Start again from 0 (strict key exchange)."""
        super().reset_seqno_out()
        self._sequence_out = 0

    def reset_seqno_in(self) -> None:
        """Start again from 0 (strict key exchange)."""
        super().reset_seqno_in()
        self._sequence_in = 0

    def set_outbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Compress from now on."""
        super().set_outbound_compressor(compressor)
        self._deflate = compressor

    def set_inbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Decompress from now on."""
        super().set_inbound_compressor(compressor)
        self._inflate = compressor

    # Sending

    def send_message(self, data: Message) -> None:
        """Send one message."""
        if self._seal is None:
            super().send_message(data)
        else:
            self._send_payload(data.asbytes())
            self._check_sent()

    def send_data(self, connection: Connection, data: memoryview) -> None:
        """Send channel data in packets of the channel's size."""
        if self._seal is None:
            super().send_data(connection, data)
            return
        step = connection.max_packet
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self._send_payload(_DATA_HEADER.pack(_DATA, connection.remote_id, len(piece)), piece)
        self._check_sent()

    def _send_payload(self, *parts: bytes | memoryview) -> None:
        if self._deflate is not None:
            parts = (self._deflate(b"".join(parts)),)
        size = sum(map(len, parts))
        padding = _BLOCK - (size + 1) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        if len(self._random) < padding:
            self._random = os.urandom(4096)
        fill, self._random = self._random[:padding], self._random[padding:]
        length = _U32.pack(1 + size + padding)
        plain = b"".join((_BYTES[padding], *parts, fill))
        nonce = self._seal_iv + self._seal_count.to_bytes(8, "big")
        self._seal_count = (self._seal_count + 1) & 0xFFFFFFFFFFFFFFFF
        self._sequence_out = (self._sequence_out + 1) & 0xFFFFFFFF
        self._packets_out += 1
        self._bytes_out += len(plain)
        self._link.send(length)
        self._link.send(self._seal.encrypt(nonce, plain, length))

    def _check_sent(self) -> None:
        if (
            self._packets_out >= self.REKEY_PACKETS or self._bytes_out >= self.REKEY_BYTES
        ) and not self.need_rekey():
            self._trigger_rekey()

    # Receiving

    def read_message(self) -> tuple[int, Message]:
        """Return the next message that is neither data nor a window adjust of a channel.

        Raises:
            EOFError: the server has closed the connection.
            NeedRekeyException: a key exchange is due.
            SSHException: what came is no SSH.
        """
        while self._open is not None:
            with self.transport.pump.lock:
                message = self._read_batch()
            if message is not None:
                return message
            try:
                alive = self._link.fill()
            except TimeoutError:
                alive = not self.closed
            if not alive:
                raise EOFError
            if self.need_rekey() and not self.transport.in_kex:
                raise NeedRekeyException
        result: tuple[int, Message] = super().read_message()
        return result

    def _read_batch(self) -> tuple[int, Message] | None:
        """Handle what is in the buffer, up to a message for paramiko."""
        # Consecutive data of one channel, to be delivered at once.
        receiver: Connection | None = None
        pieces: list[memoryview] = []
        size = 0
        direct = self._inflate is None and not self.transport.expects_packet
        message = None
        while message is None and (plain := self._next_packet()) is not None:
            end = len(plain) - plain[0]
            kind = plain[1]
            connection = None
            if direct and kind in (MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST) and end >= 10:
                number, value = _U32_U32.unpack_from(plain, 2)
                connection = self.transport.connections.get(number)
            if connection is None:
                message = self._message(plain[1:end])
            elif kind == MSG_CHANNEL_WINDOW_ADJUST:
                connection.window_adjust(value)
            else:
                if 10 + value > end:
                    raise SSHException("channel data longer than its packet")
                if connection is not receiver:
                    if receiver is not None:
                        receiver.feed(pieces, size)
                    receiver, pieces, size = connection, [], 0
                pieces.append(memoryview(plain)[10 : 10 + value])
                size += value
        if receiver is not None:
            receiver.feed(pieces, size)
        return message

    def _next_packet(self) -> bytes | None:
        """Decrypt the next packet; `None` when it is not there as a whole yet."""
        link = self._link
        start = link.start
        if link.end - start < 4:
            return None
        (length,) = _U32.unpack_from(link.buffer, start)
        if not _BLOCK <= length <= _MAX_PACKET or length % _BLOCK:
            raise SSHException("Invalid packet blocking")
        end = start + 4 + length + _TAG
        if end > link.end:
            return None
        nonce = self._open_iv + self._open_count.to_bytes(8, "big")
        try:
            plain: bytes = self._open.decrypt(
                nonce, link.buffer[start + 4 : end], link.buffer[start : start + 4]
            )
        except InvalidTag:
            raise SSHException("Mismatched MAC") from None
        if plain[0] + 2 > length:
            raise SSHException("Invalid packet padding")
        link.start = end
        self._open_count = (self._open_count + 1) & 0xFFFFFFFFFFFFFFFF
        self._sequence_in = (self._sequence_in + 1) & 0xFFFFFFFF
        self._packets_in += 1
        self._bytes_in += length
        if (
            self._packets_in >= self.REKEY_PACKETS or self._bytes_in >= self.REKEY_BYTES
        ) and not self.need_rekey():
            self._trigger_rekey()
        return plain

    def _message(self, payload: bytes) -> tuple[int, Message]:
        if self._inflate is not None:
            payload = self._inflate(payload)
        message = Message(payload[1:])
        message.seqno = (self._sequence_in - 1) & 0xFFFFFFFF
        return payload[0], message


def packetizer_class() -> type[LinkPacketizer]:
    """Choose the packetizer: in batches, if paramiko's inside is what it takes."""
    inside = vars(Packetizer(None))
    known = all(
        f"_Packetizer__{name}" in inside
        for name in ("sequence_number_out", "sequence_number_in", "remainder")
    )
    seams = all(
        hasattr(Packetizer, name)
        for name in (
            "set_outbound_cipher",
            "set_inbound_cipher",
            "reset_seqno_out",
            "reset_seqno_in",
            "set_outbound_compressor",
            "set_inbound_compressor",
            "_trigger_rekey",
        )
    )
    if known and seams and not os.environ.get(_DISABLED):
        return BatchPacketizer
    return LinkPacketizer


def _split_nonce(nonce: bytes) -> tuple[bytes, int]:
    return nonce[:4], int.from_bytes(nonce[4:], "big")
