"""What fails is told, soon, by a fitting error that names the server, and harms no socket."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests import logins
from tests.logins import arguments_for, options_for
from tests.peers import Peer, free_port, round_trip
from tests.polling import PATIENCE, wait_until
from tests.programs import run_program
from tests.sshd import OpenSSHServer, fingerprint, generate_key, public_key
from tests.strangers import SilentPort, talking_port
from tunneledzmq import (
    GatewayError,
    HostKeyChangedError,
    HostKeyError,
    SSHAuthenticationError,
    SSHConnectionError,
    SSHOptions,
    TunneledContext,
    TunneledSocket,
    TunnelError,
    UnknownHostKeyError,
)
from tunneledzmq.demo.server import EmbeddedServer

pytestmark = pytest.mark.usefixtures("backend")

TIMEOUT = 2.0
"""The connect_timeout of these tests, in seconds."""

HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def sock(any_ctx: TunneledContext) -> TunneledSocket:
    """A socket that has not failed yet."""
    sock: TunneledSocket = any_ctx.socket(zmq.REQ)
    return sock


@contextmanager
def fails(
    error: type[TunnelError], *errnos: int, named: str | int, within: float = TIMEOUT + 1.5
) -> Iterator[pytest.ExceptionInfo[TunnelError]]:
    """Check that the body soon raises `error` with one of `errnos`, and names `named`."""
    start = time.monotonic()
    with pytest.raises(error) as caught:
        yield caught
    assert time.monotonic() - start <= within * PATIENCE
    assert isinstance(caught.value, zmq.ZMQError)
    assert caught.value.errno in errnos, errno.errorcode.get(caught.value.errno or 0)
    assert str(named) in str(caught.value)


def assert_usable(sock: TunneledSocket, echo: Peer, options: SSHOptions | None = None) -> None:
    """Check that a failed connect left no trace on the socket."""
    assert sock.tunnels == []
    sock.connect(echo.address, ssh=options)
    round_trip(sock)


def stranger(port: int) -> SSHOptions:
    """Return options for a port where no SSH server is."""
    return SSHOptions(
        f"me@127.0.0.1:{port}",
        config_file=None,
        agent=False,
        connect_timeout=TIMEOUT,
        **logins.defaults,
    )


def test_a_name_that_is_not_found(
    sock: TunneledSocket, openssh_options: SSHOptions, echo: Peer
) -> None:
    options = SSHOptions(
        "me@no-such-host.invalid", config_file=None, connect_timeout=TIMEOUT, **logins.defaults
    )
    with fails(
        SSHConnectionError, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, named="no-such-host.invalid"
    ):
        sock.connect(echo.address, ssh=options)
    assert_usable(sock, echo, openssh_options)


def test_a_server_that_refuses(sock: TunneledSocket, echo: Peer) -> None:
    port = free_port()
    with fails(SSHConnectionError, errno.ECONNREFUSED, named=f"me@127.0.0.1:{port}"):
        sock.connect(echo.address, ssh=stranger(port))
    assert_usable(sock, echo)


def test_a_server_that_is_unreachable(sock: TunneledSocket, echo: Peer) -> None:
    options = SSHOptions(
        "me@255.255.255.255", config_file=None, connect_timeout=TIMEOUT, **logins.defaults
    )
    with fails(
        SSHConnectionError, errno.EHOSTUNREACH, errno.ENETUNREACH, named="me@255.255.255.255:22"
    ):
        sock.connect(echo.address, ssh=options)
    assert_usable(sock, echo)


def test_a_port_that_says_nothing(sock: TunneledSocket, echo: Peer) -> None:
    with SilentPort() as silent:
        with fails(SSHConnectionError, errno.ETIMEDOUT, named=f"me@127.0.0.1:{silent.port}"):
            sock.connect(echo.address, ssh=stranger(silent.port))
        assert silent.dials() == 1
        assert_usable(sock, echo)


@pytest.mark.parametrize(
    ("says", "listens_first"),
    [
        (b"", False),
        (b"220 mail.example.com ESMTP\r\n", False),
        (b"junk\r\n" * 10_000, False),
        (bytes(range(256)) * 1000, False),
        (b"x" * 1_000_000, False),
        (HTTP_ANSWER, True),
    ],
    ids=["hangs up", "mail server", "lines", "binary", "one long line", "web server"],
)
def test_a_port_that_speaks_no_ssh(
    sock: TunneledSocket, echo: Peer, says: bytes, listens_first: bool
) -> None:
    with talking_port(says, listens_first=listens_first) as port:
        with fails(SSHConnectionError, errno.EPROTO, named=f"me@127.0.0.1:{port}"):
            sock.connect(echo.address, ssh=stranger(port))
        assert_usable(sock, echo)


@pytest.mark.parametrize(
    ("says", "listens_first", "told"),
    [
        (b"", False, "before it said that it is an SSH server: has it too many logins"),
        (b"Exceeded MaxStartups\r\n", False, "it says 'Exceeded MaxStartups', and hangs up"),
        (HTTP_ANSWER, True, "it says 'HTTP/1.1 400 Bad Request', and hangs up"),
    ],
)
def test_what_a_port_says_instead_is_told(
    sock: TunneledSocket, echo: Peer, says: bytes, listens_first: bool, told: str, backend: str
) -> None:
    if backend == "openssh":
        told = "before it said that it is an SSH server: has it too many logins"
    with (
        talking_port(says, listens_first=listens_first) as port,
        fails(SSHConnectionError, errno.EPROTO, named=told),
    ):
        sock.connect(echo.address, ssh=stranger(port))


def test_an_address_and_a_server_the_wrong_way_round_are_told_at_once(
    sock: TunneledSocket, openssh: OpenSSHServer, echo: Peer
) -> None:
    with fails(
        SSHConnectionError, errno.EPROTO, named="a ZeroMQ socket listens there; are", within=1.5
    ):
        sock.connect(f"tcp://{openssh.host}:{openssh.port}", ssh=stranger(echo.port))


def test_a_socket_that_another_thread_closes_meanwhile(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    locked = generate_key(tmp_path / "locked", passphrase="open sesame")
    openssh.authorize(locked)
    with TunneledContext() as ctx:
        sock = ctx.socket(zmq.REQ)

        def close(text: str, echo: bool) -> str:
            closer = threading.Thread(target=sock.close)
            closer.start()
            closer.join()
            return "open sesame"

        with pytest.raises(zmq.ZMQError) as caught:
            sock.connect(echo.address, ssh=options_for(openssh, keyfile=str(locked), prompt=close))
        assert f"(addr={echo.address!r})" in str(caught.value)


def test_a_key_that_is_not_let_in(
    sock: TunneledSocket,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    tmp_path: Path,
) -> None:
    wrong = generate_key(tmp_path / "wrong")
    with fails(SSHAuthenticationError, errno.EACCES, named=openssh.server):
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=str(wrong)))
    assert_usable(sock, echo, openssh_options)


@pytest.mark.parametrize("content", [None, "directory", "", "no key\n"])
def test_a_key_file_that_is_missing_or_unreadable(
    sock: TunneledSocket,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    tmp_path: Path,
    content: str | None,
) -> None:
    keyfile = tmp_path / "key"
    if content == "directory":
        keyfile.mkdir()
    elif content is not None:
        keyfile.write_text(content)
    errnos = {None: errno.ENOENT, "directory": errno.EISDIR}
    with fails(
        SSHAuthenticationError,
        errnos.get(content, errno.EACCES),
        errno.EACCES,
        named=openssh.server,
    ) as caught:
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=str(keyfile)))
    assert str(keyfile) in str(caught.value)
    assert_usable(sock, echo, openssh_options)


@pytest.mark.parametrize("passphrase", [None, "s3same"], ids=["none", "wrong"])
def test_a_key_that_stays_locked(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, passphrase: str | None
) -> None:
    locked = generate_key(tmp_path / "locked", passphrase="right")
    openssh.authorize(locked)
    # A program of its own has no terminal where it could ask for the passphrase.
    output = run_program(
        """
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            try:
                sock.connect(addr, ssh=options)
            except SSHAuthenticationError as exc:
                print(exc.errno, exc)
            assert not sock.tunnels
        """,
        options=arguments_for(openssh, keyfile=str(locked), passphrase=passphrase),
        addr=echo.address,
    )
    assert output.startswith(f"{errno.EACCES} ")
    assert str(locked) in output
    assert openssh.server in output
    assert "passphrase" in output
    assert "s3same" not in output


def test_a_password_that_is_wrong(sock: TunneledSocket, echo: Peer, tmp_path: Path) -> None:
    with EmbeddedServer(password="right") as server:
        options = options_for(server, keyfile=str(generate_key(tmp_path / "wrong")))
        wrong = options_for(server, keyfile=options.keyfile, password="s3cret-but-wrong")
        with fails(SSHAuthenticationError, errno.EACCES, named=server.server, within=5) as caught:
            sock.connect(echo.address, ssh=wrong)
        assert "s3cret" not in str(caught.value)
        assert_usable(sock, echo, options_for(server, password="right"))


def test_an_unknown_host_key(
    sock: TunneledSocket,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    tmp_path: Path,
) -> None:
    (tmp_path / "known_hosts").touch()
    options = options_for(openssh, known_hosts=str(tmp_path / "known_hosts"))
    with fails(UnknownHostKeyError, errno.EACCES, named=openssh.server) as caught:
        sock.connect(echo.address, ssh=options)
    assert fingerprint(openssh.host_keys[0]) in str(caught.value)
    assert f"ssh-keyscan -p {openssh.port}" in str(caught.value)
    assert openssh.host in str(caught.value).split("ssh-keyscan")[1]
    assert not (tmp_path / "known_hosts").read_text()
    assert_usable(sock, echo, openssh_options)


def test_a_changed_host_key(
    sock: TunneledSocket,
    openssh: OpenSSHServer,
    openssh_options: SSHOptions,
    echo: Peer,
    tmp_path: Path,
) -> None:
    other = public_key(generate_key(tmp_path / "other"))
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[{openssh.host}]:{openssh.port} {other}\n")
    for checking in ("yes", "accept-new"):
        options = options_for(
            openssh, known_hosts=str(known_hosts), strict_host_key_checking=checking
        )
        with fails(HostKeyChangedError, errno.EACCES, named=openssh.server) as caught:
            sock.connect(echo.address, ssh=options)
        assert fingerprint(openssh.host_keys[0]) in str(caught.value)
        assert f"ssh-keygen -f {known_hosts} -R " in caught.value.strerror.replace('"', "")
    assert isinstance(caught.value, HostKeyError)
    assert_usable(sock, echo, openssh_options)


@pytest.mark.skipif(os.name == "nt", reason="not everybody may make links")
def test_accept_new_warns_where_the_key_cannot_be_written_down(
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.symlink_to(tmp_path / "missing" / "known_hosts")
    options = options_for(
        openssh, known_hosts=str(known_hosts), strict_host_key_checking="accept-new"
    )
    with caplog.at_level(logging.WARNING, "tunneledzmq"):
        with ctx.socket(zmq.REQ) as sock:
            sock.connect(echo.address, ssh=options)
            round_trip(sock)
        wait_until(lambda: "the host key was not added to known_hosts: " in caplog.text)
    [record] = [record for record in caplog.records if "known_hosts" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert openssh.server in record.getMessage() and str(tmp_path) in record.getMessage()


def test_a_traceback_shows_the_program_and_little_else(
    sock: TunneledSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SSHConnectionError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=stranger(free_port()))
    assert len(caught.traceback) <= 4

    # What has caused it is not hidden.
    def no_descriptors() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("tunneledzmq.handles.handle.socketpair", no_descriptors)
    with pytest.raises(GatewayError) as caught_here:
        sock.connect("tcp://127.0.0.1:1", ssh=stranger(free_port()))
    assert len(caught_here.traceback) <= 4
    cause = caught_here.value.__cause__
    assert isinstance(cause, OSError)
    assert any(
        entry.name == "no_descriptors" for entry in traceback.extract_tb(cause.__traceback__)
    )


def test_threads_that_wait_for_one_login_share_its_failure(
    sock: TunneledSocket, echo: Peer
) -> None:
    failures: list[Any] = []
    with SilentPort() as silent:

        def connect() -> None:
            with sock.context.socket(zmq.REQ) as own, pytest.raises(SSHConnectionError) as caught:
                own.connect(echo.address, ssh=stranger(silent.port))
            failures.append(caught.value)

        threads = [threading.Thread(target=connect) for _ in range(5)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start < TIMEOUT + 1.5
        assert len(failures) == 5
        assert silent.dials() == 1


def test_a_server_that_forbids_forwarding_is_told(
    sock: TunneledSocket, echo: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with OpenSSHServer(AllowTcpForwarding="no") as server, caplog.at_level("INFO", "tunneledzmq"):
        sock.connect(echo.address, ssh=options_for(server))
        [tunnel] = sock.tunnels
        assert "prohibited" in wait_until(lambda: tunnel.last_error)
        wait_until(lambda: "prohibited" in caplog.text)
        record = next(record for record in caplog.records if "prohibited" in record.getMessage())
        assert record.name.startswith("tunneledzmq")
        assert record.levelno >= logging.WARNING
        sock.disconnect(echo.address)
        assert_usable(sock, echo)


def test_a_peer_that_refuses_is_told(sock: TunneledSocket, openssh_options: SSHOptions) -> None:
    port = free_port()
    sock.connect(f"tcp://127.0.0.1:{port}", ssh=openssh_options)
    [tunnel] = sock.tunnels
    assert "refused" in wait_until(lambda: tunnel.last_error).lower()
    assert tunnel.state == "up"


def test_a_name_that_the_server_does_not_know_is_told(
    sock: TunneledSocket, openssh_options: SSHOptions
) -> None:
    sock.connect("tcp://no.such.name.invalid:5555", ssh=openssh_options)
    [tunnel] = sock.tunnels
    # Which of the two depends on whether this machine can ask anybody.
    told = "does not know this name|cannot look this name up"
    assert re.search(told, wait_until(lambda: tunnel.last_error, 20))
