"""Patterns with ``*`` and ``?``, as OpenSSH matches them (``match.c``)."""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ["match_list", "match_pattern"]

# OpenSSH's buffer for one pattern of a list, with the NUL at its end.
_MAX_PATTERN = 1024


def match_pattern(text: str, pattern: str) -> bool:
    """Tell whether a pattern covers the whole of a text; ``?`` is one byte."""
    return _match(_encode(text), _encode(pattern))


def match_list(text: str, patterns: str, *, ignore_case: bool = False) -> bool:
    """Match a comma-separated list of patterns, of which some may be excluded with ``!``.

    One that is too long for OpenSSH makes the list match nothing.

    Args:
        ignore_case: whether ``a`` and ``A`` are the same; for ASCII alone, as in OpenSSH.
    """
    encoded, rest = _encode(text), _encode(patterns)
    if ignore_case:
        encoded, rest = encoded.lower(), rest.lower()
    hit = False
    while rest:
        pattern, _, rest = rest.partition(b",")
        negated, pattern = pattern[:1] == b"!", pattern.removeprefix(b"!")
        if len(pattern) >= _MAX_PATTERN - 1:
            return False
        if _match(encoded, pattern):
            if negated:
                return False
            hit = True
    return hit


def _match(text: bytes, pattern: bytes) -> bool:
    if b"*" not in pattern and b"?" not in pattern:
        return text == pattern
    return fnmatchcase(text, pattern.replace(b"[", b"[[]"))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
