"""What the config file says is what OpenSSH reads in it: ``ssh -G`` is the oracle."""

from __future__ import annotations

import errno
import logging
import os
import pwd
import socket
import subprocess
import textwrap
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunneledzmq.gateway.config import resolve
from tunneledzmq.gateway.config.syntax import split_arguments
from tunneledzmq.gateway.login import Login, LoginError, Request
from tunneledzmq.gateway.sshtunnel.algorithms import apply_list

USER = pwd.getpwuid(os.getuid()).pw_name
HOME = pwd.getpwuid(os.getuid()).pw_dir
"""OpenSSH's ``~``, whatever $HOME says."""


def request(host: str, config: str | Path | None = None, **given: Any) -> Request:
    """Return what the program asks for when it is given nothing but a name and a file."""
    values = {field.name: None for field in fields(Request)}
    values.update(
        host=host,
        local_user=USER,
        home=HOME,
        directory=os.getcwd(),
        agent=True,
        jump="config",
        config_file=None if config is None else str(config),
        default_config=False,
        backend="sshtunnel",
    )
    return Request(**{**values, **given})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config"


def resolve_text(file: Path, text: str, host: str = "name", **given: Any) -> Login:
    file.write_text(textwrap.dedent(text))
    return resolve(request(host, file, **given))


# The oracle


