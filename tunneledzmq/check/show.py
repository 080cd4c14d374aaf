"""How a check is shown: in colour, plainly, or as JSON."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
import textwrap
from typing import Any, Protocol

from ..manual import width_of
from .steps import STEPS, Outcome

__all__ = ["JSONShow", "PlainShow", "RichShow", "Show", "choose"]


# A message, in pieces of text and the command that follows it.
_COMMAND = re.compile(
    r"(.*?)("
    r'powershell -c "[^"]*"|'
    r"(?:mkdir|ssh-keyscan|ssh-keygen|chmod) -?[^;]*?(?= \(or |, run where |; |$)|"
    r"$)",
    re.DOTALL,
)

# Columns that a text gets at least.
_NARROWEST = 20


class Show(Protocol):
    """Shows a check."""

    def start(self, title: str) -> None:
        """Show what is checked."""
        ...

    def step(self, outcome: Outcome) -> None:
        """Show the outcome of a step."""
        ...

    def end(self, ok: bool) -> None:
        """Show the end."""
        ...


def choose(*, as_json: bool) -> Show:
    """Choose by what was asked for, what is there, and who reads it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a server says may be in letters that the user's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        return JSONShow()
    if (
        sys.stdout.isatty()
        and _has_marks(sys.stdout.encoding)
        and importlib.util.find_spec("rich") is not None
    ):
        return RichShow()
    return PlainShow()


def _has_marks(encoding: str) -> bool:
    try:
        "✓✗".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class PlainShow:
    """One line for each step."""

    def start(self, title: str) -> None:
        """Print the title."""
        print(title, flush=True)

    def step(self, outcome: Outcome) -> None:
        """Print a line, and of what failed what to do."""
        mark = "ok    " if outcome.ok else "FAILED"
        print("\n".join(_lines(f"{mark}  ", outcome, width_of(sys.stdout))), flush=True)

    def end(self, ok: bool) -> None:
        """Print nothing: the last line said it."""


class RichShow:
    """The same in colour."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def start(self, title: str) -> None:
        """Print the title."""
        self._console.print(title, style="bold", markup=False)

    def step(self, outcome: Outcome) -> None:
        """Print a line, and of what failed what to do."""
        first, *others = _lines(f"{'✓' if outcome.ok else '✗'} ", outcome, self._console.width)
        style = "green" if outcome.ok else "bold red"
        self._console.print(first, style=style, markup=False, soft_wrap=True)
        for line in others:
            self._console.print(
                line, style="" if outcome.ok else "bold", markup=False, soft_wrap=True
            )

    def end(self, ok: bool) -> None:
        """Print nothing: the last line said it."""


class JSONShow:
    """One object at the end."""

    def __init__(self) -> None:
        self._title = ""
        self._outcomes: dict[str, Outcome] = {}

    def start(self, title: str) -> None:
        """Note what is checked."""
        self._title = title

    def step(self, outcome: Outcome) -> None:
        """Note an outcome."""
        self._outcomes[outcome.name] = outcome

    def end(self, ok: bool) -> None:
        """Print the object; ``ok`` is `None` for a step that was not done."""
        steps = [_as_dict(name, self._outcomes.get(name)) for name in STEPS]
        failed = next((step["name"] for step in steps if step["ok"] is False), None)
        report = {"check": self._title, "ok": ok, "failed": failed, "steps": steps}
        print(json.dumps(report), flush=True)


def _lines(mark: str, outcome: Outcome, width: int | None) -> list[str]:
    seconds = outcome.seconds
    took = "" if seconds is None else f"{seconds * 1000:.1f} ms"
    head = f"{mark}{outcome.name:<12}  {took:>10}  "
    if outcome.ok:
        longest = max(map(len, outcome.detail.split()), default=0)
        fits = width is None or len(head) + longest <= width
        return _wrapped(head + outcome.detail, width, " " * (len(head) if fits else 4))
    lines = [head.rstrip()]
    for text, command in _COMMAND.findall(outcome.detail):
        text = text.removeprefix("; ").strip()
        lines += _wrapped(f"    {text}", width, "    ") if text else []
        # To be copied: never taken apart.
        lines += [f"      {command}"] if command else []
    return lines


def _wrapped(text: str, width: int | None, indent: str) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        max(width, len(indent) + _NARROWEST),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _as_dict(name: str, outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {"name": name, "ok": None, "seconds": None, "detail": None}
    return {
        "name": name,
        "ok": outcome.ok,
        "seconds": outcome.seconds,
        "detail": outcome.detail,
    }
