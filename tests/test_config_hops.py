"""Hops of the config file take all options but the secrets, whichever backend goes over them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests import leaks
from tests.asking import AskingServer, Round
from tests.logins import entry_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer, generate_key, public_key
from tunneledzmq import (
    SSHAuthenticationError,
    SSHOptions,
    TunneledContext,
    TunnelError,
    UnknownHostKeyError,
)

Config = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("backend")


class User:
    """Somebody who gives the same answer to all questions."""

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self.asked: list[str] = []

    def __call__(self, text: str, echo: bool) -> str:
        self.asked.append(text)
        return self._answer


def assert_works(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)


def error_of(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> TunnelError:
    with ctx.socket(zmq.REQ) as sock, pytest.raises(TunnelError) as caught:
        sock.connect(echo.address, ssh=options)
    return caught.value


def over_ssh(name: str, home: Path) -> str:
    """Return the line of a hop as many have it who wrote it before there was ProxyJump."""
    return f"ProxyCommand ssh -F {home}/.ssh/config -W %h:%p {name}"


# Secrets

PASSWORD = [Round([("Password: ", False)], ["s3cret"])]
HOPS_PASSWORD = [Round([("Password: ", False)], ["typed"])]


@pytest.fixture(params=["password", "keyboard-interactive"])
def asking(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[AskingServer, AskingServer]]:
    """A hop and a server of the same user and address, which let in with different passwords."""
    for name in ("hop", "server"):
        (tmp_path / name).mkdir()
    by_questions = request.param == "keyboard-interactive"
    with (
        AskingServer(
            tmp_path / "hop",
            HOPS_PASSWORD if by_questions else (),
            password=None if by_questions else "typed",
        ) as hop,
        AskingServer(
            tmp_path / "server",
            PASSWORD if by_questions else (),
            password=None if by_questions else "s3cret",
        ) as server,
    ):
        yield hop, server


def entry(name: str, server: AskingServer, *lines: str) -> str:
    return "\n  ".join(
        [
            f"Host {name}",
            *lines,
            f"HostName {server.host}",
            f"Port {server.port}",
            f"User {server.user}",
            f"UserKnownHostsFile {server.known_hosts}",
            "IdentityFile none\n",
        ]
    )


@pytest.mark.parametrize("way", ["ProxyJump hop", "over ssh"])
def test_the_password_is_the_servers_alone(
    any_ctx: TunneledContext,
    asking: tuple[AskingServer, AskingServer],
    config: Config,
    home: Path,
    echo: Peer,
    backend: str,
    way: str,
) -> None:
    hop, server = asking
    if way == "over ssh":
        if backend == "sshtunnel":
            pytest.skip("that ssh is the user's, and has nobody to ask")
        way = over_ssh("hop", home)
    config(entry("name", server, way), entry("hop", hop))
    user = User("typed")
    options = SSHOptions("name", password="s3cret", prompt=user, agent=False, backend=backend)
    assert_works(any_ctx, options, echo)
    assert hop.heard == [["typed"]]
    assert server.heard == [["s3cret"]]
    assert len(user.asked) == 1


def test_without_a_prompt_a_hops_password_is_an_error(
    ctx: TunneledContext,
    asking: tuple[AskingServer, AskingServer],
    config: Config,
    echo: Peer,
    backend: str,
) -> None:
    hop, server = asking
    config(entry("name", server, "ProxyJump hop"), entry("hop", hop))
    options = SSHOptions("name", password="s3cret", agent=False, backend=backend)
    error = error_of(ctx, options, echo)
    assert isinstance(error, SSHAuthenticationError)
    assert "prompt=" in str(error)
    assert hop.heard == server.heard == []


def test_a_passphrase_is_the_servers_alone(
    ctx: TunneledContext,
    chain: list[OpenSSHServer],
    config: Config,
    echo: Peer,
    tmp_path: Path,
    backend: str,
) -> None:
    hop, server, _ = chain
    locked = generate_key(tmp_path / "locked", passphrase="s3cret")
    hop.authorize(locked)
    server.authorize(locked)
    config(entry_for("name", server, "ProxyJump hop"), entry_for("hop", hop, "IdentityFile none"))
    user = User("s3cret")
    options = SSHOptions(
        "name", keyfile=locked, passphrase="s3cret", prompt=user, agent=False, backend=backend
    )
    assert_works(ctx, options, echo)
    assert user.asked == [f"Enter passphrase for key '{locked}': "]


# Questions that look like ssh's own


@pytest.mark.parametrize(
    "question",
    [
        "Enter passphrase for key '{}': ",
        "Hello.\nEnter passphrase for key '{}': ",
        "Enter passphrase for {}: ",
        "(me@127.0.0.1) Enter passphrase for key '{}': ",
        "x) Enter passphrase for key '{}': ",
    ],
)
def test_a_servers_question_is_never_answered_with_a_passphrase(
    ctx: TunneledContext, echo: Peer, tmp_path: Path, backend: str, question: str
) -> None:
    keyfile = generate_key(tmp_path / "key", passphrase="s3same")
    question = question.replace("{}", str(keyfile))
    with AskingServer(tmp_path, [Round([(question, False)], ["typed"])]) as server:
        user = User("typed")
        options = SSHOptions(
            server.server,
            keyfile=keyfile,
            passphrase="s3same",
            password="s3cret",
            known_hosts=server.known_hosts,
            config_file=None,
            agent=False,
            prompt=user,
            backend=backend,
        )
        assert_works(ctx, options, echo)
        assert server.heard == [["typed"]]
    assert len(user.asked) == 1


@pytest.mark.parametrize("question", ["One-time password: ", "New password: ", "Password token: "])
def test_a_password_answers_no_question_for_another_one(
    ctx: TunneledContext, echo: Peer, tmp_path: Path, backend: str, question: str
) -> None:
    with AskingServer(tmp_path, [Round([(question, False)], ["typed"])]) as server:
        options = SSHOptions(
            server.server,
            password="s3cret",
            known_hosts=server.known_hosts,
            config_file=None,
            agent=False,
            prompt=User("typed"),
            backend=backend,
        )
        assert_works(ctx, options, echo)
        assert server.heard == [["typed"]]


# Host keys


@pytest.fixture(scope="module")
def chain(need_sshd: None) -> Iterator[list[OpenSSHServer]]:
    """Three servers with keys of their own; the tests leave them running."""
    with OpenSSHServer() as first, OpenSSHServer() as second, OpenSSHServer() as third:
        yield [first, second, third]


WAYS = {
    "a hop": ("ProxyJump hop", ""),
    "two hops": ("ProxyJump hop,second", ""),
    "two hops, the other way": ("ProxyJump second,hop", ""),
    "a hop of a hop": ("ProxyJump second", "ProxyJump hop"),
}


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, chain: list[OpenSSHServer], config: Config, tmp_path: Path
) -> tuple[OpenSSHServer, Path]:
    """A way to `name` over a hop whose key is not known, and the hop's known_hosts file."""
    hop, second, server = chain
    unknown = tmp_path / "known_hosts_of_hop"
    unknown.write_text("# none\n")
    to_server, to_second = WAYS[request.param]
    config(
        entry_for("name", server, to_server),
        entry_for("second", second, *([to_second] if to_second else [])),
        entry_for("hop", hop, f"UserKnownHostsFile {unknown}"),
    )
    return hop, unknown