def ask_openssh(file: Path, host: str, *options: str) -> dict[str, list[str]]:
    command = ["ssh", "-G", "-F", str(file), *options, host]
    answer = subprocess.run(
        command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    found: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        word, _, value = line.partition(" ")
        found.setdefault(word, []).append(value)
    return found


def as_openssh_says_it(login: Login) -> dict[str, list[str]]:
    """Return what was resolved in the form of ``ssh -G``."""

    def flag(value: bool) -> list[str]:
        return ["yes" if value else "no"]

    families = {socket.AF_INET: "inet", socket.AF_INET6: "inet6", socket.AF_UNSPEC: "any"}
    agent = [] if login.identity_agent is None else [login.identity_agent]
    return {
        "hostname": [login.host],
        "port": [str(login.port)],
        "user": [login.user],
        "identityfile": login.identity_files,
        "certificatefile": login.certificate_files,
        "identitiesonly": flag(login.identities_only),
        "identityagent": agent if login.agent else ["none"],
        "proxyjump": [",".join(login.proxy_jump)] if login.proxy_jump else [],
        "proxycommand": [] if login.proxy_command is None else [login.proxy_command],
        "userknownhostsfile": [" ".join(login.user_known_hosts)],
        "globalknownhostsfile": [" ".join(login.global_known_hosts)],
        "stricthostkeychecking": [login.strict_host_key_checking],
        "hostkeyalias": [login.host_key_alias] if login.host_key_alias else [],
        "compression": flag(login.compression),
        "connecttimeout": [f"{login.connect_timeout:g}"],
        "serveraliveinterval": [f"{login.server_alive_interval:g}"],
        "serveralivecountmax": [str(login.server_alive_count_max)],
        "addressfamily": [families[login.address_family]],  # type: ignore[index]
        "bindaddress": [login.bind_address] if login.bind_address else [],
        "ciphers": [",".join(login.ciphers)] if login.ciphers else [],
        "macs": [",".join(login.macs)] if login.macs else [],
        "kexalgorithms": [",".join(login.kex_algorithms)] if login.kex_algorithms else [],
        "preferredauthentications": [",".join(login.preferred_authentications)],
        "numberofpasswordprompts": [str(login.number_of_password_prompts)],
        "batchmode": flag(login.batch_mode),
        "hashknownhosts": flag(login.hash_known_hosts),
        "requiredrsasize": [str(login.required_rsa_size)],
        "revokedhostkeys": [login.revoked_host_keys] if login.revoked_host_keys else [],
    }


BY_DEFAULT_OTHERWISE = {
    "identityfile",
    "connecttimeout",
    "serveraliveinterval",
    "ciphers",
    "macs",
    "kexalgorithms",
    "preferredauthentications",
    "hashknownhosts",
}
"""What OpenSSH has other defaults for, or other names: compared where a file sets it."""

STRICT = {"true": "yes", "false": "no", "ask": "yes", "off": "no"}

# What the file says, and the name that is asked for.
CASES: dict[str, tuple[str, str]] = {
    "an empty file": ("", "name"),
    "comments and empty lines": ("# User a\n\n   \n \t# x\nUser b\n", "name"),
    "a comment behind": ("User b # not c\nHostName x#y\n", "name"),
    "equal signs": ("User=b\nPort = 23\nHostName= h\n", "name"),
    "tabs and carriage returns": ("\tUser\tb\r\n  Port  23 \r\n", "name"),
    "no newline at the end": ("User b", "name"),
    "words in any case": ("uSER b\nHOST name\n hostNAME h\n", "name"),
    "quotes": ('User "b"\nIdentityFile \'/a b/c\'\nHostKeyAlias "x"\n', "name"),
    "escapes": ('IdentityFile /a\\ b\\\\c\\d\nIdentityFile "/\\""\n', "name"),
    "a quoted keyword": ('"User" b\n', "name"),
    "the first value counts": ("User b\nUser c\nHost name\nUser d\nPort 1\nPort 2\n", "name"),
    # Host
    "a host": ("Host name\n User b\nHost other\n User c\n", "name"),
    "no host": ("Host other\n User c\n", "name"),
    "several patterns": ("Host x name y\n User b\n", "name"),
    "wildcards": ("Host n?m*\n User b\n", "name"),
    "a negation": ("Host * !name\n User b\nHost *\n User c\n", "name"),
    "nothing but a negation": ("Host !other\n User b\n", "name"),
    "a negation before": ("Host !name *\n User b\n", "name"),
    "brackets are no wildcards": ("Host [n]ame\n User b\n", "name"),
    "a host in upper case": ("Host NAME\n User b\nHost Name\n Port 9\n", "Name"),
    "patterns in quotes": ("Host \"name\" 'x y'\n User b\n", "name"),
    "no pattern": ("Host # name\n User b\n", "name"),
    "the HostName is not what Host matches": (
        "Host name\n HostName real\nHost real\n User b\nHost name\n Port 7\n",
        "name",
    ),
    # HostName, User, Port
    "a token in HostName": ("HostName %h.example.%%h\n", "name"),
    "HostName in upper case": ("HostName NAME.Example\n", "name"),
    "an address": ("HostName 127.1\n", "name"),
    "an address in hexadecimal": ("HostName 0x7f.0x1\n", "name"),
    "an address in octal": ("HostName 0177.0.0.01\n", "name"),
    "an address that was asked for": ("Host 127.0.0.1\n User b\n", "127.1"),
    "a number that was asked for": ("", "0x7f000001"),
    "an address of another family": ("AddressFamily inet6\nHostName 127.1\n", "name"),
    "no address": ("HostName 1.2.3.4.X\n", "name"),
    "an IPv6 address": ("HostName 2001:DB8:0:0::1\n", "name"),
    "a scope": ("Host x\n Port 9\nMatch host fe80::1%eth0\n User b\n", "fe80::1%eth0"),
    "a scope that looks like a token": (
        'Host fe80*\n Port 9\nMatch host fe80::1%h exec "test %h+%n = fe80::1%%h+fe80::1%%h"\n'
        " User b\n"
        "Match final host fe80::1%h\n HostKeyAlias c\n",
        "fe80::1%h",
    ),
    "a scope in HostName": (
        "Host name\n HostName fe80::1%%h\nMatch host fe80::1%h\n User b\nMatch final\n Port 9\n",
        "name",
    ),
    "a scope behind a token": ("HostName %h%%x\nMatch host fe80::1%h%x\n User b\n", "fe80::1%h"),
    "a port with a sign": ("Port +5\n", "name"),
    "a port with white space": ("Port ' \f007'\n", "name"),
    "a service": ("Port ssh\n", "name"),
    # Match
    "match all, negated": ("Match !all\n User b\n", "name"),
    "match all behind one condition": (
        "Match user x all\n User b\nMatch !exec false all\n Port 9\n",
        "name",
    ),
    "match all before a comment": ("Match all # host x\n User b\n", "name"),
    "match with an empty word at the end": ('Match host name ""\n User b\n', "name"),
    "match with a list that is too long": (
        f"Match host name,{'x' * 1023}\n User b\nMatch host name,{'x' * 1022}\n Port 9\n",
        "name",
    ),
    "match all": ("Match all\n User b\n", "name"),
    "match host": ("Match host na*,x\n User b\nMatch host !name,*\n Port 9\n", "name"),
    "match host sees HostName": (
        "Host name\n HostName Real\nMatch host real\n User b\nMatch host name\n Port 9\n",
        "name",
    ),
    "match host sees HostName only after it": (
        "Match host real\n User b\nHost name\n HostName real\n",
        "name",
    ),
    "match host sees the tokens of HostName": ("HostName %h.x\nMatch host name.x\n Port 9", "name"),
    "match originalhost": ("HostName real\nMatch originalhost name\n User b\n", "name"),
    "match user": (
        f"Match user {USER}\n Port 9\nHost name\n User b\nMatch user b\n HostKeyAlias x\n",
        "name",
    ),
    "match localuser": (f"User x\nMatch localuser {USER}\n Port 9\n", "name"),
    "match negated": ("Match !host name\n User b\nMatch !host other\n User c\n", "name"),
    "match several": (f"Match host name localuser {USER} !user x\n User b\n", "name"),
    "match with equal signs": (f"Match host=name localuser={USER}\n User b\n", "name"),
    "match with quotes": ('Match host "name,x y" # all\n User b\n', "name"),
    "match exec": ('Match exec "test %h = name"\n User b\nMatch exec false\n User c\n', "name"),
    "match exec negated": ("Match !exec false\n User b\n", "name"),
    "match exec with tokens": (
        'HostKeyAlias Alias\nHostName %h.x\nUser bob\nPort 7\nMatch exec "test '
        f"'%%-%L-%d-%h-%i-%k-%l-%n-%p-%r-%u' = '%%%%-%L-{HOME}-name.x-{os.getuid()}-Alias-%l-name-"
        f"7-bob-{USER}'\"\n BindAddress 127.0.0.1\n",
        "name",
    ),
    "match final": (
        "HostName real\nMatch final host real\n User b\nMatch host real\nPort 9",
        "name",
    ),
    "match final lets Host see HostName": (
        "Host real\n User b\nHost name\n HostName real\nMatch final all\n Port 9\n",
        "name",
    ),
    "match final sets no HostName": ("Match final\n HostName other\n User b\n", "name"),
    "match final sets no other HostName": (
        "Match host name\n HostName real\nMatch final\n HostName other\n Port 9\n",
        "name",
    ),
    "match final sees the address as it is": (
        "HostName 127.1\nMatch final host 127.0.0.1\n User b\nHost 127.0.0.1\n Port 9\n",
        "name",
    ),
    "match final settles the address": ("Match final\nAddressFamily inet6\n", "127.1"),
    "match canonical, which nothing is": ("Match canonical\n User b\nMatch all\n User c\n", "name"),
    "match canonical in the final pass": (
        "Match canonical\n User b\nMatch final host x\n User c\n",
        "name",
    ),
    # Lists
    "several IdentityFile": (
        "Host name\n IdentityFile /a\n IdentityFile /b\nHost *\n IdentityFile /c\nIdentityFile /a",
        "name",
    ),
    "several CertificateFile": (
        "CertificateFile /a\nIdentityFile /i\nHost name\n CertificateFile /b\n",
        "name",
    ),
    "several passes add no keys twice": ("IdentityFile /a\nMatch final\nIdentityFile /b\n", "name"),
    "known hosts": ("UserKnownHostsFile /a /b\nGlobalKnownHostsFile /c '/d e'\n", "name"),
    "no known hosts": ("UserKnownHostsFile none\nGlobalKnownHostsFile none\n", "name"),
    "known hosts that are a comment": ("UserKnownHostsFile # /a\nUserKnownHostsFile /b\n", "name"),
    # Tokens of paths
    "no tokens in the system's known hosts": (
        "GlobalKnownHostsFile /%h/%p/%C/%z ~/x /${HOME}\n",
        "name",
    ),
    "a hash of the connection, hops aside": (
        "HostName h\nUser b\nProxyJump hop\nUserKnownHostsFile /%C\n",
        "name",
    ),
    "tokens in known hosts": (
        "Host name\n User b\n Port 9\n HostName real.x\n HostKeyAlias Al\n"
        " UserKnownHostsFile /%%/%L/%d/%h/%i/%k/%l/%n/%p/%r/%u/%C ~/x\n",
        "name",
    ),
    "an agent": ("IdentityAgent /run/%u/%h/agent\n", "name"),
    "an agent by a variable": ("IdentityAgent ${HOME}/agent\n", "name"),
    "no agent": ("IdentityAgent none\n", "name"),
    # Hops and commands
    "a hop": ("ProxyJump bob@hop:2222\n", "name"),
    "a hop, and something more": ("ProxyJump hop a\n", "name"),
    "a hop at a service": ("ProxyJump bob@hop:ssh\n", "name"),
    "a hop at an address": ("ProxyJump [::1]:+22\n", "name"),
    "a hop with a colon too many": ("ProxyJump hop:\n", "name"),
    "a hop by its URI": ("ProxyJump ssh://bob@hop:22/\n", "name"),
    "several hops": ("ProxyJump a,bob@b,c:23 # d\n", "name"),
    "no hop": ("Host name\n ProxyJump none\nHost *\n ProxyJump hop\n", "name"),
    "a hop before a command": ("ProxyJump hop\nProxyCommand x\n", "name"),
    "a command before a hop": ("ProxyCommand x y\nProxyJump hop\n", "name"),
    "no command before a hop": ("ProxyCommand none\nProxyJump hop\n", "name"),
    "no hop before a command": ("ProxyJump none\nProxyJump a\nProxyCommand x\n", "name"),
    "a command as it is written": ("ProxyCommand  = a 'b  c' \"d\" # e\\ f \n", "name"),
    # Values
    "times": ("ConnectTimeout 1m30s\nServerAliveInterval 2H\nServerAliveCountMax 9\n", "name"),
    "no time": ("ConnectTimeout none\nConnectTimeout 5\n", "name"),
    "no interval": ("ServerAliveInterval none\nServerAliveInterval 5\n", "name"),
    "times with signs": ("ConnectTimeout +1m+30s\nServerAliveCountMax +4\n", "name"),
    "seconds": ("ConnectTimeout 7\nServerAliveInterval 0\n", "name"),
    "flags": ("Compression yes\nIdentitiesOnly true\nBatchMode no\nHashKnownHosts yes\n", "name"),
    "strict": ("StrictHostKeyChecking accept-new\n", "name"),
    "not strict": ("StrictHostKeyChecking off\n", "name"),
    "strict by asking": ("StrictHostKeyChecking ASK\n", "name"),
    "an address family": ("AddressFamily inet6\nBindAddress ::1\n", "name"),
    "an alias": ("HostKeyAlias Alias\n", "name"),
    "algorithms": (
        "Ciphers aes256-ctr,aes128-gcm@openssh.com\nMACs hmac-sha2-512\n"
        "KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256\n",
        "name",
    ),
    "algorithms before an empty name": (
        "Ciphers aes256-ctr,,aes128-ctr\nMACs hmac-sha2-512,\nKexAlgorithms curve25519-sha256,\n",
        "name",
    ),
    "methods": ("PreferredAuthentications password,publickey\nNumberOfPasswordPrompts 1\n", "name"),
    "revoked keys": ("RevokedHostKeys /etc/revoked\nRequiredRSASize 3000\n", "name"),
    "old names": ("ChallengeResponseAuthentication yes\nIdentityFile2 /a\nKeepAlive yes\n", "name"),
    "words to be ignored": ("IgnoreUnknown New*,other\nNewWord x y z\nUser b\n", "name"),
    "words to be ignored, for another host": (
        "Host other\n IgnoreUnknown x\nHost name\n IgnoreUnknown new*\nNewWord\tx\n",
        "name",
    ),
    "words before which OpenSSH gives up": ('"User a\n== User b\n"" User c\n=User d\n', "name"),
    "words without effect": (
        "ForwardAgent yes\nControlMaster auto\nControlPath /x/%C\nLocalForward 1234 h:1\n"
        "SendEnv LANG LC_*\nSetEnv A=b\nEscapeChar none\nProtocol 2\nCheckHostIP no\nUser b\n",
        "name",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_openssh_resolves_the_same(case: str, file: Path) -> None:
    text, host = CASES[case]
    file.write_text(text)
    compare(file, host, text)


def compare(file: Path, host: str, text: str, *options: str, **given: Any) -> None:
    theirs = ask_openssh(file, host, *options)
    ours = as_openssh_says_it(resolve(request(host, file, **given)))
    for word, values in ours.items():
        if word in BY_DEFAULT_OTHERWISE and word not in text.lower():
            continue
        expected = [STRICT.get(value, value) for value in theirs.get(word, [])]
        if word in ("userknownhostsfile", "globalknownhostsfile"):
            expected = ["" if value == "none" else value.replace("~", HOME) for value in expected]
        assert values == expected, word


def test_openssh_agrees_on_what_the_options_say(file: Path) -> None:
    text = "Match user bob\n Port 9\n HostKeyAlias x\nHost name\n User eve\n Port 8\nProxyJump a\n"
    file.write_text(text)
    compare(file, "name", text, "-l", "bob", user="bob")
    compare(file, "name", text, "-p", "7", port=7)
    compare(file, "name", text, "-J", "none", jump="none")
    file.write_text(text.replace("ProxyJump a", "ProxyCommand b"))
    compare(file, "name", text, "-J", "none", jump="none")


@pytest.fixture
def included(tmp_path: Path) -> Path:
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "1.conf").write_text("User b\nHost name\n Port 9\nHost other\n Port 8\n")
    (directory / "2.conf").write_text("User c\nMatch all\n HostKeyAlias x\n")
    (directory / "3.conf").mkdir()
    (directory / "link").symlink_to("nothing")
    (directory / "4").write_text("BindAddress 127.0.0.1\n")
    return directory


@pytest.mark.parametrize(
    "text",
    [
        "Include {}/*.conf\nCompression yes\n",
        "Include {}/2.conf {}/1.conf\n",
        "Include {}/missing {}/*.nothing\nUser e\n",
        "Include {}/\\1.c\\onf {}/\\*.conf {}/link\nUser e\n",
        "Host other\n Include {}/*.conf\n Compression yes\nHost name\n User e\n",
        "Host name\n Include {}/*.conf\n Compression yes\nHost *\n User e\n",
        "Host other\n User d\n Include {}/2.conf\n BatchMode yes\n",
        'Match exec "true"\n Include "{}/1.conf"\n BatchMode yes\n',
        f"Match user {USER}\n User d\n Include {{}}/4\n BatchMode yes\n",
    ],
)
def test_openssh_includes_the_same(text: str, file: Path, included: Path) -> None:
    file.write_text(text.replace("{}", str(included)))
    compare(file, "name", "")


def test_includes_are_found_in_the_users_directory(home: Path) -> None:
    (home / ".ssh" / "config").write_text("Include conf.d/* ~/more\n")
    (home / ".ssh" / "conf.d").mkdir()
    (home / ".ssh" / "conf.d" / "a").write_text("User b\n")
    (home / "more").write_text("Port 9\n")
    login = resolve(request("name", home / ".ssh" / "config", home=str(home)))
    assert (login.user, login.port) == ("b", 9)


def test_a_file_that_includes_itself_is_an_error(file: Path) -> None:
    with pytest.raises(LoginError, match=f"{file}:1: too many recursive") as caught:
        resolve_text(file, f"Include {file}\n")
    assert caught.value.errno == errno.EINVAL


# Which files


def test_the_default_file_may_be_missing(home: Path) -> None:
    path = home / ".ssh" / "config"
    login = resolve(request("name", path, home=str(home), default_config=True))
    assert login.host == "name"


def test_another_file_must_be_there(file: Path) -> None:
    with pytest.raises(LoginError, match=str(file)) as caught:
        resolve(request("name", file))
    assert (caught.value.kind, caught.value.errno) == ("TunnelError", errno.ENOENT)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(LoginError) as caught:
        resolve(request("name", tmp_path))
    assert caught.value.errno == errno.EISDIR


def test_a_pipe_that_nobody_writes_does_not_hang(file: Path) -> None:
    os.mkfifo(file)
    assert resolve(request("name", file)).host == "name"


def test_an_endless_file_is_an_error() -> None:
    with pytest.raises(LoginError, match="no config file"):
        resolve(request("name", "/dev/zero"))


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_file_that_others_may_write_is_not_believed(mode: int, home: Path) -> None:
    path = home / ".ssh" / "config"
    path.write_text("User b\n")
    path.chmod(mode)
    with pytest.raises(LoginError, match="bad owner or permissions") as caught:
        resolve(request("name", path, home=str(home), default_config=True))
    assert caught.value.errno == errno.EACCES
    # As with ssh -F.
    assert resolve(request("name", path)).user == "b"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_file_of_another_user_is_not_believed(home: Path) -> None:
    path = home / ".ssh" / "config"
    path.write_text("User b\n")
    os.chown(path, 12345, -1)
    with pytest.raises(LoginError, match="bad owner or permissions"):
        resolve(request("name", path, home=str(home), default_config=True))


# What is wrong in a file

WRONG: dict[str, str] = {
    "User": "no argument",
    "User #": "missing argument",
    'User ""': "missing argument",
    "User a b": "extra arguments",
    'User "a': "invalid quotes",
    "Nonsense yes": "bad configuration option: Nonsense",
    "Port 0": "bad port",
    "Port 65536": "bad port",
    "Port ²": "bad port",
    "Compression maybe": "'maybe'",
    "StrictHostKeyChecking sometimes": "accept-new",
    "ConnectTimeout 1x": "invalid time",
    "ConnectTimeout -1": "invalid time",
    "ConnectTimeout 99999999999999999999w": "invalid time",
    "ServerAliveCountMax x": "invalid number",
    "UserKnownHostsFile none /a": "must stand alone",
    "UserKnownHostsFile ''": "empty argument",
    "IdentityAgent $a-b": "invalid environment name",
    "ProxyJump a,,b": "invalid ProxyJump",
    "ProxyJump a:b": "invalid ProxyJump",
    "Host ''": "empty argument",
    "Match": "no argument",
    "Match nonsense": "unsupported Match attribute",
    "Match host": "missing Match criteria",
    "Match all host x": "cannot be combined",
    "Match # host": "one or more attributes",
    "Match all host": "cannot be combined",
    "Match user x host y all": "cannot be combined",
    'Match host x "" all': "extra arguments",
    "Match exec false exec %z": "unknown token %z",
    "ServerAliveCountMax 2147483648": "invalid number",
    "ProxyJump a/b": "invalid ProxyJump",
    "ProxyJump @a": "invalid ProxyJump",
    "ProxyJump ssh://a/b": "invalid ProxyJump",
    "IdentityAgent ${TUNNELEDZMQ_NOT_SET}": "TUNNELEDZMQ_NOT_SET",
    'Match host "x': "invalid quotes",
    "HostName %z": "unknown token %z",
    "HostName %": "a % at the end",
    "IdentityFile /%z": "unknown token %z",
    "IdentityFile ~nosuchuser-/x": "no such user",
    "CertificateFile ${TUNNELEDZMQ_NOT_SET}": "TUNNELEDZMQ_NOT_SET",
    "IdentityAgent ${": "not complete",
    "UserKnownHostsFile /%z": "unknown token %z",
    "ProxyCommand nc %d": "unknown token %d",
    "ProxyCommand -": "standard input",
    "Include ''": "empty argument",
    "Match localnetwork 10.0.0.1/8": "host bits",
    "Match exec %z": "unknown token %z",
    "\x00\xff": "no argument",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_malformed_line_is_named(line: str, file: Path) -> None:
    with pytest.raises(LoginError) as caught:
        resolve_text(file, f"# first\n{line}\n" if line[0] != "\0" else "#\n\xffx\n")
    message = caught.value.message
    assert message.startswith(f"name: {file}:2: ")
    assert WRONG[line] in message
    assert (caught.value.kind, caught.value.errno) == ("TunnelError", errno.EINVAL)
    message.encode()


@pytest.mark.parametrize(
    "line",
    [line for line in WRONG if line[0] in "PUCS" and not set(line) & set("%$") and line[-1] != "-"],
)
def test_what_openssh_refuses_is_refused_for_other_hosts_too(line: str, file: Path) -> None:
    with pytest.raises(LoginError, match=f"{file}:2: "):
        resolve_text(file, f"Host other\n{line}\n")


def test_a_shell_that_is_missing_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/no/such/shell")
    with pytest.raises(LoginError, match=f"{file}:1: Match exec 'true': .*/no/such/shell"):
        resolve_text(file, "Match exec true\n")


def test_a_command_of_match_is_run_once(file: Path, tmp_path: Path) -> None:
    text = f'Match exec "echo x >> {tmp_path}/runs"\n User b\n Include /none\n Port 9\n'
    assert resolve_text(file, text).port == 9
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_command_of_match_runs_in_the_programs_directory(file: Path, tmp_path: Path) -> None:
    login = resolve_text(file, 'Match exec "test -f config"\n User b\n', directory=str(tmp_path))
    assert login.user == "b"


def test_a_command_of_match_that_does_not_end_is_ended(file: Path) -> None:
    start = time.monotonic()
    with pytest.raises(LoginError, match=f"{file}:1: Match exec .* no end within 0.3 s"):
        resolve_text(file, 'Match exec "sleep 77 & sleep 77"\n', connect_timeout=0.3)
    assert time.monotonic() - start < 3


def test_match_localnetwork_knows_the_loopback(file: Path) -> None:
    text = "Match localnetwork 127.0.0.0/8\n User b\nMatch localnetwork 198.51.100.0/24\n Port 9\n"
    login = resolve_text(file, text)
    assert (login.user, login.port) == ("b", 22)


def test_match_tagged_sees_the_tag(file: Path) -> None:
    login = resolve_text(file, "Match tagged x\nPort 9\nMatch all\nTag x\nMatch tagged x\nUser b\n")
    assert (login.user, login.port) == ("b", 22)


# Words that are not honoured

REFUSED = {
    "KnownHostsCommand /bin/x": True,
    "KnownHostsCommand none": False,
    "VerifyHostKeyDNS yes": True,
    "VerifyHostKeyDNS ask": False,
    "CanonicalizeHostname yes": True,
    "CanonicalizeHostname always": True,
    "CanonicalizeHostname no": False,
    "ProxyUseFdpass yes": True,
    "ProxyUseFdpass no": False,
    "BindInterface eth0": True,
    "CheckHostIP yes": True,
    "CheckHostIP no": False,
    "HostName 192.0.2.1\nCheckHostIP yes": False,
    "ProxyJump hop\nCheckHostIP yes": False,
    "NoHostAuthenticationForLocalhost yes": True,
    "GSSAPIKeyExchange yes": True,
    "GSSAPIAuthentication yes": False,
    "RefuseConnection sorry": True,
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_changes_who_is_believed_or_reached_is_never_left_out(line: str, file: Path) -> None:
    text = f"User b\n{line}\n"
    if not REFUSED[line]:
        assert resolve_text(file, text).user == "b"
        return
    with pytest.raises(LoginError, match=f"{file}:2: ") as caught:
        resolve_text(file, text)
    assert "backend='openssh'" in caught.value.message or "sorry" in caught.value.message
    assert resolve_text(file, f"Host other\n{line}\n").host == "name"


def test_words_without_effect_are_logged_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tunneledzmq")
    resolve_text(file, "ForwardAgent yes\nHost other\nTunnel yes\nHost name\nControlMaster no\n")
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert f"ForwardAgent ({file}:1), ControlMaster ({file}:5)" in record.getMessage()


# What the options say


def test_what_the_options_say_wins(file: Path) -> None:
    text = """
        User a
        Port 1
        Compression yes
        StrictHostKeyChecking no
        ConnectTimeout 1
        ServerAliveInterval 1
        ServerAliveCountMax 1
        Ciphers aes256-ctr
        UserKnownHostsFile /a
        GlobalKnownHostsFile /b
        ProxyJump c
    """
    login = resolve_text(
        file,
        text,
        user="u",
        port=2,
        compression=False,
        strict_host_key_checking="accept-new",
        connect_timeout=3.0,
        server_alive_interval=0,
        server_alive_count_max=4,
        ciphers=["aes128-ctr"],
        known_hosts=["/k"],
        jump="given",
        agent=False,
        keyfiles=["/key"],
    )
    assert login.server == "u@name:2"
    assert login.compression is False
    assert login.strict_host_key_checking == "accept-new"
    assert login.connect_timeout == 3
    assert (login.server_alive_interval, login.server_alive_count_max) == (0, 4)
    assert login.ciphers == ["aes128-ctr"]
    assert (login.user_known_hosts, login.global_known_hosts) == (["/k"], [])
    assert (login.behind_hop, login.proxy_jump, login.proxy_command) == (True, [], None)
    assert login.agent is False
    assert login.keyfiles == ["/key"]


def test_without_a_file_the_defaults_hold() -> None:
    login = resolve(request("name"))
    assert login.server == f"{USER}@name:22"
    assert (login.connect_timeout, login.server_alive_interval) == (10, 15)
    assert login.server_alive_count_max == 3
    assert login.strict_host_key_checking == "yes"
    assert login.user_known_hosts == [f"{HOME}/.ssh/known_hosts", f"{HOME}/.ssh/known_hosts2"]
    assert login.identity_files == [
        f"{HOME}/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")
    ]
    assert (login.agent, login.identity_agent) == (True, None)


def test_an_alive_count_of_0_never_gives_up(file: Path) -> None:
    assert resolve_text(file, "ServerAliveCountMax 0\nServerAliveInterval 5\n") == resolve_text(
        file, "ServerAliveInterval none\n"
    )


def test_methods_can_be_taken_away(file: Path) -> None:
    text = """
        PreferredAuthentications gssapi-with-mic,password,publickey,keyboard-interactive
        PubkeyAuthentication no
        Host name
        KbdInteractiveAuthentication yes
        PasswordAuthentication no
    """
    assert resolve_text(file, text).preferred_authentications == ["keyboard-interactive"]


@pytest.mark.parametrize(
    ("line", "agent", "path"),
    [
        ("", True, None),
        ("IdentityAgent SSH_AUTH_SOCK", True, None),
        ("IdentityAgent none", False, None),
        ("IdentityAgent ~/x", True, f"{HOME}/x"),
        ("IdentityAgent $TUNNELEDZMQ_AGENT", True, "/agent"),
        ("IdentityAgent $TUNNELEDZMQ_NOT_SET", True, "/dev/null"),
    ],
)
def test_the_agent_is_found(
    line: str, agent: bool, path: str | None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNNELEDZMQ_AGENT", "/agent")
    login = resolve_text(file, line + "\n")
    assert (login.agent, login.identity_agent) == (agent, path)


def test_no_key_files_at_all(file: Path) -> None:
    assert resolve_text(file, "IdentityFile none\n").identity_files == []
    assert resolve_text(file, "IdentityFile none\nIdentityFile /a\n").identity_files == ["/a"]


def test_unknown_words_are_ignored_for_the_host_alone_that_says_so(file: Path) -> None:
    with pytest.raises(LoginError, match=f"{file}:3: bad configuration option: NewWord"):
        resolve_text(file, "Host other\nIgnoreUnknown new*\nNewWord x\n")
    with pytest.raises(LoginError, match=f"{file}:1: bad configuration option: NewWord"):
        resolve_text(file, "NewWord x\nIgnoreUnknown new*\n")


def test_a_host_argument_is_no_text_with_tokens(file: Path) -> None:
    assert resolve_text(file, "Match all\n User b\n", "fe80::1%eth7").host == "fe80::1%eth7"


def test_required_rsa_size_is_openssh_s_least_at_least(file: Path) -> None:
    assert resolve_text(file, "").required_rsa_size == 1024
    assert resolve_text(file, "RequiredRSASize 512\n").required_rsa_size == 1024


def test_relative_paths_are_relative_to_the_programs_directory(file: Path) -> None:
    login = resolve_text(file, "IdentityFile x\nUserKnownHostsFile y/z\n", directory="/somewhere")
    assert login.identity_files == ["/somewhere/x"]
    assert login.user_known_hosts == ["/somewhere/y/z"]


def test_hops_and_commands_have_their_tokens_replaced(file: Path) -> None:
    text = "User bob\nPort 9\nHostName %h.x\nHostKeyAlias k\n"
    login = resolve_text(file, text + "ProxyJump %r@%h-hop,%n\n")
    assert (login.behind_hop, login.proxy_jump) == (True, ["bob@name.x-hop", "name"])
    login = resolve_text(file, text + "ProxyCommand nc %h %p %r %n %k %%\n")
    assert login.proxy_command == "nc name.x 9 bob name k %"


@pytest.mark.parametrize("hop", ['"hop"', "'hop'", "hop:", "hop:ssh # x"])
def test_a_hop_means_what_it_means_to_the_shell_that_runs_openssh(hop: str, file: Path) -> None:
    assert resolve_text(file, f"ProxyJump {hop}\n").proxy_jump in (["hop"], ["hop:22"])
    assert resolve_text(file, f"Host other\nProxyJump {hop}\n").proxy_jump == []


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("b,a", "b,a"),
        ("x,a", "a"),
        ("x", ""),
        ("+d,a", "a,b,c,d"),
        ("-a", "b,c"),
        ("-?", ""),
        ("^c,d", "c,d,a,b"),
    ],
)
def test_lists_of_algorithms_are_openssh_s(spec: str, chosen: str) -> None:
    assert ",".join(apply_list(spec.split(","), "abc", "abcd")) == chosen


# Whatever stands in the file

WORDS = r"""
Host Match Include User Port HostName IdentityFile ProxyJump ProxyCommand Ciphers Nonsense Tag
UserKnownHostsFile ConnectTimeout Compression IdentityAgent IgnoreUnknown host all final user
localnetwork name none yes 22 1m %h %% ~ ${HOME} * !name " ' = # \ , -1 /tmp
"""
LINES = st.lists(
    st.lists(st.sampled_from(WORDS.split()), max_size=6).map(" ".join), max_size=8
).map("\n".join)


@settings(deadline=None)
@given(text=st.one_of(LINES.map(str.encode), st.binary(max_size=200)))
def test_any_file_is_read_or_refused(text: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any"
    file.write_bytes(text)
    error = None
    try:
        resolve(request("name", file))
    except LoginError as exc:
        error = exc
    if error is not None:
        # Or a file that it includes, such as /tmp.
        assert str(file) in error.message or b"include" in text.lower()
        error.message.encode()


@given(st.text())
def test_any_arguments_are_split_or_refused(text: str) -> None:
    try:
        arguments = split_arguments(text)
    except ValueError:
        return
    assert all(isinstance(argument, str) for argument in arguments)


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="'\\\"\0"))))
def test_quoted_arguments_come_back(arguments: list[str]) -> None:
    assert split_arguments(" ".join(f"'{argument}'" for argument in arguments)) == arguments


# Its cost


def cost(given: Request) -> float:
    def once() -> float:
        start = time.process_time()
        resolve(given)
        return time.process_time() - start

    return min(once() for _ in range(20))


def test_reading_it_takes_no_time(file: Path) -> None:
    assert cost(request("name")) < 0.002
    block = "Host h{0} *.x{0}\n HostName h{0}.example\n Port 22{0}\n User u\n IdentityFile ~/{0}\n"
    file.write_text("".join(block.format(number) for number in range(20)))
    assert cost(request("h7", file)) < 0.010
