"""Whatever is written there: a value, or the documented exception."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunneledzmq import SSHOptions
from tunneledzmq.endpoints import check_local, parse_remote
from tunneledzmq.options import to_options
from tunneledzmq.shared.names import parse_server

ALPHABET = "ab1.:@[]/-%*, \0ssh\u00e9\ud800"

PIECES = st.sampled_from(
    ["ssh://", "tcp://", "ipc://", "user", "@", "host", ":", "22", "[", "::1", "]", "/", "-", "*"]
)
TEXTS = st.one_of(st.text(), st.text(ALPHABET), st.lists(PIECES, max_size=8).map("".join))


@given(TEXTS)
def test_servers(text: str) -> None:
    try:
        user, host, port = parse_server(text)
    except ValueError:
        return
    assert host and not host.startswith("-")
    assert user is None or (user and not user.startswith("-"))
    assert port is None or 0 < port < 65536


@given(TEXTS)
def test_what_ssh_takes(text: str) -> None:
    try:
        options = to_options(text)
    except ValueError:
        return
    assert isinstance(options, SSHOptions)
    assert options.server == text


@given(TEXTS)
def test_hops(text: str) -> None:
    try:
        options = SSHOptions("host", jump=text)
    except ValueError:
        return
    hop = options.hop
    assert hop is None or isinstance(hop, SSHOptions)


@given(TEXTS.map("tcp://{}".format))
def test_remote_addresses(text: str) -> None:
    try:
        remote = parse_remote(text)
    except ValueError:
        return
    assert remote.host
    assert 0 < remote.port < 65536
    assert parse_remote(str(remote)) == remote


@given(st.one_of(TEXTS, TEXTS.map("tcp://{}".format), TEXTS.map("ipc:///{}".format)))
def test_local_addresses(text: str) -> None:
    try:
        local = check_local(text)
    except ValueError:
        return
    assert local == text
