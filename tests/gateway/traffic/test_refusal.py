"""Why a server opens no channel, in words."""

from __future__ import annotations

import pytest

from tunneledzmq.gateway.traffic.refusal import refusal


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 0xFFFFFFFF])
def test_refusals(code: int) -> None:
    said = refusal(code, "\x1b]0;title\x07\n" + "no! " * 100_000)
    assert said.isprintable()
    assert len(said) < 700


def test_an_empty_reason_leaves_no_colon() -> None:
    for code in range(5):
        assert not refusal(code, b" ").endswith((":", " ", "()"))
        assert refusal(code, b"why").endswith(": why")


@pytest.mark.parametrize(
    "said",
    [
        "Name or service not known",  # OpenSSH, glibc
        "[Errno -2] Name or service not known",  # asyncssh
        "Error resolving 'nowhere' port '5555'. Name does not resolve",  # Dropbear, musl
        "nodename nor servname provided, or not known",  # macOS
        "no address associated with name",  # OpenBSD
        "No such host is known. ",  # Windows
        "dial tcp: lookup nowhere on 10.0.0.53:53: no such host",  # Go
        "java.net.UnknownHostException: nowhere",
        "getaddrinfo ENOTFOUND nowhere",
    ],
)
def test_a_name_that_the_server_does_not_know(said: str) -> None:
    assert refusal(2, said) == (
        f"the server does not know this name; check how it is written over there: {said.strip()}"
    )


def test_a_server_without_an_answer_about_a_name() -> None:
    for said in ("Temporary failure in name resolution", "lookup nowhere: server misbehaving"):
        assert refusal(2, said) == f"the server cannot look this name up: {said}"


def test_a_peer_that_is_not_up_yet() -> None:
    for said in ("Connection refused", "No route to host", "Connection timed out", "open failed"):
        assert refusal(2, said) == f"the server cannot connect to it; it may not be up yet: {said}"
