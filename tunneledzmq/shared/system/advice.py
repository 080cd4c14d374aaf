"""Commands that messages advise, for the shells that people have before them."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Sequence

from .leg import HAS_UNIX_SOCKETS

__all__ = [
    "HAS_OPENSSH",
    "OR_OPENSSH",
    "add_output",
    "convert_from_putty",
    "quote",
    "raise_limit",
    "reason_of",
]

HAS_OPENSSH = HAS_UNIX_SOCKETS
"""Whether there is the other backend, to be advised for what only that can do."""

OR_OPENSSH = " or backend='openssh'" if HAS_OPENSSH else ""
"""The advice as the last of several."""


def raise_limit(error: OSError) -> str:
    """Say what to do where there are too many open files; nothing if it is not that."""
    few = error.errno in (errno.EMFILE, errno.ENFILE)
    return "raise the limit of open files (ulimit -n)" if few else ""


def reason_of(error: OSError) -> str:
    """Return the system's words for an error, and what to do where it is too many open files."""
    words, advice = error.strerror or str(error), raise_limit(error)
    return f"{words}; {advice}" if advice else words


if sys.platform == "win32":
    # They are for PowerShell and for cmd alike. The former knows no "&&", and its ">>" writes
    # UTF-16; the latter knows no single quotes.
    _PLAIN = re.compile(r"[\w.:\\/~+-]+")

    # What one of them replaces between double quotes, or takes for the end of them.
    _REPLACED = re.compile('["\N{LEFT DOUBLE QUOTATION MARK}-\N{DOUBLE LOW-9 QUOTATION MARK}$`%]')

    # What PowerShell takes for the end of single quotes, unless there are two.
    _SINGLE = re.compile(
        "(['\N{LEFT SINGLE QUOTATION MARK}-\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}])"
    )

    def quote(word: str) -> str:
        """Return a word as it is written in a command."""
        return word if _PLAIN.fullmatch(word) else f'"{word}"'

    def _quote_inside(word: str) -> str:
        return word if _PLAIN.fullmatch(word) else "'" + _SINGLE.sub(r"\1\1", word) + "'"

    def add_output(words: Sequence[str], file: str, name: str | None = None) -> str | None:
        """Return the command that adds what another one prints to a file; `None`: there is none."""
        directory = os.path.dirname(file)
        if name is not None or any(map(_REPLACED.search, (*words, file))):
            return None
        make = "" if os.path.isdir(directory) else f"mkdir -Force {_quote_inside(directory)}; "
        scan = " ".join(map(_quote_inside, words))
        add = f"Add-Content -Encoding ascii -LiteralPath {_quote_inside(file)}"
        return f'powershell -c "{make}{scan} | {add}"'

    def convert_from_putty(path: str) -> str:
        """Say how a key of PuTTY's is made one of OpenSSH's."""
        return "load it in puttygen, then Conversions, Export OpenSSH key"

else:
    quote = shlex.quote

    def add_output(words: Sequence[str], file: str, name: str | None = None) -> str | None:
        """Return the command that adds what another one prints to a file; `None`: there is none.

        Args:
            words: the other one, which prints lines of known_hosts.
            file: where they go; its directory is made, if need be.
            name: what stands in place of the host's name in each line.
        """
        directory = os.path.dirname(file)
        make = "" if os.path.isdir(directory) else f"mkdir -p -m 700 {quote(directory)} && "
        change = ""
        if name is not None:
            # A line begins with the name of the host, or with # for a comment.
            plain = re.sub(r"([/&\\])", r"\\\1", name)
            change = f" | sed {quote(f's/^[^# ][^ ]*/{plain}/')}"
        return f"{make}{shlex.join(words)}{change} >> {quote(file)}"

    def convert_from_putty(path: str) -> str:
        """Say how a key of PuTTY's is made one of OpenSSH's."""
        return f"puttygen {quote(path)} -O private-openssh -o NEW"