@pytest.fixture
def all_keys(chain: list[OpenSSHServer], tmp_path: Path) -> Path:
    path = tmp_path / "all_keys"
    path.write_text("".join(Path(server.known_hosts).read_text() for server in chain))
    return path


@pytest.mark.parametrize(
    ("strict", "answer"), [(None, "yes"), (None, "maybe"), ("yes", "yes"), ("ask", "no")]
)
def test_the_unknown_key_of_a_hop_is_an_error(
    ctx: TunneledContext,
    way: tuple[OpenSSHServer, Path],
    echo: Peer,
    backend: str,
    strict: str | None,
    answer: str,
) -> None:
    hop, unknown = way
    user = User(answer)
    options = SSHOptions("name", strict_host_key_checking=strict, prompt=user, backend=backend)
    before = hop.logins()
    error = error_of(ctx, options, echo)
    assert isinstance(error, UnknownHostKeyError), error
    assert f"127.0.0.1]:{hop.port}" in str(error) or f"127.0.0.1:{hop.port}" in str(error)
    assert f"ssh-keyscan -p {hop.port} " in str(error)
    assert user.asked == []
    assert unknown.read_text() == "# none\n"
    assert hop.logins() == before


def test_known_hosts_reaches_hops(
    ctx: TunneledContext,
    way: tuple[OpenSSHServer, Path],
    all_keys: Path,
    chain: list[OpenSSHServer],
    echo: Peer,
    backend: str,
) -> None:
    assert_works(ctx, SSHOptions("name", known_hosts=all_keys, backend=backend), echo)
    hop, _ = way
    lines = [
        f"[{server.host}]:{server.port} {public_key(server.host_keys[0])}\n"
        for server in chain
        if server is not hop
    ]
    all_keys.write_text("".join(lines))
    options = SSHOptions("name", known_hosts=all_keys, prompt=User("yes"), backend=backend)
    assert isinstance(error_of(ctx, options, echo), UnknownHostKeyError)
    options = SSHOptions(
        "name", known_hosts=all_keys, strict_host_key_checking="accept-new", backend=backend
    )
    assert_works(ctx, options, echo)
    assert public_key(hop.host_keys[0]) in all_keys.read_text()


