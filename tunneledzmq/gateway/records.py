"""The log of a gateway that has a process of its own: the program keeps it."""

from __future__ import annotations

import logging

from ..shared.control import ControlChannel

__all__ = ["RecordSender"]


class RecordSender(logging.Handler):
    """Sends log records to the program.

    Args:
        control: the control pipe.
    """

    def __init__(self, control: ControlChannel) -> None:
        super().__init__(logging.DEBUG)
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, formatted."""
        self._control.send(
            {
                "type": "log",
                "name": record.name,
                "level": record.levelno,
                "message": self.format(record),
            }
        )
