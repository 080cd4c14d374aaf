"""Malformed arguments are refused before anything is done."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest
import zmq

import tunneledzmq.asyncio
from tests.peers import Peer, round_trip
from tests.programs import run_program
from tunneledzmq import SSHOptions, TunneledContext

NOWHERE = "me@127.0.0.1:1"
"""Nobody is asked: a connection to there would be refused, which is another error."""


@pytest.mark.parametrize(
    "addr",
    [
        "",
        "127.0.0.1:5555",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://:5555",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:*",
        "tcp://*:5555",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:http",
        "tcp://[::1:5555",
        "tcp://127.0.0.1:5555/path",
        "tcp://host name:5555",
        f"tcp://{'h' * 300}:5555",
        "tcp://host\n:5555",
        "tcp://host\0:5555",
        "inproc://peer",
        "ipc:///peer",
        "udp://127.0.0.1:5555",
        "ws://127.0.0.1:5555",
    ],
)
def test_a_malformed_addr(ctx: TunneledContext, addr: str, echo: Peer) -> None:
    sock = ctx.socket(zmq.REQ)
    for given in (addr, addr.encode()):
        with pytest.raises(ValueError, match="addr="):
            sock.connect(given, ssh=NOWHERE)
    sock.connect(echo.address)
    round_trip(sock)


@pytest.mark.parametrize("addr", [None, 5555, ("127.0.0.1", 5555)])
def test_an_addr_of_another_type(ctx: TunneledContext, addr: Any) -> None:
    with pytest.raises(TypeError):
        ctx.socket(zmq.REQ).connect(addr, ssh=NOWHERE)


@pytest.mark.parametrize(
    "ssh",
    [
        "",
        " ",
        [],
        (),
        [""],
        "@host",
        "me@",
        "ssh://",
        "-oProxyCommand=touch x",
        "me@-oProxyCommand=touch x",
        "host:",
        "host:0",
        "host:65536",
        "host:ssh",
        "ssh://me:secret@host",
        "me@[::1",
        "me@host\n",
        "tcp://host",
    ],
)
def test_a_malformed_ssh(ctx: TunneledContext, ssh: Any, echo: Peer) -> None:
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(ValueError, match="ssh") as caught:
        sock.connect(echo.address, ssh=ssh)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="ssh"):
        TunneledContext(ssh=ssh)
    sock.connect(echo.address)
    round_trip(sock)


@pytest.mark.parametrize(
    ("ssh", "says"),
    [
        ("tcp://10.0.1.2:5555", "are addr and ssh= the wrong way round?"),
        ("http://host", "ssh= takes .user@.host.* and no http:// address"),
        ("ssh://host/path", "it has no path"),
        ("ssh://me@host:22/path", "it has no path"),
    ],
)
def test_what_is_wrong_with_an_ssh_is_told(ctx: TunneledContext, ssh: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:5555", ssh=ssh)


@pytest.mark.parametrize("name", ["keyfile", "known_hosts"])
@pytest.mark.parametrize("nothing", [(), [], "", [""]])
def test_no_path_at_all_is_called_that(name: str, nothing: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is empty: leave it out for the"):
        SSHOptions("bastion", **{name: nothing})


@pytest.mark.parametrize("ssh", [22, b"me@host", True, object(), [22], {"me@host"}])
def test_an_ssh_of_another_type(ctx: TunneledContext, ssh: Any) -> None:
    with pytest.raises(TypeError):
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:5555", ssh=ssh)


@pytest.mark.parametrize(
    "local",
    [
        "",
        "127.0.0.1:7000",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:65536",
        "tcp://:7000",
        "ipc://",
        "ipc:///" + "x" * 200,
        "inproc://leg",
        "udp://127.0.0.1:7000",
    ],
)
def test_a_malformed_local(ctx: TunneledContext, local: str, echo: Peer) -> None:
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(ValueError, match="local="):
        sock.connect(echo.address, ssh=NOWHERE, local=local)
    sock.connect(echo.address)
    round_trip(sock)


def test_a_local_of_another_type(ctx: TunneledContext) -> None:
    local: Any = 7000
    with pytest.raises(TypeError):
        ctx.socket(zmq.REQ).connect("tcp://127.0.0.1:5555", ssh=NOWHERE, local=local)


@pytest.mark.parametrize("kind", [TunneledContext, tunneledzmq.asyncio.TunneledContext])
def test_the_instance_takes_a_default(kind: Any) -> None:
    made = kind.instance(ssh="me@host", local="tcp://127.0.0.1:*")
    try:
        assert made is kind.instance() is kind.instance(ssh=SSHOptions("me@host"))
        # Through the server: to libzmq, the address is none.
        with pytest.raises(ValueError, match="port"), made.socket(zmq.REQ) as sock:
            sock.connect("tcp://127.0.0.1:0")
        with pytest.raises(ValueError, match="has another ssh="):
            kind.instance(ssh="me@other")
    finally:
        made.destroy(linger=0)
        kind._instance = None
    plain = kind.instance()
    try:
        assert plain is not made
        # Others have it by now, and count on its connecting directly.
        with pytest.raises(ValueError, match="has another ssh="):
            kind.instance(ssh="me@host")
    finally:
        plain.destroy(linger=0)
        kind._instance = None


KINDS = [TunneledContext, tunneledzmq.asyncio.TunneledContext]


@pytest.mark.parametrize("kind", KINDS, ids=["blocking", "asyncio"])
@pytest.mark.parametrize(
    "server", ["me@host", SSHOptions("me@host", password="s3cret"), ["me@bastion", "me@host"]]
)
def test_a_server_in_the_place_of_another_argument(kind: Any, server: Any) -> None:
    hint = "pass it as ssh="
    for arguments in ((server,), (1, server)):
        with pytest.raises(TypeError, match=hint) as caught:
            kind(*arguments)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(TypeError, match=hint):
        kind.shadow(server)
    with pytest.raises(TypeError, match=hint):
        kind.instance(server)
    with kind() as ctx:
        with pytest.raises(TypeError, match=hint):
            ctx.socket(zmq.REQ, server)
        with pytest.raises(TypeError, match=r"a socket takes no ssh=: .* connect\(\)"):
            ctx.socket(zmq.REQ, ssh=server)


def test_the_hint_of_the_green_twin() -> None:
    pytest.importorskip("gevent")
    source = """
    import tunneledzmq.green
    plain = zmq.Context()
    print(tunneledzmq.green.TunneledContext(plain).underlying == plain.underlying)
    try:
        tunneledzmq.green.TunneledContext("me@host")
    except TypeError as exc:
        print(exc)
    """
    assert re.fullmatch("True\n.* pass it as ssh=\n", run_program(source))


@pytest.mark.parametrize("kind", KINDS, ids=["blocking", "asyncio"])
def test_what_pyzmq_takes_for_a_context_is_taken(kind: Any) -> None:
    plain: zmq.Context[Any] = zmq.Context()
    for arguments, keywords in [
        ((2,), {}),
        ((True,), {}),
        ((1, 0), {}),
        ((1, ""), {}),
        ((plain,), {}),
        ((1, plain), {}),
        ((1, plain.underlying), {}),
        ((), {"io_threads": 2, "shadow": None}),
        ((), {"shadow": plain}),
    ]:
        context = kind(*arguments, **keywords)
        context.socket(zmq.REQ).close()
        if not context._shadow:
            context.term()
    plain.term()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"port": 22}, "user@.host:port"),
        ({"host": "h"}, "first argument"),
        ({"key_filename": "k"}, "it is keyfile="),
        ({"pkey": object()}, "it is keyfile="),
    ],
)
def test_the_words_of_other_libraries_are_known(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=f"SSHOptions has no {next(iter(fields))}=.*{says}"):
        SSHOptions("host", **fields)
    with pytest.raises(TypeError, match="unexpected keyword argument 'fields'"):
        SSHOptions("host", fields=fields)  # type: ignore[call-arg]
    assert "keyfile" in inspect.signature(SSHOptions).parameters


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SSHOptions)])
@pytest.mark.parametrize("value", [object(), b"s3cret", [object()], 5j], ids=type)
def test_an_option_of_another_type_is_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b") as caught:
        SSHOptions(**{"server": "me@host", name: value})
    if name not in ("strict_host_key_checking", "backend"):  # which name what they take
        assert isinstance(caught.value, TypeError)
        assert "s3cret" not in str(caught.value)


def test_yes_and_no_are_no_truth_values() -> None:
    for name in ("agent", "compression"):
        with pytest.raises(TypeError, match=f"{name} must be True.* not str"):
            SSHOptions("me@host", **{name: "no"})  # type: ignore[arg-type]


def test_the_repr_of_options_shows_no_secret() -> None:
    options = SSHOptions("me@bastion", password="s3cret", passphrase="s3same")
    assert "me@bastion" in repr(options)
    assert "s3" not in repr(options)
