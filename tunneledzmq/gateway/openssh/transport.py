"""A session of an ssh master, as connections see one."""

from __future__ import annotations

import logging
import selectors
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from ...shared.system.advice import reason_of
from ..traffic import transport
from ..traffic.pump import READ, Pump
from ..traffic.window import Path
from . import mux
from .channel import Channel, Watched
from .process import MasterProcess
from .said import Said

__all__ = ["OpenSSHTransport"]

logger = logging.getLogger("tunneledzmq")

# Bytes to read from libzmq at once.
_READ_SIZE = 1 << 18

# Control connections that ssh has not taken yet; it lets 64 wait.
_MAX_ASKING = 32

# Seconds for the last words of an ssh that has closed its sockets.
_LAST_WORDS = 0.2

# Seconds for ssh to end in order.
_END_TIMEOUT = 2.0


class OpenSSHTransport:
    """A master that has logged in.

    Its thread runs the pump as long as the master lives.

    Args:
        control_path: where the master listens.
        on_end: called on the thread, with the reason, when the session has ended.
        process: the master, if it is ours to end.
        said: what it has said up to now.
        directory: where its control socket is, if that is ours to remove.

    Raises:
        OSError: nobody listens there.
        mux.ProtocolError: somebody else listens there.
    """

    def __init__(
        self,
        control_path: str,
        on_end: Callable[[OpenSSHTransport, str], None],
        process: MasterProcess | None,
        said: Said,
        directory: str = "",
    ) -> None:
        self.control_path = control_path
        self.pump = Pump()
        self.ended = self.carried = False
        self._directory = directory
        # For whichever connection reads from libzmq at the moment.
        self.read_buffer = memoryview(bytearray(_READ_SIZE))
        self.path = Path()
        # ssh takes data at all times.
        self.writable = True
        self.turn = transport.TURN
        self.paused: list[transport.Channel] = []
        self._on_end = on_end
        self._process = process
        self._said = said
        self._numbers = count()
        self._channels: dict[int, Channel] = {}
        # Those that are not asked for yet, and those that are.
        self._waiting: deque[Channel] = deque()
        self._asking: set[Channel] = set()

        # It lives as long as the master does.
        keeper = socket.socket(socket.AF_UNIX)
        try:
            keeper.settimeout(_END_TIMEOUT)
            keeper.connect(control_path)
            keeper.sendall(mux.hello())
            if not mux.Receiver().feed(keeper.recv(4096)):
                raise mux.ProtocolError("no greeting")
        except BaseException:
            keeper.close()
            raise
        self._keeper = Watched(keeper, self.pump)
        self._keeper.on_read = self._read_keeper
        waker, wakened = socket.socketpair()
        self._waker, self._wakened = Watched(waker, self.pump), Watched(wakened, self.pump)
        self._wakened.on_read = self._on_wakened
        self._stderr = _Descriptor(process.stderr, self._read_stderr) if process else None
        self._life = _Descriptor(process.life, self._end) if process else None
        self._thread = threading.Thread(target=self._run, name="tunneledzmq-ssh", daemon=True)

    def start(self) -> None:
        """Begin to carry connections."""
        with self.pump.lock:
            self._keeper.watch(READ)
            self._wakened.watch(READ)
            for source in (self._stderr, self._life):
                if source is not None:
                    self.pump.watch(source, READ)
        self._thread.start()

    def is_active(self) -> bool:
        """Whether the master lives."""
        return not self.ended

    def heard(self, now: float) -> float:
        """Return `now`: ssh sees to it itself that the server answers."""
        return now

    def ask_alive(self, on_answer: Callable[[float | None], None] | None = None) -> None:
        """Do nothing: see :meth:`heard`. ssh tells nobody how long an answer took."""
        if on_answer is not None:
            on_answer(None)

    # For connections, with the pump's lock held

    def open(self, connection: transport.Channel, remote: tuple[str, int]) -> int:
        """Ask ssh for a channel to `remote`; return a number for it."""
        number = next(self._numbers)
        channel = self._channels[number] = Channel(self, connection, remote)
        # Not before the connection is made: ssh may be unable to.
        self._waiting.append(channel)
        with suppress(BlockingIOError):
            self._waker.sock.send(b"\0")
        return number

    def forget(self, connection: transport.Channel) -> None:
        """Let go of a channel."""
        channel = self._channels.pop(connection.id, None)
        if channel is not None:
            channel.close()
            self._asking.discard(channel)

    def send_data(self, connection: transport.Channel, size: int) -> None:
        """Send `size` bytes of :attr:`read_buffer`."""
        if (channel := self._channels.get(connection.id)) is not None:
            channel.send(self.read_buffer[:size])

    def send_eof(self, connection: transport.Channel) -> None:
        """Tell the server that nothing more comes."""
        if (channel := self._channels.get(connection.id)) is not None:
            channel.send_eof()

    def send_close(self, connection: transport.Channel) -> None:
        """Close our side of the channel."""
        if (channel := self._channels.get(connection.id)) is not None:
            channel.end()

    def send_window_adjust(self, connection: transport.Channel, size: int) -> None:
        """Let the server send `size` more bytes."""
        if (channel := self._channels.get(connection.id)) is not None:
            channel.adjust(size)

    # For channels, with the pump's lock held

    def start_waiting(self) -> None:
        """Ask for the channels whose turn it is."""
        self._asking = {channel for channel in self._asking if not channel.greeted}
        while self._waiting and len(self._asking) < _MAX_ASKING:
            channel = self._waiting.popleft()
            if channel.connection.state == "closed":
                self.forget(channel.connection)  # given up meanwhile
                continue
            self._asking.add(channel)
            try:
                channel.start()
            except (FileNotFoundError, ConnectionRefusedError):
                self._end()  # its socket was removed: nobody can ask it for anything any more
                return
            except OSError as exc:
                if self.check_alive():
                    self.forget(channel.connection)
                    channel.connection.refused(f"cannot ask ssh for a channel: {reason_of(exc)}")

    def refuse(self, channel: Channel, text: str) -> None:
        """Tell why there is no channel."""
        self.forget(channel.connection)
        # ssh has said why before it answered.
        self._read_stderr()
        reason = self._said.refusal(*channel.remote)
        channel.connection.refused(reason or f"the server opens no channel to it: {text}")

    def check_alive(self) -> bool:
        """Tell whether the master lives, and end the session if it does not."""
        if not self.ended:
            try:
                self.ended = not self._keeper.sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                pass
            except OSError:
                self.ended = True
        return not self.ended

    # The thread

    def _run(self) -> None:
        try:
            while not self.ended:
                self.pump.run_once(None)
        except Exception:
            logger.error("the session of ssh failed", exc_info=True)
        with self.pump.lock:
            self.ended = True
        self._hear_last_words()
        self._on_end(self, self._said.why_lost())
        with self.pump.lock:
            for channel in list(self._channels.values()):
                channel.lose()
            self._channels.clear()
            self._close()
        if self._process is not None:
            self._process.end()
        shutil.rmtree(self._directory, ignore_errors=True)
        self.pump.close()
        self.read_buffer = memoryview(b"")

    def _hear_last_words(self) -> None:
        """Let ssh say why it ends, which may come after its sockets are closed."""
        process, deadline = self._process, time.monotonic() + _LAST_WORDS
        if process is None:
            return
        with selectors.DefaultSelector() as selector:
            for source in (process.life, process.stderr):
                selector.register(source, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ended = any(key.fd == process.life for key, _ in selector.select(left))
                if not process.read_stderr(self._said) or ended:
                    return

    def _close(self) -> None:
        for source in (self._stderr, self._life):
            if source is not None:
                self.pump.forget(source)
        for watched in (self._keeper, self._wakened, self._waker):
            watched.close()

    def _end(self) -> None:
        self.ended = True

    def _read_keeper(self) -> None:
        if self._keeper.receive() == b"":
            self._end()

    def _on_wakened(self) -> None:
        with suppress(BlockingIOError):
            self._wakened.sock.recv(4096)
        self.start_waiting()

    def _read_stderr(self) -> None:
        if self._process is None:
            return
        if not self._process.read_stderr(self._said) and self._stderr is not None:
            self.pump.forget(self._stderr)

    # For other threads

    def disconnect(self) -> None:
        """End the session in order; a master that is the user's own goes on."""
        with self.pump.lock:
            if self._process is None:
                self._end()
                with suppress(OSError):
                    self._waker.sock.send(b"\0")
            else:
                with suppress(OSError):
                    self._keeper.sock.send(mux.terminate())

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the session, and for no more than it may take."""
        self._thread.join(_END_TIMEOUT if timeout is None else timeout)
        if self._thread.is_alive():
            self.abort()
            self._thread.join(_END_TIMEOUT)

    def abort(self) -> None:
        """End the session at once."""
        self._end()
        if self._process is not None:
            self._process.kill()
        with suppress(OSError):
            self._waker.sock.send(b"\0")

    def after_fork(self) -> None:
        """Close a forked child's copies of all sockets and pipes."""
        for channel in list(self._channels.values()):
            channel.after_fork()
        for watched in (self._keeper, self._wakened, self._waker):
            watched.sock.close()
        self.pump.after_fork()
        if self._process is not None:
            self._process.after_fork()


class _Descriptor:
    """A pipe from ssh as a source of the pump."""

    def __init__(self, descriptor: int, on_ready: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_ready = on_ready

    def fileno(self) -> int:
        return self._descriptor

    def ready(self, events: int) -> None:
        self._on_ready()
