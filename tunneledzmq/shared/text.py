"""What others say, made fit for a terminal, a log and an error."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DISPLAY_LIMIT", "because", "printable", "sentences", "with_notes"]

_LIMIT = 400

DISPLAY_LIMIT = 4000
"""Characters of what a person is to read, or to debug: a question, a line of paramiko's log."""

# With what a note on a key file that others may read ends.
_COMMAND = ": chmod "

# How bytes that are no UTF-8 look after decoding with "surrogateescape".
_ESCAPED = range(0xDC80, 0xDD00)


def printable(text: str | bytes, limit: int = _LIMIT, *, lines: bool = False) -> str:
    """Return `text` without anything that would control a terminal, and not too long.

    As OpenSSH does (vis, with VIS_OCTAL), it shows such characters as the octal numbers of their
    bytes, and no more of a server's reason than 400 characters (``%.400s``).

    Args:
        text: what somebody else has said; bytes are UTF-8, as far as they are.
        limit: characters to show.
        lines: whether it may have lines and tabs; else it cannot forge a line of a log.
    """
    if isinstance(text, bytes):
        text = text[: 4 * (limit + 1)].decode(errors="surrogateescape")
    if lines:
        text = text.replace("\r\n", "\n")
    shown = "".join(
        c if c.isprintable() or (lines and c in "\n\t") else _octal(c) for c in text[:limit]
    )
    if len(text) <= limit and len(shown) <= limit:
        return shown
    return f"{shown[:limit]}..."


def sentences(*parts: str) -> str:
    """Join sentences, of which some have no full stop and some a question mark."""
    *others, last = [part for part in parts if part]
    ended = [part if part.endswith((".", "?", "!")) else f"{part}." for part in others]
    return " ".join([*ended, last])


def with_notes(text: str, notes: Iterable[str]) -> str:
    """Add notes to a message, each once, as sentences.

    Those that end with a command are the last: it is to be copied, and nothing may stick to it.
    """
    plain: list[str] = []
    commands: list[str] = []
    for note in dict.fromkeys(notes):
        (commands if _COMMAND in note else plain).append(note)
    return sentences(text, *map(_capitalized, plain), _capitalized("; ".join(commands)))


def because(text: str, reason: str) -> str:
    """Return `text` with a reason, if there is one."""
    return f"{text}: {reason}" if reason else text


def _capitalized(text: str) -> str:
    # Others begin with a path.
    return f"T{text[1:]}" if text.startswith("the ") else text


def _octal(character: str) -> str:
    if ord(character) in _ESCAPED:
        data = character.encode(errors="surrogateescape")
    else:
        # Half a character, as a name may have it, has no bytes of its own.
        data = character.encode(errors="surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)
