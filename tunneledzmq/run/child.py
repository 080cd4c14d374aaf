"""In the program's processes: called by the hook when they have imported `zmq`."""

from __future__ import annotations

from typing import Any

from ..handles.home import use_interpreter
from ..options import SSHOptions
from ..swap import put_in_place
from ..tunnel import Tunnel
from ..words import speak_of_flags
from .report import Report
from .settings import Settings, excepted

__all__ = ["begin"]


def begin(given: dict[str, Any]) -> None:
    """Have this process connect through the server.

    Args:
        given: the fields of `Settings`.
    """
    settings = Settings(**given)
    speak_of_flags()
    if settings.python:
        interpreter, *path = settings.python
        use_interpreter(interpreter, path)
    report = None if settings.report is None else Report(settings.report)
    put_in_place(
        SSHOptions(**settings.ssh),
        settings.local,
        (lambda addr: excepted(addr, settings.excepts)) if settings.excepts else None,
        None if report is None else report.connect,
    )
    if report is not None:
        report.begin()
        Tunnel._on_news = report.news
