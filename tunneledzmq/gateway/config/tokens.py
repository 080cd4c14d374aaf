"""``%h``, ``~`` and ``${HOME}``: what ssh_config(5) lets stand for something else."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass

from ...shared.names import is_valid_host, is_valid_user
from ...shared.system.account import user_id

__all__ = ["HOST_NAME_TOKENS", "PROXY_TOKENS", "Tokens"]

# TOKENS in ssh_config(5).
HOST_NAME_TOKENS = "h"
PROXY_TOKENS = "hknpr"
_ALL_TOKENS = "CLdhijklnpru"

# Those that stand for a name, wherever it came from.
_HOST_TOKENS = frozenset("hkn")
_USER_TOKENS = frozenset("ru")

_TOKEN = re.compile(r"%(.?)", re.DOTALL)
_TOKEN_OR_VARIABLE = re.compile(r"%(.?)|\$\{([^}]*)(\}?)", re.DOTALL)


@dataclass(frozen=True)
class Tokens:
    """What the tokens stand for, as far as it is known."""

    host_argument: str
    host: str
    port: int
    user: str
    local_user: str
    home: str
    host_key_alias: str | None = None
    jump: str = ""

    def expand(self, text: str, tokens: str = _ALL_TOKENS) -> str:
        """Replace ``%`` tokens.

        Args:
            tokens: those that are allowed, besides ``%%``.

        Raises:
            ValueError: there is another one.
        """
        return _TOKEN.sub(lambda match: self._token(match[1], tokens), text)

    def expand_command(self, text: str, tokens: str = _ALL_TOKENS) -> str:
        """Replace ``%`` tokens in what a shell is to read, unquoted.

        Args:
            tokens: those that are allowed, besides ``%%``.

        Raises:
            ValueError: there is another one, or one stands for what a shell would take for more
                than a name.
        """
        return _TOKEN.sub(lambda match: self._checked_token(match[1], tokens), text)

    def expand_path(self, text: str) -> str:
        """Replace ``~``, ``%`` tokens, and ``${NAME}`` by variables of the environment.

        Raises:
            ValueError: an unknown token, user or variable.
        """
        return _TOKEN_OR_VARIABLE.sub(self._token_or_variable, self.expand_home(text))

    def expand_home(self, text: str) -> str:
        """Replace ``~`` and ``~user`` at the beginning.

        Raises:
            ValueError: there is no such user.
        """
        if not text.startswith("~"):
            return text
        if text == "~" or text.startswith("~/"):
            return os.path.join(self.home, text[1:].lstrip("/"))
        path = os.path.expanduser(text)
        if path == text:
            raise ValueError(f"no such user: {text.partition('/')[0]}")
        return path

    def _checked_token(self, letter: str, tokens: str) -> str:
        name = self._token(letter, tokens)
        if letter in _HOST_TOKENS and not is_valid_host(name):
            raise ValueError(f"%{letter}: the host name {name!r} contains invalid characters")
        if letter in _USER_TOKENS and not is_valid_user(name):
            raise ValueError(f"%{letter}: the user name {name!r} contains invalid characters")
        return name

    def _token_or_variable(self, match: re.Match[str]) -> str:
        if match[1] is not None:
            return self._token(match[1], _ALL_TOKENS)
        name, closed = match[2], match[3]
        if not closed or not name:
            raise ValueError(f"environment variable ${{{name} is not complete")
        if name not in os.environ:
            raise ValueError(f"the environment variable ${{{name}}} is not set")
        return os.environ[name]

    def _token(self, letter: str, tokens: str) -> str:
        if letter == "%":
            return "%"
        if not letter or letter not in tokens:
            raise ValueError(f"unknown token %{letter}" if letter else "a % at the end")
        if letter == "C":
            parts = (socket.gethostname(), self.host, str(self.port), self.user)
            # RFC or not, it is OpenSSH's choice, and proves nothing.
            digest = hashlib.sha1("".join(parts).encode(errors="surrogateescape"))
            return digest.hexdigest()
        values = {
            "L": socket.gethostname().partition(".")[0],
            "d": self.home,
            "h": self.host,
            "i": str(user_id()),
            "j": self.jump,
            "k": self.host_key_alias or self.host_argument,
            "l": socket.gethostname(),
            "n": self.host_argument,
            "p": str(self.port),
            "r": self.user,
            "u": self.local_user,
        }
        return values[letter]
