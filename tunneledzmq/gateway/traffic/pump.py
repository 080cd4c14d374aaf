"""The event loop of a thread that carries, or decides: the data path has no other."""

from __future__ import annotations

import errno
import selectors
import threading
from contextlib import suppress
from typing import Protocol

from ...shared.system.descriptors import socketpair
from ...shared.system.polling import LONGEST_WAIT, make_selector, sees_changes

__all__ = ["READ", "WRITE", "Pump", "Source"]

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Source(Protocol):
    """What the pump watches."""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        ...

    def ready(self, events: int) -> None:
        """Handle `events`; called with the pump's lock held."""
        ...


class Pump:
    """A selector over listeners, local sockets and the SSH socket.

    :attr:`lock` guards the selector and all that its sources own. The thread that runs the pump
    holds it except while it waits, so that other threads may add and remove sources.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._selector = make_selector()
        # What each source is watched for; 0 while it is known but not watched.
        self._interest: dict[Source, int] = {}
        # Wakes the thread that waits, where it would not see what another one changes.
        self._alarm = None if sees_changes(self._selector) else _Alarm()
        if self._alarm is not None:
            self.watch(self._alarm, READ)

    def watch(self, source: Source, events: int) -> None:
        """Watch `source` for `events` from now on; 0 for none."""
        before = self._interest.get(source, 0)
        if events == before:
            return
        self._interest[source] = events
        if not before:
            self._selector.register(source.fileno(), events, source)
        elif events:
            self._selector.modify(source.fileno(), events, source)
        else:
            self._selector.unregister(source.fileno())
        self.wake()

    def forget(self, source: Source) -> None:
        """Stop watching `source`, which is about to be closed."""
        if self._interest.pop(source, 0):
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(source.fileno())
            self.wake()

    def wake(self) -> None:
        """Have the thread look that runs the pump, where it would not see what has changed."""
        if self._alarm is not None:
            self._alarm.ring()

    def run_once(self, timeout: float | None) -> bool:
        """Wait for events and handle them; tell whether there were any.

        Args:
            timeout: seconds to wait at most; what is very long may be cut short.
        """
        if self._alarm is not None:
            self._alarm.armed = True
        try:
            events = self._selector.select(None if timeout is None else min(timeout, LONGEST_WAIT))
        except OSError as exc:
            if exc.errno != errno.EBADF:
                raise
            events = []  # by select() alone: what it was about to wait for has just been forgotten
        with self.lock:
            if self._alarm is not None:
                self._alarm.armed = False
            for key, mask in events:
                # It may have been changed or closed since, by another thread or another source.
                wanted = mask & self._interest.get(key.data, 0)
                if wanted:
                    key.data.ready(wanted)
        return bool(events)

    def close(self) -> None:
        """Close the selector."""
        with self.lock:
            self._interest.clear()
            self._selector.close()
            if self._alarm is not None:
                self._alarm.close()

    def after_fork(self) -> None:
        """Close a forked child's copies of what is the pump's own."""
        if self._alarm is not None:
            self._alarm.close()


class _Alarm:
    """Wakes the thread that waits.

    That thread arms it before it looks at what is to be watched: what is changed before that, it
    sees; what is changed later wakes it.
    """

    def __init__(self) -> None:
        self._ringer, self._bell = socketpair()
        self._ringer.setblocking(False)
        self._bell.setblocking(False)
        self.armed = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._bell.fileno()

    def ring(self) -> None:
        """Wake the thread, if it waits or is about to."""
        if self.armed:
            self.armed = False
            with suppress(OSError):  # full: it is awake anyway; closed: nobody waits any more
                self._ringer.send(b"\0")

    def ready(self, events: int) -> None:
        """Be ready for the next time."""
        with suppress(OSError):
            self._bell.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self._ringer.close()
        self._bell.close()
