"""The log of a gateway that has a process of its own: the program keeps it."""

from __future__ import annotations

import logging

from ..shared.control import ControlChannel

__all__ = ["RecordSender"]

# How many messages wait for a program that stands still before records are left out.
_MAX_UNSENT = 1000


class RecordSender(logging.Handler):
    """Sends log records to the program.

    Args:
        control: the control pipe.
    """

    def __init__(self, control: ControlChannel) -> None:
        super().__init__(logging.DEBUG)
        self._control = control
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, formatted; leave it out while the program takes none."""
        if self._control.unsent >= _MAX_UNSENT:
            self._left_out += 1
            return
        if self._left_out:
            self._send(
                record.name,
                logging.WARNING,
                f"{self._left_out} records were left out: the program did not take them",
            )
            self._left_out = 0
        self._send(record.name, record.levelno, self.format(record))

    def _send(self, name: str, level: int, message: str) -> None:
        self._control.send({"type": "log", "name": name, "level": level, "message": message})
