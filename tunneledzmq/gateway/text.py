"""What others say, made fit for a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return `text` without anything that would control a terminal.

    As OpenSSH does (fmprintf), it shows such characters as the octal numbers of their bytes.
    """
    return "".join(
        c if c.isprintable() or c in "\n\t" else _octal(c) for c in text.replace("\r\n", "\n")
    )


def _octal(character: str) -> str:
    # Half a character, as a name may have it, has no bytes of its own.
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogatepass"))
