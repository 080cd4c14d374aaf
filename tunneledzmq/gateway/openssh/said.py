"""What ssh says on its standard error."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Sequence

from ...shared.text import printable
from ..traffic.refusal import CONNECT_FAILED, PROHIBITED, refusal

__all__ = ["Said"]

debug_log = logging.getLogger("tunneledzmq.openssh")

# Lines kept: as many as ssh says about a login, with a banner of the server among them.
_MAX_LINES = 300
# Addresses of which it is kept why they were refused; it is asked for just after that is said.
_MAX_REFUSALS = 1000
# Characters of a line: as many as ssh shows of what a server says.
_MAX_LINE = 400

_STDIO_FORWARD = re.compile(r"channel_connect_stdio_fwd: (.*):(\d+)")
_NEW_CHANNEL = re.compile(r"channel (\d+): new .*stdio-forward.*")
_OPEN_FAILED = re.compile(r"channel (\d+): open failed: (.*)")
_VERSION = re.compile(r"Local version string SSH-2\.0-OpenSSH_\D*(\d+)\.(\d+).*")

# From then on the server may have ssh say what it likes: it is believed, or it is quoted.
_SERVER_SPEAKS_FROM = (
    "debug1: SSH2_MSG_SERVICE_ACCEPT received",
    "debug1: Remote: ",
    "Received disconnect from ",
    "Unable to negotiate with ",
    "channel ",
)

_IDENTITY_FILE = re.compile(r"identity file (.*) type -?\d+")
_IMPLICIT_COMMAND = "Setting implicit ProxyCommand from ProxyJump: "
_PROXY_COMMAND = "Executing proxy command: exec "
_KNOWN = re.compile(r"Host '.*' is known and matches the \S+ host key\.")

# Since then a server's question has the user and the host before it.
_NAMES_WHO_ASKS = (8, 5)

# ssh's words for the codes of RFC 4254, section 5.1.
_CODES = {
    "administratively prohibited": PROHIBITED,
    "connect failed": CONNECT_FAILED,
    "unknown channel type": 3,
    "resource shortage": 4,
}


class Said:
    """What one ssh has said up to now, and who can have said it.

    The server may have ssh say a text of its choice (a banner, the reason of a disconnect), which
    may look like what ssh says itself. So whole lines are compared, of which ssh has said the
    beginning; and what it says of names, connections and host keys must come before all that.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_MAX_LINES)
        """Without what is for debugging. What only goes on from the line before is indented."""

        self.own_lines: deque[str] = deque(maxlen=_MAX_LINES)
        """Those from before the server could have ssh say anything."""

        self.authenticated = False
        """It has logged in; its control socket follows."""

        self.host_key = ""
        """The server's, as type and fingerprint."""

        self.proxy_command = ""
        """What it has run in place of a connection to the server, if its config says so."""

        self.identity_files: list[str] = []
        """The key files that it looks for."""

        self.methods: list[str] = []
        """What it has tried to be let in with, the present method last."""

        self.answers = 0
        """How often the server has said which methods may go on."""

        self.names_who_asks = False
        """Whether it writes ``(user@host)`` before a server's question."""

        self._quotes = self._jumps = False
        self._steps: list[tuple[str, str]] = []
        # Where the channel leads that is made next, and those that are open or were refused.
        self._next_remote = ("", 0)
        self._remotes: dict[int, tuple[str, int]] = {}
        self._refusals: dict[tuple[str, int], str] = {}

    def add(self, statement: bytes) -> None:
        """Take what was said at once: a line, and maybe more that somebody had it say."""
        first, *others = statement.decode(errors="replace").splitlines() or [""]
        if text := _shown(first):
            self._note(text)
        for other in others:
            if text := _shown(other):
                debug_log.debug("    %s", text)
                self.lines.append(f"    {text}")

    def _note(self, text: str) -> None:
        debug_log.debug("%s", text)
        self._quotes = self._quotes or text.startswith(_SERVER_SPEAKS_FROM)
        if text.startswith("debug"):
            self._note_debug(text.partition(": ")[2])
            return
        self.lines.append(text)
        if not self._quotes:
            self.own_lines.append(text)
        if match := _OPEN_FAILED.fullmatch(text):
            remote = self._remotes.get(int(match[1]))
            if remote is not None:
                self._refusals.pop(remote, None)  # the last one comes last
                self._refusals[remote] = match[2]
                if len(self._refusals) > _MAX_REFUSALS:
                    del self._refusals[next(iter(self._refusals))]
        elif text.startswith("Authenticated to "):
            self.authenticated = True
            self._steps.append(("authenticate", text))

    def _note_debug(self, text: str) -> None:
        if text.startswith("Remote protocol version "):
            self._steps.append(("banner", text))
        elif text.startswith("Next authentication method: "):
            self.methods.append(text.removeprefix("Next authentication method: "))
        elif text.startswith("Authentications that can continue: "):
            self.answers += 1
        elif match := _STDIO_FORWARD.fullmatch(text):
            self._next_remote = (match[1], int(match[2]))
        elif match := _NEW_CHANNEL.fullmatch(text):
            self._remotes[int(match[1])] = self._next_remote
        elif self._quotes:
            return
        elif text.startswith(_IMPLICIT_COMMAND):
            self._jumps = True
        elif text.startswith(_PROXY_COMMAND) and not self._jumps:
            self.proxy_command = text.removeprefix(_PROXY_COMMAND)
        elif match := _IDENTITY_FILE.fullmatch(text):
            self.identity_files.append(match[1])
        elif match := _VERSION.fullmatch(text):
            self.names_who_asks = (int(match[1]), int(match[2])) >= _NAMES_WHO_ASKS
        elif text.startswith("Server host key: "):
            self.host_key = text.removeprefix("Server host key: ")
        elif _KNOWN.fullmatch(text):
            self._steps.append(("host key", self.host_key))

    @property
    def asks_for_passphrase(self) -> bool:
        """Whether it may be about to ask for the passphrase of a key."""
        return self.methods[-1:] == ["publickey"] and (
            self.names_who_asks or "keyboard-interactive" not in self.methods
        )

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
            if not line.startswith(
                ("channel ", "Authenticated ", "Transferred", "Bytes per", "    ")
            ):
                return f"ssh has ended ({line})"
        return "ssh has ended"

    def find(self, pattern: str) -> re.Match[str] | None:
        """Find a line that is as `pattern` says, all of it; the last one first."""
        return _find(pattern, self.lines)

    def find_own(self, pattern: str) -> re.Match[str] | None:
        """Find a line that the server cannot have had ssh say."""
        return _find(pattern, self.own_lines)

    @property
    def last(self) -> str:
        """The last lines, for a message that quotes them."""
        return "; ".join([line for line in self.lines if not line.startswith(" ")][-3:])

    @property
    def last_own(self) -> str:
        """The last lines that are ssh's own."""
        return "; ".join(list(self.own_lines)[-3:])


def _find(pattern: str, lines: Sequence[str]) -> re.Match[str] | None:
    compiled = re.compile(pattern)
    return next((match for line in reversed(lines) if (match := compiled.fullmatch(line))), None)


def _shown(line: str) -> str:
    return printable(line[:_MAX_LINE]).strip()
