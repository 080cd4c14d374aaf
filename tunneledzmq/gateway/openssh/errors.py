"""The errors of logins by ssh, out of what it says about them."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from ...shared.system.account import readable_by_others
from ...shared.text import with_notes
from ..login import BY_HAND, HUNG_UP, Login, LoginError
from ..trust.host_key import ask_authority, ask_for_scan, name_files
from ..trust.known_hosts import KnownHosts
from .said import Said

__all__ = ["changed_host_key", "login_error", "unknown_host_key", "unusable_keyfiles"]


def login_error(
    login: Login, said: Said, hops: Sequence[Said], skipped: Sequence[str], *, told: bool
) -> LoginError:
    """Make the error for a login that has failed, out of what ssh says about it.

    Args:
        login: how to log in.
        said: what it has said.
        hops: what those have said that it started for its hops.
        skipped: why it has passed keys over that the server would have accepted.
        told: whether the server was told a password.
    """
    for each in (*hops, said):
        if error := _host_key_error(login, each):
            return error
    for each in (*hops, said):
        if error := _authentication_error(login, each, skipped, told=told and each is said):
            return error
    return _connection_error(login, said, hops)


def changed_host_key(said: Said) -> str:
    """Say that the host key has changed; nothing if it has not."""
    if not said.find_own("@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! +@"):
        return ""
    where = said.find_own(r"Offending .* key in (.*)")
    remove = said.find_own(r'ssh-keygen -f "(.*)" -R "(.*)"')
    command = ["ssh-keygen", *(["-f", remove[1], "-R", remove[2]] if remove else ["-R"])]
    return (
        f"the host key has changed: the server has {_host_key(said)}, known_hosts has another one "
        f"({where[1] if where else 'unknown'}). Somebody may be listening in between. If the "
        f"server really has a new key: {shlex.join(command)}"
    )


def unknown_host_key(login: Login, name: str, kind: str, key: str = "") -> LoginError:
    """Make the error for a host key that is not known.

    Args:
        login: how to log in to the server.
        name: whose key it is, as known_hosts has it: the server's, or one of a hop that ssh goes
            over by itself.
        kind: the type of the key, as ssh-keyscan has it.
        key: the key, as type and fingerprint.
    """
    match = re.fullmatch(r"\[(.+)\]:(\d+)", name)
    host, port = (match[1], match[2]) if match else (name, "22")
    of_hop = (host, port) != (login.host, str(login.port)) and not login.host_key_alias
    if not of_hop:
        host, port = login.host, str(login.port)
    files = list(map(os.path.expanduser, login.user_known_hosts or ["~/.ssh/known_hosts"]))
    whose = f"{key} of the hop {name}".strip() if of_hop else key
    known_as = (login.host_key_alias, 22) if login.host_key_alias else (host, int(port))
    if _has_authority(login, *known_as):
        return login.no_trust(
            errno.EACCES,
            f"the host key {whose} is not known, and no @cert-authority of known_hosts vouches for "
            f"it. {ask_authority(known_as[0])}",
            "UnknownHostKeyError",
        )
    return login.no_trust(
        errno.EACCES,
        f"the host key {whose} is not in {name_files(files)}. "
        f"{ask_for_scan(host, int(port), kind.lower(), files[0])}",
        "UnknownHostKeyError",
    )


def _has_authority(login: Login, host: str, port: int) -> bool:
    try:
        return KnownHosts.load(login.user_known_hosts).has_authority(host, port)
    except OSError:
        return False


def _host_key(said: Said) -> str:
    return said.host_key or "another one"


def _host_key_error(login: Login, said: Said) -> LoginError | None:
    if not said.find_own(r"Host key verification failed\."):
        return None
    if said.find_own(
        r"@ +WARNING: REVOKED HOST KEY DETECTED! +@|The \S+ host key for .* is marked as revoked\."
    ):
        text = f"the host key {_host_key(said)} is marked as revoked in known_hosts"
        return login.no_trust(errno.EACCES, text)
    if changed := changed_host_key(said):
        return login.no_trust(errno.EACCES, changed, "HostKeyChangedError")
    unknown = said.find_own(r"No ([\w-]+) host key is known for (\S+) and .*")
    if unknown is None:
        return login.no_trust(errno.EACCES, f"the host key is not accepted: {said.last_own}")
    return unknown_host_key(login, unknown[2], unknown[1], _host_key(said))


def _authentication_error(
    login: Login, said: Said, skipped: Sequence[str], *, told: bool
) -> LoginError | None:
    notes = [*skipped, *unusable_keyfiles(said, login.keyfiles or ())]
    if broken := said.find(r"Received disconnect from .*: ?(Too many authentication failures).*"):
        return login.no_entry(
            errno.EACCES,
            with_notes(
                f"the server broke the login off: {broken[1]}; with many keys in the agent, name "
                "the right one with keyfile= and set agent=False",
                notes,
            ),
        )
    if denied := said.find(r"(.+): Permission denied \(([!-~]*)\)\."):
        who = login.user if denied[1] == f"{login.user}@{login.host}" else denied[1]
        tried = ", ".join(login.keyfiles or ["the default keys"])
        question = "Is the public key in its authorized_keys, and the user name right?"
        if skipped:
            question = "A key that it would accept is locked"
        elif told:
            tried += " and the password"
            question = "Are the password and the user name right?"
        return login.no_entry(
            errno.EACCES,
            with_notes(
                f"the server did not let {who!r} in with {tried}; it accepts {denied[2]}. "
                f"{question}",
                notes,
            ),
        )
    return None


def unusable_keyfiles(said: Said, named: Sequence[str] = ()) -> Iterator[str]:
    """Say why ssh has passed key files over, of which we know that it has.

    Args:
        said: what it has said.
        named: those that the program named.
    """
    for path in dict.fromkeys([*named, *said.identity_files]):
        try:
            status = os.stat(path)
        except OSError:
            continue  # of a key in the agent
        ignored = said.find(rf"Permissions \d+ for '{re.escape(path)}' are too open\.")
        if readable_by_others(status) and (ignored or path in named):
            yield (
                f"the key file {path} can be read by others, so it is not used: "
                f"chmod 600 {shlex.quote(path)}"
            )
        elif path in named and (unusable := said.find(rf'Load key "{re.escape(path)}": (.*)')):
            yield f"the key file {path} cannot be used: {unusable[1]}"


# What ssh says when it cannot connect, in the order in which it tells most.
_NO_WAY = (
    (
        r"(?:\w+: )?Could not resolve hostname (.*)",  # it has the name of its program before it
        errno.EHOSTUNREACH,
        "the name was not found: {}",
    ),
    (
        r"(?:ssh: )?connect to .*: Connection refused",
        errno.ECONNREFUSED,
        "the connection was refused: does an SSH server listen on that port?",
    ),
    (r"(?:ssh: )?connect to .*: (.*timed out.*)", errno.ETIMEDOUT, "cannot be reached: {}"),
    (r"(?:ssh: )?connect to .*: (.*)", errno.EHOSTUNREACH, "cannot be reached: {}"),
    (r"(.*(?:[Bb]ad configuration option|Bad SSH2).*)", errno.EINVAL, "ssh does not take it: {}"),
)

# How it says that the connection has ended before there was a session.
_OF_HANGING_UP = re.compile(
    r"kex_exchange_identification: |banner exchange: |(?:ssh_dispatch_run_fatal: )?Connection "
)

# What it says when there is no speaking with the server.
_NO_SPEAKING = (
    (
        r"(Unable to negotiate .*)",
        errno.EPROTO,
        "no common algorithms with the server: {0}{advice}",
    ),
    (
        r"(?:kex_exchange_identification|banner exchange): "
        r".*(?:Connection closed by remote host|Connection reset by peer|Broken pipe).*",
        errno.EPROTO,
        HUNG_UP,
    ),
    (
        r"(?:kex_exchange_identification|banner exchange): (.*)",
        errno.EPROTO,
        "no SSH server there, or a broken one: {}",
    ),
    (
        r"Received disconnect from .* port \d+:\d+: ?(.+)",
        errno.ECONNRESET,
        "the server closed the connection before the login: it says '{}'",
    ),
    (r".*(?:Connection timed out|not responding).*", errno.ETIMEDOUT, "the server does not answer"),
    (
        r".*(?:[Cc]onnection (?:closed|reset)|Broken pipe|closed by remote).*",
        errno.ECONNRESET,
        "the server closed the connection before the login",
    ),
)


# Of ssh_config(5), by what ssh calls an algorithm of each.
_WORDS = {
    "key exchange method": "KexAlgorithms",
    "host key type": "HostKeyAlgorithms",
    "cipher": "Ciphers",
    "MAC": "MACs",
}


def _filled(text: str, match: re.Match[str]) -> str:
    advice = ""
    offer = re.fullmatch(r".*: no matching (.*) found\. Their offer: ([^, ]+).*", match[0])
    if offer is not None and offer[1] in _WORDS:
        word, name = _WORDS[offer[1]], offer[2]
        write = f"pass ciphers='+{name}'" if word == "Ciphers" else f"write {word} +{name} into the"
        into = "" if word == "Ciphers" else " config file"
        advice = f": {write}{into}, if ssh knows it (ssh -Q {word}) and it is to be trusted"
    return text.format(*match.groups(), advice=advice)


def _hung_up(said: Said) -> str:
    if not said.proxy_command:
        return HUNG_UP
    # ssh tells nobody how its command has ended, which may have said so itself.
    words = "; ".join([line for line in said.own_lines if not _OF_HANGING_UP.match(line)][-3:])
    text = f"ProxyCommand {said.proxy_command!r} failed{f' ({words})' if words else ''}: {BY_HAND}"
    return text if words else f"{text}. If it does connect, {HUNG_UP}"


def _connection_error(login: Login, said: Said, hops: Sequence[Said]) -> LoginError:
    refused = (hop.find(r"channel \d+: open failed: (.*)") for hop in hops)
    if match := next(filter(None, refused), None):
        return login.no_connection(errno.EHOSTUNREACH, f"its hop cannot connect to it: {match[1]}")
    for patterns, find in ((_NO_WAY, Said.find_own), (_NO_SPEAKING, Said.find)):
        for pattern, code, text in patterns:
            for each in (*hops, said):
                if match := find(each, pattern):
                    whose = "" if each is said else "a hop: "
                    filled = _hung_up(each) if text == HUNG_UP else _filled(text, match)
                    return login.no_connection(code, whose + filled)
    last = "; ".join(each.last for each in (*hops, said) if each.last)
    return login.no_connection(
        errno.EPROTO, f"ssh has ended, after the words {last!r}" if last else "ssh has ended"
    )
