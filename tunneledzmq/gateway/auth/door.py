"""The door to an agent: a Unix socket; on Windows a named pipe, or Pageant's window."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

from ...shared.system.leg import AF_UNIX
from ..wire import Reader, pack_string

__all__ = ["exchange", "usual_door"]

# Bytes of an answer at most, as OpenSSH has it.
_MAX_ANSWER = 1 << 18

# Seconds between looks at whether the answer is still wanted.
_STEP = 0.1


class _Exchange:
    """Reads what an agent answers.

    Args:
        receive: returns up to some bytes; none at the end.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive

    def answer(self) -> bytes:
        """Read the answer."""
        size = Reader(self._take(4)).uint32()
        if not 0 < size <= _MAX_ANSWER:
            raise OSError("it speaks another protocol")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._receive(size - len(data))
            if not piece:
                raise OSError("it hung up")
            data += piece
        return data


if sys.platform == "win32":
    import ctypes
    import threading
    from queue import Empty, SimpleQueue
    from typing import Any

    from paramiko import win_openssh, win_pageant

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _ERROR_SEM_TIMEOUT = 121

    # No path has this name.
    _PAGEANT = "pageant:"

    def usual_door() -> str | None:
        """Return where an agent is to be found that nobody has named, if there is one."""
        pipe = str(win_openssh.PIPE_NAME)
        # To look for it by its name would take a connection; Wine has no list of pipes.
        if _kernel.WaitNamedPipeW(pipe, 1) or ctypes.get_last_error() == _ERROR_SEM_TIMEOUT:
            return pipe
        return _PAGEANT if win_pageant.can_talk_to_agent() else None

    def exchange(path: str, request: bytes, timeout: float, wanted: Callable[[], bool]) -> bytes:
        """Ask an agent.

        Args:
            path: its door.
            request: the question.
            timeout: seconds until the answer.
            wanted: tells whether the answer still is.

        Raises:
            TimeoutError: there was none in time.
            OSError: there is no agent, or it does not speak the protocol.
        """
        # Neither a pipe nor a window has a timeout: who waits for it is left behind.
        answers: SimpleQueue[bytes | OSError] = SimpleQueue()
        question = pack_string(request)
        threading.Thread(target=_ask, args=(path, question, answers), daemon=True).start()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and wanted():
            try:
                answer = answers.get(timeout=_STEP)
            except Empty:
                continue
            if isinstance(answer, OSError):
                raise answer
            return answer
        raise TimeoutError

    def _ask(path: str, question: bytes, answers: SimpleQueue[bytes | OSError]) -> None:
        try:
            if path == _PAGEANT:
                answers.put(_over(win_pageant.PageantConnection(), question))
            else:
                with open(path, "r+b", buffering=0) as pipe:
                    pipe.write(question)
                    answers.put(_Exchange(lambda size: pipe.read(size) or b"").answer())
        except OSError as exc:
            answers.put(exc)
        except ValueError as exc:  # Pageant's mailbox holds 8 KiB
            answers.put(OSError(str(exc)))

    def _over(pageant: Any, question: bytes) -> bytes:
        pageant.send(question)
        return _Exchange(pageant.recv).answer()

else:

    def usual_door() -> str | None:
        """Return where an agent is to be found that nobody has named, if there is one."""
        return None

    def exchange(path: str, request: bytes, timeout: float, wanted: Callable[[], bool]) -> bytes:
        """Ask an agent.

        Args:
            path: its door.
            request: the question.
            timeout: seconds until the answer.
            wanted: tells whether the answer still is.

        Raises:
            TimeoutError: there was none in time.
            OSError: there is no agent, or it does not speak the protocol.
        """
        deadline = time.monotonic() + timeout
        with socket.socket(AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.sendall(pack_string(request))
            sock.settimeout(_STEP)

            def receive(size: int) -> bytes:
                while time.monotonic() < deadline and wanted():
                    try:
                        return sock.recv(size)
                    except TimeoutError:
                        continue
                raise TimeoutError

            return _Exchange(receive).answer()
