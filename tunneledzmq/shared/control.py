r"""The control pipe between the program and a gateway: one JSON object a line.

From the program:

=========  =========================================================  ==========================
type       further members                                            meaning
=========  =========================================================  ==========================
``login``  ``request``, ``directory``, ``log_level``                  first message, once
``open``   ``id``, ``host``, ``port``, ``local``, ``pace``,           open tunnel `id`, for a libzmq
           ``again``, ``listener``, ``owner``                         that connects at this pace;
                                                                      ``again`` after a restart
``close``  ``id``, ``linger`` (ms, -1 for ever), ``how`` (`How`)      libzmq gives it up
``stats``  ``id``, ``serial``                                         ask for counters
``answer`` ``serial``, and ``value``, ``error``, ``declined`` (the    to ``ask``
\          user gave none) or ``hindrance`` (it could not be asked)
``ping``   ``serial``                                                 how far is the server?
``tock``   \                                                          answer to ``tick``
=========  =========================================================  ==========================

``pace`` is `None` where no libzmq connects (another gateway's session goes through the tunnel), or
has the fields of `Pace`. ``listener`` is `None`, or a socket that listens on ``local`` already: its
descriptor travels beside the line (SCM_RIGHTS), or the line has what Windows needs to know of it.
``owner`` is the process that alone may connect, or `None`: see :mod:`.system.leg`.

End of file from the program means that it has ended, or its context has: nothing new will come.

From the gateway:

==========  ========================================================  ==========================
type        further members                                           meaning
==========  ========================================================  ==========================
``server``  ``name``, ``connect_timeout``                             answer to ``login``
``ask``     ``serial``, ``what``, and                                 while it logs in:
\           ``text``, ``echo`` for a ``"prompt"``                     a secret of the user,
\           ``host``, ``port``, ``jump`` for a ``"hop"``              the way over a hop
``opened``  ``id``, ``local``                                         logged in, and listening
``failed``  ``id``, ``error``                                         answer to ``open``
``state``   ``state``, ``error``, ``reconnects``                      the SSH session's
``taken``   ``id``                                                    libzmq has connected
``trouble`` ``id``, ``message``                                       it does not work, and why
``reached`` ``id``                                                    it does, again
``endpoint`` ``id``, ``there``                                        the local one is lost, or back
``tick``    \                                                         does the program run?
``closed``  ``id``, and the counters                                  drained and gone
``stats``   ``id``, ``serial``, and the counters                      answer to ``stats``
``step``    ``name``, ``seconds``, ``detail``                         done while it logs in
``pong``    ``serial``, ``seconds`` (`None`: no answer)               answer to ``ping``
``log``     ``name``, ``level``, ``message``                          a log record
``bye``     \                                                         the gateway ends by itself
==========  ========================================================  ==========================
"""

from __future__ import annotations

import _thread
import json
import os
import queue
import socket
import threading
from collections import deque
from enum import Enum
from typing import Any

from .system import descriptors
from .system.polling import takes

__all__ = ["ControlChannel", "How", "Message"]

Message = dict[str, Any]


class How(str, Enum):
    """How a tunnel is given up."""

    CLOSED = "closed"
    """With its socket: libzmq goes on sending for LINGER, and closes its connection."""

    DISCONNECTED = "disconnected"
    """libzmq may keep the connection until the program's next call into the socket."""

    CUT = "cut"
    """Nothing more is owed to anybody."""


class ControlChannel:
    """One end of the control pipe, over a connected stream socket.

    Any thread may send, also from a finalizer, and none of them waits for the other end: that one
    may wait to be received from itself. One thread receives.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.peer = os.getpid()
        """The process that listeners are sent to; whoever starts one sets it."""

        self._partial = b""
        # Descriptors that came before the end of their lines.
        self._descriptors: deque[int] = deque()
        # Messages that were given to send() and are not sent yet. SimpleQueue.put may be called
        # from a finalizer that interrupts send(): it only queues, and the interrupted call sends.
        self._outgoing: queue.SimpleQueue[tuple[bytes, socket.socket | None]] = queue.SimpleQueue()
        # Held by the one thread that empties the queue.
        self._sending = threading.Lock()

    @property
    def unsent(self) -> int:
        """How many messages the other end has not taken yet."""
        return self._outgoing.qsize()

    def fileno(self) -> int:
        """Return the descriptor to select on for :meth:`receive`."""
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        """Send `message`, unless the other end is gone, which :meth:`receive` tells. Never waits.

        A socket under ``listener`` is sent as a descriptor, and closed here.
        """
        listener = message.get("listener")
        if listener is not None:
            message = {**message, "listener": descriptors.give(listener, self.peer)}
        line = json.dumps(message)
        self._outgoing.put((line.encode() + b"\n", listener))
        while self._empties_queue():
            all_sent = True
            try:
                all_sent = self._send_queued(wait=False)
            finally:
                if all_sent:
                    self._sending.release()
            if not all_sent:
                self._send_rest_on_a_thread()

    def _empties_queue(self) -> bool:
        """Tell whether this thread is to do so; if so, it holds the lock."""
        return not self._outgoing.empty() and self._sending.acquire(blocking=False)

    def _send_rest_on_a_thread(self) -> None:
        try:
            # threading.Thread takes locks, which a finalizer must not.
            _thread.start_new_thread(self._send_rest, ())
        except RuntimeError:  # there are none left, or the interpreter ends
            self._send_rest()

    def _send_rest(self) -> None:
        while True:
            try:
                self._send_queued(wait=True)
            finally:
                self._sending.release()
            if not self._empties_queue():
                break

    def _send_queued(self, *, wait: bool) -> bool:
        """Send what is queued; tell whether that was possible without waiting."""
        while not self._outgoing.empty():
            if not wait and not takes(self._sock):
                return False
            self._send_now(*self._outgoing.get_nowait())
        return True

    def _send_now(self, line: bytes, listener: socket.socket | None) -> None:
        try:
            if listener is not None:
                line = descriptors.send(self._sock, line, listener)
            self._sock.sendall(line)
        except OSError:
            pass
        finally:
            if listener is not None:
                listener.close()

    def receive(self) -> list[Message] | None:
        """Wait for data and return the messages that are complete; `None` at the end of file."""
        try:
            data, beside = descriptors.receive(self._sock, 1 << 16)
        except OSError:
            data, beside = b"", []
        self._descriptors.extend(beside)
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [self._message(line) for line in lines]

    def _message(self, line: bytes) -> Message:
        message: Message = json.loads(line)
        if message.get("listener"):
            message["listener"] = descriptors.take(message["listener"], self._descriptors)
        return message

    def shutdown(self) -> None:
        """End the pipe for both ends, whoever has copies of this one, such as a forked child."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def finish(self) -> None:
        """Close this end when all messages are sent, those of other threads included."""
        with self._sending:
            self._send_queued(wait=True)
            self.shutdown()
            self._sock.close()

    def close(self) -> None:
        """Close this end. Takes no locks."""
        self._sock.close()
