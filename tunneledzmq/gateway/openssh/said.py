"""What ssh says on its standard error, and what it means."""

from __future__ import annotations

import errno
import logging
import re
from collections import deque

from ..login import Login, LoginError
from ..refusal import CONNECT_FAILED, PROHIBITED, refusal
from ..text import printable

__all__ = ["Said", "login_error"]

debug_log = logging.getLogger("tunneledzmq.openssh")

# Lines kept: as many as ssh says about a login, with a banner of the server among them.
_MAX_LINES = 300
_MAX_LINE = 1024

_STDIO_FORWARD = re.compile(r"channel_connect_stdio_fwd: (.*):(\d+)$")
_NEW_CHANNEL = re.compile(r"channel (\d+): new .*stdio-forward")
_OPEN_FAILED = re.compile(r"channel (\d+): open failed: (.*)")

# ssh's words for the codes of RFC 4254, section 5.1.
_CODES = {
    "administratively prohibited": PROHIBITED,
    "connect failed": CONNECT_FAILED,
    "unknown channel type": 3,
    "resource shortage": 4,
}


class Said:
    """What one ssh has said up to now."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_MAX_LINES)
        """Without what is for debugging."""

        self.authenticated = False
        """It has logged in; its control socket follows."""

        self.host_key = ""
        """The server's, as type and fingerprint."""

        self._steps: list[tuple[str, str]] = []
        self._partial = b""
        # Where the channel leads that is made next, and those that are open or were refused.
        self._next_remote = ("", 0)
        self._remotes: dict[int, tuple[str, int]] = {}
        self._refusals: dict[tuple[str, int], str] = {}

    def feed(self, data: bytes) -> None:
        """Take what it says."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-_MAX_LINE:]
        for line in lines:
            text = printable(line.strip(), _MAX_LINE)
            if text:
                debug_log.debug("%s", text)
                self._note(text)

    def _note(self, text: str) -> None:
        if not text.startswith("debug"):
            self.lines.append(text)
            if match := _OPEN_FAILED.match(text):
                remote = self._remotes.get(int(match[1]))
                if remote is not None:
                    self._refusals[remote] = match[2]
            elif text.startswith("Authenticated to "):
                self.authenticated = True
                self._steps.append(("authenticate", text))
            return
        _, _, text = text.partition(": ")
        if text.startswith("Server host key: "):
            self.host_key = text.removeprefix("Server host key: ")
        elif text.startswith("Remote protocol version "):
            self._steps.append(("banner", text))
        elif " is known and matches the " in text:
            self._steps.append(("host key", self.host_key))
        elif match := _STDIO_FORWARD.match(text):
            self._next_remote = (match[1], int(match[2]))
        elif match := _NEW_CHANNEL.match(text):
            self._remotes[int(match[1])] = self._next_remote

    def steps(self) -> list[tuple[str, str]]:
        """Return what has been done since the last call, by the names of ``tunneledzmq check``."""
        steps, self._steps = self._steps, []
        return steps

    def refusal(self, host: str, port: int) -> str:
        """Say why the server did not connect to an address; nothing if it did not say why."""
        reason = self._refusals.get((host, port), "")
        kind, _, text = reason.partition(": ")
        return refusal(_CODES.get(kind, 0), text or reason) if reason else ""

    def why_lost(self) -> str:
        """Say why the session has ended."""
        for line in reversed(self.lines):
            if line.startswith("Timeout, server "):
                return "the server does not answer any more"
            if re.search(
                r"closed by|Connection reset|Broken pipe|Connection to .* timed out", line
            ):
                return f"the server closed the connection ({line})"
            if not line.startswith(("channel ", "Authenticated ", "Transferred", "Bytes per")):
                return f"ssh has ended ({line})"
        return "ssh has ended"

    def find(self, pattern: str) -> re.Match[str] | None:
        """Search the lines, the last one first."""
        for line in reversed(self.lines):
            if match := re.search(pattern, line):
                return match
        return None


def login_error(login: Login, said: Said) -> LoginError:
    """Make the error for a login that has failed, out of what ssh says about it."""
    return (
        _host_key_error(login, said)
        or _authentication_error(login, said)
        or _connection_error(login, said)
    )


def changed_host_key(said: Said) -> str:
    """Say that the host key has changed; nothing if it has not."""
    if not said.find("HOST IDENTIFICATION HAS CHANGED"):
        return ""
    where = said.find(r"Offending .* key in (.*)")
    remove = said.find(r"^(ssh-keygen .*)")
    return (
        f"the host key has changed: the server has {_host_key(said)}, known_hosts has another one "
        f"({where[1] if where else 'unknown'}). Somebody may be listening in between. If the "
        f"server really has a new key: {remove[1] if remove else 'ssh-keygen -R'}"
    )


def _host_key(said: Said) -> str:
    return said.host_key or "another one"


def _host_key_error(login: Login, said: Said) -> LoginError | None:
    if not said.find("Host key verification failed"):
        return None
    if said.find("REVOKED HOST KEY|marked as revoked"):
        text = f"the host key {_host_key(said)} is marked as revoked in known_hosts"
        return login.no_trust(errno.EACCES, text)
    if changed := changed_host_key(said):
        return login.no_trust(errno.EACCES, changed, "HostKeyChangedError")
    unknown = said.find(r"No (\S+) host key is known for (\S+) and")
    if unknown is None:
        text = "; ".join(list(said.lines)[-3:])
        return login.no_trust(errno.EACCES, f"the host key is not accepted: {text}")
    kind, name = unknown[1].lower(), unknown[2]
    # A hop that ssh goes over by itself has a name of its own here.
    match = re.fullmatch(r"\[(.+)\]:(\d+)", name)
    host, port = (match[1], match[2]) if match else (name, "22")
    of_hop = (host, port) != (login.host, str(login.port)) and not login.host_key_alias
    file = (login.user_known_hosts or ["~/.ssh/known_hosts"])[0]
    key = f"of the hop {name}" if of_hop else _host_key(said)
    return login.no_trust(
        errno.EACCES,
        f"the host key {key} is not in {', '.join(login.user_known_hosts)}. If that is the "
        f"server's fingerprint: ssh-keyscan -p {login.port if not of_hop else port} -t {kind} "
        f"{login.host if not of_hop else host} >> {file} "
        "(or strict_host_key_checking='accept-new')",
        "UnknownHostKeyError",
    )


def _authentication_error(login: Login, said: Said) -> LoginError | None:
    unusable = said.find(r'Load key "(.*?)": (.*)')
    unprotected = said.find(r"Permissions \d+ for '(.*)' are too open")
    if unprotected:
        advice = (
            f"; the key file {unprotected[1]} can be read by others: chmod 600 {unprotected[1]}"
        )
    elif unusable and unusable[1] in (login.keyfiles or ()):
        advice = f"; the key file {unusable[1]} cannot be used: {unusable[2]}"
    else:
        advice = ""
    if broken := said.find(r"Received disconnect from .*?: ?\d*:? ?(Too many authentication.*)"):
        return login.no_entry(
            errno.EACCES,
            f"the server broke the login off: {broken[1]}; with many keys in the agent, name the "
            f"right one with keyfile= and set agent=False{advice}",
        )
    if denied := said.find(r"(\S+): Permission denied \((.*)\)"):
        who = login.user if denied[1] == f"{login.user}@{login.host}" else denied[1]
        tried = ", ".join(login.keyfiles or ["the default keys"])
        return login.no_entry(
            errno.EACCES,
            f"the server did not let {who!r} in with {tried}; it accepts {denied[2]}. Is the "
            f"public key in its authorized_keys, and the user name right?{advice}",
        )
    return None


# What ssh says when it cannot connect, in the order in which it tells most.
_CONNECTION_ERRORS = (
    (r"Could not resolve hostname (.*)", errno.EHOSTUNREACH, "the name was not found: {}"),
    (
        r"connect to .*: Connection refused",
        errno.ECONNREFUSED,
        "the connection was refused: does an SSH server listen on that port?",
    ),
    (r"connect to .*: (.*timed out.*)", errno.ETIMEDOUT, "cannot be reached: {}"),
    (r"connect to .*: (.*)", errno.EHOSTUNREACH, "cannot be reached: {}"),
    (r"(Unable to negotiate .*)", errno.EPROTO, "no common algorithms with the server: {}"),
    (r"(.*(?:[Bb]ad configuration option|Bad SSH2).*)", errno.EINVAL, "ssh does not take it: {}"),
    (
        r"(?:kex_exchange_identification|banner exchange): (.*)",
        errno.EPROTO,
        "no SSH server there, or a broken one: {}",
    ),
    (r"Connection timed out|not responding", errno.ETIMEDOUT, "the server does not answer"),
    (
        r"[Cc]onnection (?:closed|reset)|Broken pipe|closed by remote",
        errno.ECONNRESET,
        "the server closed the connection before the login",
    ),
)


def _connection_error(login: Login, said: Said) -> LoginError:
    for pattern, code, text in _CONNECTION_ERRORS:
        if match := said.find(pattern):
            return login.no_connection(code, text.format(*match.groups()))
    last = "; ".join(list(said.lines)[-3:])
    return login.no_connection(errno.EPROTO, f"ssh has ended{': ' + last if last else ''}")
