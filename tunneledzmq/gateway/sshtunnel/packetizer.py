"""SSH packets in batches: what of paramiko's inside the speed depends on.

paramiko's own :class:`~paramiko.packet.Packetizer` does everything while the session is set up,
and goes on doing it where the cipher is not AES-GCM or where it is not what is expected here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

from ..traffic.pump import Pump
from ..traffic.transport import Channel
from .ciphers import EtmOpener, EtmSealer, GcmOpener, GcmSealer, Opener, Sealer
from .compression import Decompressor
from .identification import MAX_LINE, check_beginning
from .link import Link
from .message import FarMessage

__all__ = ["HEADROOM", "TAILROOM", "BatchPacketizer", "LinkPacketizer", "packetizer_class"]

# The largest packet that OpenSSH sends or takes (packet.c, PACKET_MAX_SIZE).
_MAX_PACKET = 1 << 18

_BLOCK = 16
_U32 = struct.Struct(">I")
_DATA = bytes([MSG_CHANNEL_DATA])

# Of a packet with channel data: the padding's length, the message's number, the channel's, and
# the data's length. (A window adjust has the same form.)
_HEADER = struct.Struct(">BBII")

# What a packet needs around its data, so that it can be encrypted where it lies.
HEADROOM = _HEADER.size
TAILROOM = _BLOCK + 4

# What is decrypted before it is handed on.
_PLAIN_SIZE = 1 << 19

# Random bytes for the padding, fetched at once.
_RANDOM_SIZE = 1 << 14

# For the tests, which show that all holds without the batches too.
_DISABLED = "TUNNELEDZMQ_NO_BATCHES"


class Session(Protocol):
    """The session, as its packetizer sees it."""

    pump: Pump
    in_kex: bool
    """Whether a key exchange goes on."""

    @property
    def connections(self) -> Mapping[int, Channel]:
        """Its channels, by our numbers."""
        ...

    @property
    def expects_packet(self) -> bool:
        """Whether a key exchange allows certain messages only."""
        ...


class LinkPacketizer(Packetizer):  # type: ignore[misc]
    """paramiko's packetizer over a :class:`Link`, with OpenSSH's limits for re-keying."""

    # RFC 4344, section 3: 2**31 packets, and 2**32 blocks of 16 bytes.
    REKEY_PACKETS = 1 << 31
    REKEY_BYTES = 1 << 36

    session: Session
    # Called with the server's identification (RFC 4253, section 4.2).
    on_banner: Callable[[str], None]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._link = link
        self._inflate: Callable[[bytes], bytes] | None = None

    def release(self) -> None:
        """Drop what the session has needed: it has ended."""
        del self.session
        self.on_banner = lambda line: None

    def read_line(self) -> bytes:
        """Read a line of what comes before the first packet; return it without its line feed.

        Raises:
            EOFError: the server has closed the connection.
            SSHException: the line is too long.
        """
        link = self._link
        while True:
            begun = bytes(link.buffer[link.start : min(link.end, link.start + MAX_LINE + 2)])
            check_beginning(begun)
            line, newline, _ = begun.partition(b"\n")
            if newline:
                link.start += len(line) + 1
                return line
            if len(line) > MAX_LINE + 1:
                raise SSHException("a line before its identification is too long")
            try:
                alive = link.fill()
            except TimeoutError:
                alive = not self.closed
            if not alive:
                raise EOFError

    def read_message(self) -> tuple[int, Message]:
        """Return the next message."""
        kind, message = super().read_message()
        return kind, FarMessage(message.asbytes(), message.seqno)

    def set_outbound_cipher(
        self, block_engine: Any, block_size: int, *args: Any, **kw: Any
    ) -> None:
        """Take over the new key for sending; small blocks wear out sooner (RFC 4344)."""
        super().set_outbound_cipher(block_engine, block_size, *args, **kw)
        self.REKEY_BYTES = LinkPacketizer.REKEY_BYTES if block_size >= _BLOCK else 1 << 30

    def set_inbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Decompress from now on, within bounds."""
        self._inflate = Decompressor(_MAX_PACKET)
        super().set_inbound_compressor(self._inflate)

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read `n` bytes, if a packet may be that long."""
        if n > _MAX_PACKET:
            raise SSHException("Invalid packet length")
        data: bytes = super().read_all(n, check_rekey)
        return data

    def start_handshake(self, timeout: float) -> None:
        """Start no timer thread: whoever dials has a deadline for all of the login."""

    def send_data(self, channel: Channel, buffer: memoryview, size: int) -> None:
        """Send channel data, in packets of the channel's size.

        Args:
            channel: whose data it is.
            buffer: the data, from :data:`HEADROOM` on, with :data:`TAILROOM` behind it.
            size: the data's.
        """
        for start in range(HEADROOM, HEADROOM + size, channel.max_packet):
            end = min(start + channel.max_packet, HEADROOM + size)
            message = Message()
            message.add_byte(_DATA)
            message.add_int(channel.remote_id)
            message.add_string(bytes(buffer[start:end]))
            self.send_message(message)


class BatchPacketizer(LinkPacketizer):
    """Reads and writes packets in batches, and channel data without detours.

    Data and window adjusts of channels go straight to their channel; every other
    message goes the way that it goes in paramiko. The methods that send are called with the
    pump's lock held.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._random = memoryview(b"")

        # The keys in use where the cipher can be used in batches: None where paramiko does the
        # work.
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        # Where the packets and bytes since the last key exchange count from.
        self._first_out = self._first_in = 0
        self._bytes_out = self._bytes_in = 0
        self._deflate: Callable[[bytes], bytes] | None = None
        # Decrypted packets. The data of successive ones is made to lie together.
        self._plain = memoryview(bytearray(HEADROOM + _PLAIN_SIZE + _MAX_PACKET + TAILROOM))

    def release(self) -> None:
        """Drop what the session has needed: it has ended."""
        super().release()
        self._plain = self._random = memoryview(b"")
        self._sealer = self._opener = None

    # Keys, as the key exchange sets them

    def set_outbound_cipher(
        self, block_engine: Any, block_size: int, *args: Any, **kwargs: Any
    ) -> None:
        """Take over the new key for sending."""
        if self._sealer is not None:
            self._Packetizer__sequence_number_out = self._sealer.sequence & 0xFFFFFFFF
        super().set_outbound_cipher(block_engine, block_size, *args, **kwargs)
        sequence = self._first_out = self._Packetizer__sequence_number_out
        self._bytes_out = 0
        self._sealer = None
        if kwargs.get("aead"):
            self._sealer = GcmSealer(block_engine, kwargs["iv_out"], sequence)
        elif kwargs.get("etm") and block_size == _BLOCK:
            self._sealer = EtmSealer(block_engine, *_mac(kwargs), sequence)

    def set_inbound_cipher(
        self, block_engine: Any, block_size: int, *args: Any, **kwargs: Any
    ) -> None:
        """Take over the new key for receiving."""
        if self._opener is not None:
            self._Packetizer__sequence_number_in = self._opener.sequence & 0xFFFFFFFF
        super().set_inbound_cipher(block_engine, block_size, *args, **kwargs)
        sequence = self._first_in = self._Packetizer__sequence_number_in
        self._bytes_in = 0
        self._opener = None
        if kwargs.get("aead"):
            self._opener = GcmOpener(block_engine, kwargs["iv_in"], sequence)
        elif kwargs.get("etm") and block_size == _BLOCK:
            self._opener = EtmOpener(block_engine, *_mac(kwargs), sequence)

    def reset_seqno_out(self) -> None:
        """Start again from 0 (strict key exchange)."""
        super().reset_seqno_out()
        if self._sealer is not None:
            self._sealer.sequence = 0

    def reset_seqno_in(self) -> None:
        """Start again from 0 (strict key exchange)."""
        super().reset_seqno_in()
        if self._opener is not None:
            self._opener.sequence = 0

    def set_outbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Compress from now on."""
        super().set_outbound_compressor(compressor)
        self._deflate = compressor

    # Sending

    def send_message(self, data: Message) -> None:
        """Send one message."""
        sealer = self._sealer
        if sealer is None:
            super().send_message(data)
            return
        payload = data.asbytes()
        if self._deflate is not None:
            payload = self._deflate(payload)
        padding = _padding(1 + len(payload))
        plain = memoryview(b"".join((bytes((padding,)), payload, self._random_bytes(padding))))
        size = 4 + len(plain) + sealer.tag_size
        out, at = self._link.room(size)
        sealer.seal(plain, out, at)
        self._link.sent(size)
        self._count_sent(sealer, size)

    def send_data(self, channel: Channel, buffer: memoryview, size: int) -> None:
        """Send channel data, in packets of the channel's size, encrypted where it lies."""
        sealer = self._sealer
        if sealer is None or self._deflate is not None:
            super().send_data(channel, buffer, size)
            return
        step = channel.max_packet
        overhead = 4 + HEADROOM + TAILROOM + sealer.tag_size
        out, begin = self._link.room(size + overhead * (size // step + 1))
        at = begin
        start, rest = 0, size
        while rest:
            count = step if rest > step else rest
            rest -= count
            end = start + HEADROOM + count
            padding = _padding(HEADROOM + count)
            stop = end + padding
            _HEADER.pack_into(buffer, start, padding, MSG_CHANNEL_DATA, channel.remote_id, count)
            # The padding lies on the next packet's data, and the next header on this one's.
            covered = bytes(buffer[end:stop]) if rest else None
            buffer[end:stop] = self._random_bytes(padding)
            sealer.seal(buffer[start:stop], out, at)
            if covered is not None:
                buffer[end:stop] = covered
            at += 4 + stop - start + sealer.tag_size
            start += count
        self._link.sent(at - begin)
        self._count_sent(sealer, at - begin)

    def _random_bytes(self, count: int) -> memoryview:
        if len(self._random) < count:
            self._random = memoryview(os.urandom(_RANDOM_SIZE))
        fill, self._random = self._random[:count], self._random[count:]
        return fill

    def _count_sent(self, sealer: Sealer, size: int) -> None:
        self._bytes_out += size
        if (
            self._bytes_out >= self.REKEY_BYTES
            or sealer.sequence - self._first_out >= self.REKEY_PACKETS
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
        while self._opener is not None:
            with self.session.pump.lock:
                message = self._read_batch(self._opener)
            if message is not None:
                return message
            try:
                alive = self._link.fill()
            except TimeoutError:
                alive = not self.closed
            if not alive:
                raise EOFError
            if self.need_rekey() and not self.session.in_kex:
                raise NeedRekeyException
        result: tuple[int, Message] = super().read_message()
        return result

    def _read_batch(self, opener: Opener) -> tuple[int, Message] | None:
        """Handle what is in the buffer, up to a message for paramiko."""
        link, plain = self._link, self._plain
        data, begin = link.buffer, link.start
        channels = self.session.connections
        direct = self._inflate is None and not self.session.expects_packet
        # Data of one channel, to be delivered at once: plain[first:end].
        receiver: Channel | None = None
        first = end = HEADROOM
        message = None
        while message is None and (length := self._next_length(opener)):
            start = link.start
            link.start = stop = start + 4 + length + opener.tag_size
            if end > _PLAIN_SIZE:
                if receiver is not None:
                    receiver.feed(plain[first:end])
                first = end = HEADROOM
            # The packet's header lies on the data before it.
            at = end - HEADROOM
            covered = bytes(plain[at:end])
            opener.open(data, start, stop, plain, at)
            padding, kind, number, value = _HEADER.unpack_from(plain, at)
            if padding + 2 > length:
                raise SSHException("Invalid packet padding")
            channel = None
            if (
                direct
                and kind in (MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST)
                and HEADROOM + padding <= length
            ):
                channel = channels.get(number)
            if channel is None:
                message = self._message(bytes(plain[at + 1 : at + length - padding]))
                plain[at:end] = covered
                continue
            plain[at:end] = covered
            if kind == MSG_CHANNEL_WINDOW_ADJUST:
                channel.window_adjust(value)
                continue
            if HEADROOM + value + padding > length:
                raise SSHException("channel data longer than its packet")
            if channel is not receiver:
                if receiver is not None:
                    receiver.feed(plain[first:end])
                receiver, first = channel, end
            end += value
        if receiver is not None:
            receiver.feed(plain[first:end])
        self._count_received(opener, link.start - begin)
        return message

    def _next_length(self, opener: Opener) -> int:
        """Return the length of the next packet; 0 when it is not there as a whole yet."""
        link = self._link
        available = link.end - link.start
        if available < 4:
            return 0
        length: int = _U32.unpack_from(link.buffer, link.start)[0]
        if not _BLOCK <= length <= _MAX_PACKET or length % _BLOCK:
            raise SSHException("Invalid packet blocking")
        return length if 4 + length + opener.tag_size <= available else 0

    def _message(self, payload: bytes) -> tuple[int, Message]:
        if self._inflate is not None:
            payload = self._inflate(payload)
        seqno = (self._opener.sequence - 1) & 0xFFFFFFFF if self._opener else 0
        return payload[0], FarMessage(payload[1:], seqno)

    def _count_received(self, opener: Opener, size: int) -> None:
        self._bytes_in += size
        if (
            self._bytes_in >= self.REKEY_BYTES
            or opener.sequence - self._first_in >= self.REKEY_PACKETS
        ) and not self.need_rekey():
            self._trigger_rekey()


def packetizer_class() -> type[LinkPacketizer]:
    """Choose the packetizer: in batches, if paramiko's inside is what it takes."""
    inside = vars(Packetizer(None))
    known = all(
        f"_Packetizer__{name}" in inside for name in ("sequence_number_out", "sequence_number_in")
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


def _padding(size: int) -> int:
    """Return how much to add: to a multiple of the block, and at least 4 (RFC 4253, section 6)."""
    return 4 + -(size + 4) % _BLOCK


def _mac(kwargs: dict[str, Any]) -> tuple[Any, bytes, int]:
    return kwargs["mac_engine"], kwargs["mac_key"], kwargs["mac_size"]
