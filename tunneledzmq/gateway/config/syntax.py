"""The lines of ssh_config(5), cut into words as OpenSSH 9.2 cuts them."""

from __future__ import annotations

import re

__all__ = ["split_arguments", "split_line", "split_word"]

_SPACE = " \t\r\n"
_SPECIAL = re.compile(r"[\\'\"#]")
_WORD_END = re.compile(r'[ \t\r\n"=]')


def split_line(line: str) -> tuple[str, str]:
    """Return the keyword and what stands behind it; no keyword in an empty line or a comment.

    Raises:
        ValueError: nothing stands behind it.
    """
    text = line.partition("\0")[0]  # for C, a NUL ends the line
    text = text[:1] + text[1:].rstrip(_SPACE + "\f")
    try:
        word, rest = split_word(text)
        if not word:  # white space was first, or one "=", or ""
            word, rest = split_word(rest)
    except ValueError:
        return "", ""  # OpenSSH overlooks a quote that is not closed there
    if not word or word.startswith("#"):
        return "", ""
    rest = rest.lstrip(_SPACE)
    if not rest:
        raise ValueError(f'no argument after keyword "{word}"')
    return word, rest


def split_word(text: str) -> tuple[str, str]:
    """Split off the first word: up to white space or one ``=``; ``"`` quotes.

    Raises:
        ValueError: a quote is not closed.
    """
    end = _WORD_END.search(text)
    if end is None:
        return text, ""
    at = end.start()
    if text[at] == '"':
        close = text.find('"', at + 1)
        if close < 0:
            raise ValueError("invalid quotes")
        return text[:at] + text[at + 1 : close], text[close + 1 :].lstrip(_SPACE)
    rest = text[at + 1 :].lstrip(_SPACE)
    if text[at] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(_SPACE)
    return text[:at], rest


def split_arguments(text: str) -> list[str]:
    r"""Split what stands behind a keyword: ``'`` and ``"`` quote, ``\`` escapes them, ``#`` ends.

    Raises:
        ValueError: a quote is not closed.
    """
    if not _SPECIAL.search(text):
        return [argument for argument in re.split("[ \t]", text) if argument]
    arguments: list[str] = []
    argument: list[str] | None = None
    quote = ""
    characters = iter(range(len(text)))
    for i in characters:
        c, following = text[i], text[i + 1 : i + 2]
        if argument is None:
            if c in " \t":
                continue
            if c == "#":
                break
            argument = []
        if c == "\\" and following and (following in "'\"\\" or (not quote and following == " ")):
            argument.append(following)
            next(characters)
        elif not quote and c in " \t":
            arguments.append("".join(argument))
            argument = None
        elif not quote and c in "'\"":
            quote = c
        elif quote and c == quote:
            quote = ""
        else:
            argument.append(c)
    if quote:
        raise ValueError("invalid quotes")
    if argument is not None:
        arguments.append("".join(argument))
    return arguments
