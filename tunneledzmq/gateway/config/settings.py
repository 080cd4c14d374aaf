"""What a config file says for one server, with tokens replaced."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ...shared.names import parse_server
from ...shared.system.advice import HAS_OPENSSH
from ..login import LoginError, Request
from .addresses import canonical_host, is_address, lower
from .files import Statement
from .hops import Hop
from .tokens import HOST_NAME_TOKENS, PROXY_TOKENS, Tokens
from .words import HONOURED, REFUSED

__all__ = ["DEFAULT_PORT", "Settings"]

logger = logging.getLogger("tunneledzmq")

S = TypeVar("S")
T = TypeVar("T")

DEFAULT_PORT = 22


class Settings:
    """What the config file says for one server."""

    def __init__(self, request: Request, found: dict[str, list[Statement]]) -> None:
        self._request = request
        self._found = found
        # With HostName replaced, and all that tokens stand for.
        self.tokens = Tokens(
            host_argument=request.host,
            host=self._host(),
            port=self.get("port", DEFAULT_PORT),
            user=self.get("user", request.local_user),
            local_user=request.local_user,
            home=request.home,
            host_key_alias=lower(self.get("hostkeyalias", "")) or None,
            jump=next((hop.host for hop in reversed(self.get("proxyjump", []))), ""),
        )

    def get(self, word: str, default: Any = None) -> Any:
        """Return the value of a word, which is the first that was given."""
        return self._found[word][0].value if word in self._found else default

    def path(self, word: str) -> str | None:
        """Return the path that stands behind a word, if one does."""
        value: str | None = self.get(word)
        return None if value is None else self._expand(self._found[word][0], self._path, value)

    def paths(self, word: str) -> list[str]:
        """Return the paths of a word that adds up."""
        lines = [line for line in self._found.get(word, ()) if line.value.lower() != "none"]
        return list(dict.fromkeys(self._expand(line, self._path, line.value) for line in lines))

    def path_list(self, word: str) -> list[str]:
        """Return the paths of a word that takes several."""
        return self._list(word, self._path)

    def plain_path_list(self, word: str) -> list[str]:
        """Return the paths of a word that takes several, and in them only ``~``."""
        return self._list(word, self._plain_path)

    def proxy(self) -> tuple[list[str], str | None]:
        """Return the hops, and the ProxyCommand: what comes first counts."""
        if self._request.jump == "given":
            return [], None
        hops, command = self._found.get("proxyjump"), self._found.get("proxycommand")
        words = [word for word in self._found if word in ("proxyjump", "proxycommand")]
        if self._request.jump == "none":
            hops = None
        # "ProxyJump none" leaves a ProxyCommand alone, "ProxyCommand none" no ProxyJump.
        if hops and hops[0].value and words[0] == "proxyjump":
            line = hops[0]
            return [self._expand(line, self._hop, hop) for hop in line.value], None
        if command and command[0].value is not None:
            return [], self._expand(command[0], self._proxy_command, command[0].value)
        return [], None

    def refuse(self) -> None:
        """Raise where a word is set that we do not honour and that must not be left out.

        Raises:
            LoginError: there is one, or the connection is refused by the file itself.
        """
        if "refuseconnection" in self._found:
            line = self._found["refuseconnection"][0]
            raise self._error(line, f"the connection is refused: {line.value}", errno.EACCES)
        for word in self._found.keys() & REFUSED.keys():
            line, refusal = self._found[word][0], REFUSED[word]
            if word == "checkhostip" and not self._checks_address():
                continue
            if line.value not in refusal.harmless:
                other = "use backend='openssh', or " if HAS_OPENSSH else ""
                raise self._error(
                    line,
                    f"{line.word} changes {refusal.changes}, and backend='sshtunnel' does not "
                    f"support it: {other}take {line.word} away for this host",
                    errno.ENOTSUP,
                )
        others = [word for word in self._found if word not in HONOURED]
        if others:
            lines = (self._found[word][0] for word in others)
            text = ", ".join(f"{line.word} ({line.where})" for line in lines)
            logger.debug("%s: of the config file, these have no effect: %s", self.tokens.host, text)

    def _checks_address(self) -> bool:
        """Tell whether CheckHostIP makes a difference."""
        direct = self._request.jump != "given" and self.proxy() == ([], None)
        return direct and not is_address(self.tokens.host)

    def _list(self, word: str, expand: Callable[[str], str]) -> list[str]:
        line = self._found[word][0]
        return [self._expand(line, expand, each) for each in line.value]

    def _plain_path(self, text: str) -> str:
        return os.path.join(self._request.directory, self.tokens.expand_home(text))

    def _path(self, text: str) -> str:
        return os.path.join(self._request.directory, self.tokens.expand_path(text))

    def _host(self) -> str:
        asked = Tokens(self._request.host, self._request.host, 0, "", "", "")
        host = asked.host
        if "hostname" in self._found:
            line = self._found["hostname"][0]
            host = self._expand(line, lambda text: asked.expand(text, HOST_NAME_TOKENS), line.value)
        return canonical_host(host, self.get("addressfamily", socket.AF_UNSPEC))

    def _hop(self, hop: Hop) -> str:
        host = self.tokens.expand(hop.host, PROXY_TOKENS)
        user = None if hop.user is None else self.tokens.expand(hop.user, PROXY_TOKENS)
        text = str(Hop(user, host, hop.port))
        parse_server(text)
        return text

    def _proxy_command(self, text: str) -> str:
        if text == "-":
            raise ValueError("ProxyCommand - speaks over standard input, which is the program's")
        return self.tokens.expand_command(text, PROXY_TOKENS)

    def _expand(self, line: Statement, expand: Callable[[S], T], text: S) -> T:
        try:
            return expand(text)
        except ValueError as exc:
            raise self._error(line, str(exc)) from None

    def _error(self, line: Statement, text: str, code: int = errno.EINVAL) -> LoginError:
        return LoginError("TunnelError", code, f"{self._request.host}: {line.where}: {text}")
