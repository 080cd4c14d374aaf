"""Selectors, and what the kernel knows of one socket's other end."""

from __future__ import annotations

import math
import selectors
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .leg import AF_UNIX

__all__ = [
    "LONGEST_WAIT",
    "SEES_END_BEHIND_DATA",
    "look_at",
    "make_selector",
    "sees_changes",
    "takes",
    "untaken",
]

LONGEST_WAIT = 1e6
"""Seconds to wait at once, at most: to the system, they are milliseconds in an int."""


def sees_changes(selector: selectors.BaseSelector) -> bool:
    """Tell whether a selector that waits on one thread sees what another thread registers."""
    kinds = [getattr(selectors, name, None) for name in ("EpollSelector", "KqueueSelector")]
    return isinstance(selector, tuple(kind for kind in kinds if kind is not None))


if sys.platform == "win32":
    import ctypes

    # winsock2.h
    _POLLRDNORM, _POLLRDBAND, _POLLWRNORM = 0x100, 0x200, 0x10
    _POLLERR, _POLLHUP, _POLLNVAL = 1, 2, 4
    _POLLIN = _POLLRDNORM | _POLLRDBAND
    _ENDED = _POLLERR | _POLLHUP | _POLLNVAL

    class _PollFD(ctypes.Structure):
        _fields_ = (
            ("fd", ctypes.c_size_t),
            ("events", ctypes.c_short),
            ("revents", ctypes.c_short),
        )

    def _poll(fds: Any, milliseconds: int) -> int:
        # Python lets other threads run meanwhile.
        count: int = ctypes.windll.ws2_32.WSAPoll(fds, len(fds), milliseconds)
        if count < 0:
            raise ctypes.WinError(ctypes.windll.ws2_32.WSAGetLastError())
        return count

    class WSAPollSelector(selectors.BaseSelector):
        """A selector over WSAPoll(), which has no limit of 512 sockets as select() has."""

        def __init__(self) -> None:
            self._keys: dict[int, selectors.SelectorKey] = {}
            self._fds: Any = None
            # Whether they are to be made anew, since something has changed.
            self._stale = True

        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """Watch a socket."""
            fd = _number(fileobj)
            if fd in self._keys:
                raise KeyError(f"{fileobj!r} is registered already")
            key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
            self._stale = True
            return key

        def unregister(self, fileobj: Any) -> selectors.SelectorKey:
            """Watch a socket no more."""
            key = self._keys.pop(_number(fileobj))
            self._stale = True
            return key

        def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """Watch a socket for other events."""
            self.unregister(fileobj)
            return self.register(fileobj, events, data)

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait for events."""
            milliseconds = -1 if timeout is None else _milliseconds(timeout)
            if self._stale:
                # In this order: another thread may change something while they are made.
                self._stale = False
                keys = list(self._keys.values())
                self._fds = (_PollFD * len(keys))(
                    *(_PollFD(key.fd, _asked(key.events), 0) for key in keys)
                )
            fds = self._fds
            ready: list[tuple[selectors.SelectorKey, int]] = []
            if not _poll(fds, milliseconds):
                return ready
            for entry in fds:
                key = self._keys.get(entry.fd) if entry.revents else None
                if key is not None and (events := _events(entry.revents) & key.events):
                    ready.append((key, events))
            return ready

        def close(self) -> None:
            """Forget all sockets."""
            self._keys.clear()
            self._stale = True

        def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
            """Return what is watched, by descriptors."""
            return self._keys

    def _milliseconds(seconds: float) -> int:
        return math.ceil(min(max(seconds, 0.0), LONGEST_WAIT) * 1000)

    def _number(fileobj: Any) -> int:
        number: int = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return number

    def _asked(events: int) -> int:
        return (_POLLRDNORM if events & selectors.EVENT_READ else 0) | (
            _POLLWRNORM if events & selectors.EVENT_WRITE else 0
        )

    def _events(found: int) -> int:
        readable = found & (_POLLIN | _ENDED)
        # The other end's end of file does not mean that it takes anything.
        writable = found & (_POLLWRNORM | _POLLERR | _POLLNVAL)
        return (selectors.EVENT_READ if readable else 0) | (
            selectors.EVENT_WRITE if writable else 0
        )

    def make_selector() -> selectors.BaseSelector:
        """Return a selector for any number of sockets."""
        return WSAPollSelector()

    SEES_END_BEHIND_DATA = False

    def look_at(sock: socket.socket) -> tuple[bool, bool]:
        """Ask whether the other end has closed, and whether there is data to read."""
        if sock.fileno() < 0:
            return True, False
        fds = (_PollFD * 1)(_PollFD(sock.fileno(), _POLLRDNORM, 0))
        _poll(fds, 0)
        return bool(fds[0].revents & _ENDED), bool(fds[0].revents & _POLLIN)

    def takes(sock: socket.socket) -> bool:
        """Ask whether some kilobytes can be sent without waiting, or never can be."""
        number = sock.fileno()  # once: another thread may close it
        return number < 0 or _poll((_PollFD * 1)(_PollFD(number, _POLLWRNORM, 0)), 0) > 0

else:
    import select

    _GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)

    SEES_END_BEHIND_DATA = hasattr(select, "POLLRDHUP")
    """Whether :func:`look_at` sees that the other end has closed while there is data to read."""

    def make_selector() -> selectors.BaseSelector:
        """Return a selector for any number of sockets."""
        return selectors.DefaultSelector()

    def look_at(sock: socket.socket) -> tuple[bool, bool]:
        """Ask whether the other end has closed, and whether there is data to read."""
        if sock.fileno() < 0:
            return True, False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN | getattr(select, "POLLRDHUP", 0))
        [(_, events)] = poll.poll(0) or [(0, 0)]
        return bool(events & _GONE), bool(events & select.POLLIN)

    def takes(sock: socket.socket) -> bool:
        """Ask whether some kilobytes can be sent without waiting, or never can be."""
        number = sock.fileno()  # once: another thread may close it
        if number < 0:
            return True
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        return bool(poll.poll(0))


def untaken(sock: socket.socket) -> int | None:
    """Ask how many bytes, at least, the other end has not taken yet of what was sent to it.

    Returns:
        `None` where the kernel does not know: over TCP, what was sent is with the other kernel.
    """
    if sock.family != AF_UNIX:
        return None
    with suppress(OSError):
        if sys.platform == "linux":
            from fcntl import ioctl
            from termios import TIOCOUTQ  # SIOCOUTQ, unix(7)

            (count,) = struct.unpack("i", ioctl(sock, TIOCOUTQ, bytes(4)))
            return int(count)
        if sys.platform == "darwin":
            return sock.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE, getsockopt(2)
    return None
