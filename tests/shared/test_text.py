"""Text of the far side, shown to nobody as it came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq.shared.text import printable, sentences, with_notes


def test_what_can_be_read_is_kept() -> None:
    assert printable("Grüße an 中文") == "Grüße an 中文"
    assert printable("Grüße\n\tan 中文\r\n", lines=True) == "Grüße\n\tan 中文\n"


def test_what_cannot_be_read_is_shown_as_ssh_shows_it() -> None:
    assert printable("\x1b[2J\x00\x7f\ud800") == "\\033[2J\\000\\177\\355\\240\\200"
    assert printable(b"caf\xe9 \xff\xc3\xa9") == "caf\\351 \\377é"
    assert printable("one\r\ntwo\tthree") == "one\\015\\012two\\011three"


def test_it_is_cut() -> None:
    assert printable("x" * 400) == "x" * 400
    assert printable("x" * 401) == "x" * 400 + "..."
    assert printable(b"\x1b" * 1_000_000, 10) == "\\033\\033\\0..."


@given(st.one_of(st.text(), st.binary()), st.integers(1, 50), st.booleans())
def test_whatever_it_is(text: str | bytes, limit: int, lines: bool) -> None:
    shown = printable(text, limit, lines=lines)
    assert len(shown) <= limit + 3
    assert all(c.isprintable() or (lines and c in "\n\t") for c in shown)
    assert printable(shown, limit + 3, lines=lines) == shown
    shown.encode()


def test_nothing_follows_a_command_that_is_to_be_copied() -> None:
    keys = ["the key file a is open: chmod 600 a", "the key file b is open: chmod 600 b"]
    assert with_notes("Is it right?", [keys[0], "the agent is silent", keys[0]]) == (
        "Is it right? The agent is silent. The key file a is open: chmod 600 a"
    )
    assert with_notes("No key", ["/b: it has expired", *keys, "Nobody is there"]) == (
        "No key. /b: it has expired. Nobody is there. The key file a is open: chmod 600 a; "
        "the key file b is open: chmod 600 b"
    )
    assert with_notes("No key", []) == "No key"


def test_sentences_are_joined_as_people_do() -> None:
    assert sentences("Is it right?", "", "It has no key", "pass one") == (
        "Is it right? It has no key. pass one"
    )
