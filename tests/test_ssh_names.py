"""Whoever can type ``ssh NAME`` can write ``ssh="NAME"``."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.logins import entry_for, options_for
from tests.peers import Peer, round_trip
from tests.sshd import OpenSSHServer, fingerprint, generate_key, public_key
from tunneledzmq import (
    HostKeyChangedError,
    HostKeyError,
    SSHAuthenticationError,
    SSHConnectionError,
    SSHOptions,
    TunneledContext,
    TunnelError,
    UnknownHostKeyError,
)

Config = Callable[..., Path]


@pytest.fixture(scope="module")
def chain(need_sshd: None) -> Iterator[list[OpenSSHServer]]:
    """Three servers with keys of their own."""
    with ExitStack() as servers:
        yield [servers.enter_context(OpenSSHServer()) for _ in range(3)]


@pytest.fixture
def sock(any_ctx: TunneledContext) -> Any:
    return any_ctx.socket(zmq.REQ)


def test_a_name_is_enough(sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer) -> None:
    config(entry_for("name", openssh))
    sock.connect(echo.address, ssh="name")
    round_trip(sock)
    assert sock.tunnels[0].server == openssh.server


def test_another_file_is_the_only_one(
    sock: Any, config: Config, tmp_path: Path, openssh: OpenSSHServer, echo: Peer
) -> None:
    config("Host *\n  Port 1\n")
    (tmp_path / "other").write_text(entry_for("name", openssh))
    sock.connect(echo.address, ssh=SSHOptions("name", config_file=tmp_path / "other"))
    round_trip(sock)


def test_no_file_is_read_where_none_is_wanted(
    sock: Any, config: Config, openssh: OpenSSHServer
) -> None:
    config(entry_for("name.invalid", openssh))
    with pytest.raises(SSHConnectionError, match=r"name\.invalid"):
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("name.invalid", config_file=None))


def test_a_changed_file_counts_for_the_next_session(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer
) -> None:
    config(f"Host name\n  Nonsense yes\n{entry_for('name', openssh)}")
    with pytest.raises(TunnelError, match=r"config:2: bad configuration option: Nonsense"):
        sock.connect(echo.address, ssh="name")
    config(entry_for("name", openssh))
    sock.connect(echo.address, ssh="name")
    round_trip(sock)


def test_a_file_that_cannot_be_used_is_named(sock: Any, config: Config, tmp_path: Path) -> None:
    path = config("User a b\n")
    said = re.escape(f"name: {path}:1: extra arguments")
    with pytest.raises(TunnelError, match=said) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh="name")
    assert caught.value.errno == errno.EINVAL
    missing = tmp_path / "missing"
    with pytest.raises(TunnelError, match=re.escape(str(missing))) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh=SSHOptions("name", config_file=missing))
    assert caught.value.errno == errno.ENOENT
    assert not sock.tunnels


def test_a_file_that_others_may_write_is_not_read(sock: Any, config: Config) -> None:
    path = config("User a\n")
    path.chmod(0o666)
    with pytest.raises(TunnelError, match=f"{path}: bad owner or permissions") as caught:
        sock.connect("tcp://127.0.0.1:1", ssh="name")
    assert caught.value.errno == errno.EACCES
    assert not sock.tunnels


def test_match_exec_chooses_the_way(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    differ = tmp_path / "differ.py"
    differ.write_text("import sys; sys.exit(sys.argv[1] != sys.argv[2])")
    command = f"{sys.executable} {differ}"
    config(
        f'Match originalhost name exec "{command} %h other"\n  Port 1\n',
        f'Match originalhost name exec "{command} %h name"\n',
        entry_for("*", openssh).partition("\n")[2],
    )
    sock.connect(echo.address, ssh="name")
    round_trip(sock)


# Hops


def test_a_hop_has_an_entry_of_its_own(
    sock: Any, config: Config, chain: list[OpenSSHServer], echo: Peer
) -> None:
    first, last, _ = chain
    before = first.logins()
    config(entry_for("last", last, "ProxyJump first"), entry_for("first", first))
    sock.connect(echo.address, ssh="last")
    round_trip(sock)
    assert first.logins() == before + 1


def test_hops_may_have_hops(
    sock: Any, config: Config, chain: list[OpenSSHServer], echo: Peer
) -> None:
    first, second, last = chain
    config(
        entry_for("last", last, "ProxyJump second"),
        entry_for("second", second, f"ProxyJump {first.server}"),
        entry_for(first.host, first),
    )
    before = [server.logins() for server in chain]
    sock.connect(echo.address, ssh="last")
    round_trip(sock)
    assert [server.logins() for server in chain] == [count + 1 for count in before]


def test_several_hops_stand_in_one_line(
    sock: Any, config: Config, chain: list[OpenSSHServer], echo: Peer
) -> None:
    first, second, last = chain
    config(
        entry_for("last", last, f"ProxyJump first,ssh://{second.server}"),
        entry_for("first", first),
        entry_for(second.host, second),
    )
    before = [server.logins() for server in chain]
    sock.connect(echo.address, ssh="last")
    round_trip(sock)
    assert [server.logins() for server in chain] == [count + 1 for count in before]


def test_the_options_hop_wins_over_the_files(
    sock: Any, config: Config, chain: list[OpenSSHServer], echo: Peer
) -> None:
    first, last, _ = chain
    config(entry_for("last", last, "ProxyJump 127.0.0.1:1"), entry_for("first", first))
    sock.connect(echo.address, ssh=SSHOptions("last", jump="first"))
    round_trip(sock)
    sock.connect(echo.address, ssh=SSHOptions("last", jump="none"))
    round_trip(sock)


def test_a_hop_with_another_key_is_named(
    sock: Any, config: Config, chain: list[OpenSSHServer], tmp_path: Path
) -> None:
    first, last, _ = chain
    other = generate_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[{first.host}]:{first.port} {public_key(other)}\n")
    config(
        entry_for("last", last, "ProxyJump first"),
        entry_for("first", first, f"UserKnownHostsFile {known}"),
    )
    with pytest.raises(HostKeyChangedError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh="last")
    assert f"{last.server}: hop {first.server}: " in str(caught.value)
    assert f"{known}:1" in str(caught.value)


def test_the_server_behind_a_hop_is_known_by_its_own_name(
    sock: Any, config: Config, chain: list[OpenSSHServer], tmp_path: Path
) -> None:
    first, last, _ = chain
    config(
        entry_for("last", last, "ProxyJump first", f"UserKnownHostsFile {tmp_path}/empty"),
        entry_for("first", first),
    )
    with pytest.raises(UnknownHostKeyError) as caught:
        sock.connect("tcp://127.0.0.1:1", ssh="last")
    message = str(caught.value)
    assert fingerprint(last.host_keys[0]) in message
    scan = re.escape(f"ssh-keyscan -p {last.port} -t ed25519 {last.host}")
    add = r"(>>|\| Add-Content -Encoding ascii -LiteralPath)"
    where = ", run where the server can be reached"
    assert re.search(f'{scan} {add} {re.escape(str(tmp_path))}/empty"?{where}', message)


def test_a_hop_that_lets_nobody_in_is_named(
    sock: Any, config: Config, chain: list[OpenSSHServer], tmp_path: Path
) -> None:
    first, last, _ = chain
    stranger = generate_key(tmp_path / "stranger")
    config(
        entry_for("last", last, "ProxyJump first"),
        entry_for("first", first).replace(first.keyfile, str(stranger)),
    )
    with pytest.raises(SSHAuthenticationError, match=f"{last.server}: hop {first.server}: "):
        sock.connect("tcp://127.0.0.1:1", ssh="last")


@pytest.mark.parametrize(
    "text",
    [
        "Host a\n  ProxyJump a\n",
        "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n",
        "Host a\n  ProxyJump b\nHost b\n  ProxyJump c\nHost c\n  ProxyJump b\n",
        "ProxyJump bastion\n",
    ],
)
def test_hops_that_lead_back_are_an_error(text: str, sock: Any, config: Config) -> None:
    config(text)
    with pytest.raises(TunnelError, match="its hops lead back to it") as caught:
        sock.connect("tcp://127.0.0.1:1", ssh="a")
    assert caught.value.errno == errno.ELOOP


def test_hops_without_end_are_an_error(config: Config) -> None:
    config("ProxyJump next-%h\n")
    with TunneledContext(isolate=False) as ctx, ctx.socket(zmq.REQ) as sock:
        with pytest.raises(TunnelError, match="more than 16 hops") as caught:
            sock.connect("tcp://127.0.0.1:1", ssh="a")
        assert caught.value.errno == errno.ELOOP


# Who is believed


def test_an_alias_stands_for_the_server_whatever_its_port(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    config(entry_for("name", openssh, "HostKeyAlias Alias", f"UserKnownHostsFile {known}"))
    with pytest.raises(UnknownHostKeyError, match="under its HostKeyAlias alias"):
        sock.connect(echo.address, ssh="name")
    known.write_text(f"alias {public_key(openssh.host_keys[0])}\n")
    sock.connect(echo.address, ssh="name")
    round_trip(sock)


def test_a_new_key_is_added_under_the_alias_and_hidden(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    lines = [
        "HostKeyAlias alias",
        "HashKnownHosts yes",
        "StrictHostKeyChecking accept-new",
        f"UserKnownHostsFile {known}",
    ]
    config(entry_for("name", openssh, *lines))
    sock.connect(echo.address, ssh="name")
    assert known.read_text().startswith("|1|")
    sock.connect(echo.address, ssh=SSHOptions("name", strict_host_key_checking="yes"))
    round_trip(sock)


def test_without_any_file_a_new_key_is_not_written_down(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    lines = ["UserKnownHostsFile none", "GlobalKnownHostsFile none"]
    config(entry_for("name", openssh, *lines))
    with pytest.raises(UnknownHostKeyError, match="no file to know it from"):
        sock.connect(echo.address, ssh="name")
    config(entry_for("name", openssh, *lines, "StrictHostKeyChecking accept-new"))
    sock.connect(echo.address, ssh="name")
    round_trip(sock)
    assert [path.name for path in (home / ".ssh").iterdir()] == ["config"]


def test_the_systems_known_hosts_count_too(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    config(
        entry_for(
            "name",
            openssh,
            f"UserKnownHostsFile {tmp_path}/empty",
            f"GlobalKnownHostsFile {openssh.known_hosts}",
        )
    )
    sock.connect(echo.address, ssh="name")
    round_trip(sock)


def test_a_revoked_key_is_not_believed(
    sock: Any, config: Config, openssh: OpenSSHServer, tmp_path: Path
) -> None:
    revoked = tmp_path / "revoked"
    config(entry_for("name", openssh, f"RevokedHostKeys {revoked}"))
    with pytest.raises(HostKeyError, match=re.escape(f"{revoked} cannot be read")):
        sock.connect("tcp://127.0.0.1:1", ssh="name")
    revoked.write_bytes(b"SSHKRL\n\0")
    with pytest.raises(HostKeyError, match="KRL"):
        sock.connect("tcp://127.0.0.1:1", ssh="name")
    revoked.write_text(f"# gone\n{public_key(openssh.host_keys[0])} comment\n")
    with pytest.raises(HostKeyError, match=re.escape(f"is one of {revoked}")):
        sock.connect("tcp://127.0.0.1:1", ssh="name")


def test_the_algorithms_of_host_keys_can_be_chosen(sock: Any, config: Config, echo: Peer) -> None:
    with OpenSSHServer(host_key_types=("ssh-ed25519", "ecdsa-sha2-nistp256")) as server:
        known = Path(server.known_hosts)
        both = known.read_text()
        known.write_text(both.splitlines()[0] + "\n")
        config(
            entry_for("any", server),
            entry_for("ecdsa", server, "HostKeyAlgorithms ecdsa-*"),
            entry_for("hardware", server, "HostKeyAlgorithms sk-*"),
        )
        sock.connect(echo.address, ssh="any")
        round_trip(sock)
        with pytest.raises(HostKeyChangedError, match="ecdsa-sha2-nistp256 SHA256"):
            sock.connect(echo.address, ssh="ecdsa")
        with pytest.raises(SSHConnectionError, match=r"HostKeyAlgorithms=sk-\*.*it knows .*ssh-"):
            sock.connect(echo.address, ssh="hardware")


@pytest.mark.parametrize(
    ("line", "works"),
    [
        ("Ciphers chacha20-poly1305@openssh.com,aes256-ctr", True),
        ("Ciphers ^aes256-ctr", True),
        ("Ciphers -*gcm*", True),
        ("Ciphers chacha20-poly1305@openssh.com", False),
        ("Ciphers aes256-ctr,rot13", False),
        ("KexAlgorithms curve25519-sha256", True),
        ("KexAlgorithms nonsense", False),
        ("MACs hmac-sha2-512-etm@openssh.com", True),
        ("MACs -*", False),
    ],
)
def test_algorithms_can_be_chosen(
    line: str, works: bool, ctx: TunneledContext, config: Config, openssh: OpenSSHServer, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    config(entry_for("name", openssh, line))
    if works:
        sock.connect(echo.address, ssh="name")
        round_trip(sock)
        return
    with pytest.raises(SSHConnectionError, match="it knows") as caught:
        sock.connect(echo.address, ssh="name")
    assert caught.value.errno == errno.EINVAL


def test_a_server_with_the_key_exchange_of_rfc_8731_alone(
    ctx: TunneledContext, config: Config, echo: Peer
) -> None:
    with OpenSSHServer(KexAlgorithms="curve25519-sha256") as server:
        config(entry_for("name", server), entry_for("chosen", server, "KexAlgorithms curve25519-*"))
        for name in ("name", "chosen"):
            with ctx.socket(zmq.REQ) as sock:
                sock.connect(echo.address, ssh=name)
                round_trip(sock)


@pytest.mark.parametrize(
    ("word", "name", "advice"),
    [
        ("Ciphers", "aes256-cbc", "pass ciphers='+aes256-cbc'"),
        ("Ciphers", "chacha20-poly1305@openssh.com", "pass backend='openssh'"),
        ("MACs", "umac-128@openssh.com", "pass backend='openssh'"),
        ("KexAlgorithms", "sntrup761x25519-sha512@openssh.com", "pass backend='openssh'"),
    ],
)
def test_what_to_do_without_a_common_algorithm_is_told(
    word: str, name: str, advice: str, ctx: TunneledContext, echo: Peer
) -> None:
    aside = {"Ciphers": "aes128-ctr"} if word == "MACs" else {}
    with OpenSSHServer(**{word: name, **aside}) as server, ctx.socket(zmq.REQ) as sock:
        with pytest.raises(SSHConnectionError) as caught:
            sock.connect(echo.address, ssh=options_for(server))
        assert f"of {word}, the server offers {name}: {advice}" in str(caught.value)
        if word == "Ciphers":
            other = options_for(server, backend="openssh", ciphers="aes192-ctr")
            with pytest.raises(SSHConnectionError) as caught:
                sock.connect(echo.address, ssh=other)
            assert f"pass ciphers='+{name}'" in str(caught.value)
        # And the advice works.
        works: dict[str, Any] = {"backend": "openssh"} if "backend" in advice else {}
        path = server.directory / "config"
        path.touch()
        if advice.startswith("pass ciphers"):
            works["ciphers"] = f"+{name}"
        sock.connect(echo.address, ssh=options_for(server, config_file=str(path), **works))
        round_trip(sock)


# How the server is reached


def test_an_address_of_ones_own_can_be_chosen(
    sock: Any, config: Config, openssh: OpenSSHServer, echo: Peer
) -> None:
    config(entry_for("name", openssh, "BindAddress 127.0.0.9", "AddressFamily inet"))
    sock.connect(echo.address, ssh="name")
    round_trip(sock)
    assert "Connection from 127.0.0.9 " in openssh.log()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("BindAddress 192.0.2.77", "BindAddress '192.0.2.77' cannot be used"),
        ("AddressFamily inet6", "not found"),
    ],
)
def test_what_cannot_reach_the_server_is_named(
    line: str, says: str, sock: Any, config: Config, openssh: OpenSSHServer
) -> None:
    config(entry_for("name", openssh, line))
    with pytest.raises(SSHConnectionError, match=says):
        sock.connect("tcp://127.0.0.1:1", ssh="name")
