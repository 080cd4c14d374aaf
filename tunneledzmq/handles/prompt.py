"""Asking the user: in the notebook, at the terminal, or by the program that ssh would run."""

from __future__ import annotations

import builtins
import getpass
import os
import shutil
from collections.abc import Callable
from typing import Any

from ..shared.environment import environment_of_others
from ..shared.system.terminal import ask_on_terminal
from ..shared.text import printable

__all__ = ["CannotAsk", "EndOfInput", "ask_user"]


class EndOfInput(Exception):
    """The user was asked, and gave no answer (Ctrl-D, or a window that was closed)."""


class CannotAsk(Exception):
    """The program that was to ask the user cannot be run, and why."""


def ask_user(text: str, echo: bool) -> str | None:
    """Ask for a secret, or with `echo` for something that may be seen.

    As ssh does (ssh(1), ``SSH_ASKPASS`` and ``SSH_ASKPASS_REQUIRE``). A notebook's cell, whose
    ``getpass`` and ``input`` are others than Python's, counts as a terminal.

    Returns:
        The answer; `None` where there is nobody to ask.

    Raises:
        EndOfInput: there was, and gave none.
        CannotAsk: the program that was to ask cannot be run.
    """
    require = os.environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    program = _askpass(require)
    if program is not None and require in ("force", "prefer"):
        return _ask_by(program, text)
    replaced = _replacement(echo)
    if replaced is not None:
        return _ask_in_notebook(replaced, text)
    try:
        return ask_on_terminal(text, echo)
    except EOFError as exc:
        raise EndOfInput from exc
    except OSError:
        return None if program is None else _ask_by(program, text)


# The program that ssh would run


def _askpass(require: str) -> str | None:
    """Return the program that may ask, if there is one."""
    shows_windows = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if require == "never" or not (shows_windows or require == "force"):
        return None
    return os.environ.get("SSH_ASKPASS") or shutil.which("ssh-askpass")


def _ask_by(program: str, text: str) -> str:
    import subprocess  # not before it is needed: it takes 20 ms

    try:
        done = subprocess.run(
            [program, text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment_of_others(),
            check=False,
        )
    except OSError as exc:
        why = exc.strerror or exc
        raise CannotAsk(f"SSH_ASKPASS={printable(program)} cannot be run: {why}") from exc
    if done.returncode:
        raise EndOfInput
    said = done.stdout.decode(errors="surrogateescape")
    return said.partition("\n")[0].partition("\r")[0]


# Notebooks


def _replacement(echo: bool) -> Callable[[str], Any] | None:
    """Return what somebody has put in place of Python's own way to ask, as ipykernel does."""
    ask: Callable[[str], Any] = builtins.input if echo else getpass.getpass
    own = "builtins" if echo else "getpass"
    return None if getattr(ask, "__module__", own) == own else ask


def _ask_in_notebook(ask: Callable[[str], Any], text: str) -> str | None:
    try:
        return str(ask(text))
    except EOFError as exc:
        raise EndOfInput from exc
    except (NotImplementedError, LookupError):  # whoever runs the cell cannot be asked
        return None