def test_a_hop_of_the_users_own_ssh_is_not_asked_about(
    ctx: TunneledContext,
    chain: list[OpenSSHServer],
    config: Config,
    home: Path,
    echo: Peer,
    tmp_path: Path,
    backend: str,
) -> None:
    if backend == "sshtunnel":
        pytest.skip("that ssh has nobody to ask")
    hop, server, _ = chain
    unknown = tmp_path / "none"
    config(
        entry_for("name", server, over_ssh("hop", home)),
        entry_for("hop", hop, f"UserKnownHostsFile {unknown}"),
    )
    user = User("yes")
    error = error_of(ctx, SSHOptions("name", prompt=user, backend=backend), echo)
    assert isinstance(error, UnknownHostKeyError)
    assert "SHA256:" in str(error) and f"[127.0.0.1]:{hop.port}" in str(error)
    assert user.asked == [] and not unknown.exists()


# Why there is no way


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("HostName no.such.invalid", r"name .*was not found"),
        ("Port 1", "hop.* the connection was refused"),
        ("Ciphers aes256-ctr", "hop.* no common algorithms"),
        ("User nobody-knows", "did not let 'nobody-knows"),
        ("of the server", "cannot connect to it.*Connection refused"),
    ],
)
def test_what_is_wrong_with_a_hop_is_told(
    ctx: TunneledContext,
    chain: list[OpenSSHServer],
    config: Config,
    echo: Peer,
    backend: str,
    what: str,
    says: str,
) -> None:
    with OpenSSHServer(Ciphers="aes128-ctr") as hop:
        of_server = ["Port 1"] if what == "of the server" else []
        of_hop = [] if of_server else [what]
        config(
            entry_for("name", chain[0], "ProxyJump hop", *of_server), entry_for("hop", hop, *of_hop)
        )
        error = error_of(ctx, SSHOptions("name", backend=backend), echo)
    assert re.search(says, str(error)), error


def test_what_hops_say_leaves_nothing_behind(
    ctx: TunneledContext, chain: list[OpenSSHServer], config: Config, echo: Peer, backend: str
) -> None:
    hop, server, _ = chain
    config(entry_for("name", server, "ProxyJump hop"), entry_for("hop", hop))
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=SSHOptions("name", backend=backend))
        round_trip(sock)
        for directory in leaks.runtime_directories():
            assert not list(directory.glob("hop*"))
    wait_until(lambda: not leaks.runtime_directories())
