"""The authentication protocol (RFC 4252 and RFC 4256): one request, one answer.

Built on paramiko's handler, of which little is left: it signs with every key at once, runs the
user's questions on the session's thread, and keeps the server's list of methods to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import MSG_USERAUTH_FAILURE, MSG_USERAUTH_REQUEST, MSG_USERAUTH_SUCCESS
from paramiko.message import Message

from ..wire import Reader, pack_string
from .publickey import PublicKey

__all__ = [
    "Answer",
    "Failure",
    "InfoRequest",
    "KeyAccepted",
    "NewPasswordWanted",
    "Success",
    "Userauth",
]

# Its meaning depends on the method (RFC 4252, section 6).
_MSG_60 = 60
_INFO_RESPONSE = 61

_SERVICE = "ssh-connection"

# Answers that wait at most: a server gives one to each request.
_MAX_WAITING = 8

# Seconds between looks at whether the session is still there.
_STEP = 0.2


@dataclass(frozen=True)
class Success:
    """We are in."""


@dataclass(frozen=True)
class Failure:
    """We are not in, or not yet."""

    methods: tuple[str, ...]
    """What may be tried next."""

    partial: bool
    """Whether the request was granted, and something else is wanted on top."""


@dataclass(frozen=True)
class KeyAccepted:
    """A signature by the key would let us in."""


@dataclass(frozen=True)
class NewPasswordWanted:
    """The password has to be changed."""

    prompt: str


@dataclass(frozen=True)
class InfoRequest:
    """Questions to the user."""

    name: str
    instruction: str
    prompts: tuple[tuple[str, bool], ...]
    """The questions, and whether what is typed may be seen."""


Answer = Success | Failure | KeyAccepted | NewPasswordWanted | InfoRequest


class Userauth(AuthOnlyHandler):  # type: ignore[misc]
    """The client's side, for one thread: that which logs in.

    The session's thread hands it the server's messages.
    """

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__(transport)
        # What the server says; `None` when the session has ended.
        self._messages: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._user = ""

    # The requests, each named so that it hides nothing of paramiko's. All of them raise what ended
    # the session, if it has.

    def try_none(self, user: str) -> Answer:
        """Ask for the methods; some servers let everybody in."""
        return self._request(user, "none", b"")

    def try_query(self, user: str, key: PublicKey) -> Answer:
        """Ask whether a signature by `key` would be accepted."""
        algorithm = self.algorithm(key)
        body = b"\0" + pack_string(algorithm) + pack_string(key.blob)
        return self._request(user, "publickey", body)

    def try_publickey(
        self, user: str, key: PublicKey, sign: Callable[[bytes, str], bytes]
    ) -> Answer:
        """Log in with `key`; ``sign(data, algorithm)`` returns the signature."""
        algorithm = self.algorithm(key)
        body = b"\1" + pack_string(algorithm) + pack_string(key.blob)
        signed = pack_string(self.transport.session_id) + _head(user, "publickey") + body
        return self._request(user, "publickey", body + pack_string(sign(signed, algorithm)))

    def try_password(self, user: str, password: str) -> Answer:
        """Log in with a password."""
        return self._request(user, "password", b"\0" + pack_string(password))

    def try_keyboard_interactive(self, user: str) -> Answer:
        """Ask for the server's questions."""
        return self._request(user, "keyboard-interactive", pack_string("") * 2)

    def respond(self, responses: list[str]) -> Answer:
        """Answer the server's questions."""
        body = b"".join(map(pack_string, responses))
        self._send(bytes([_INFO_RESPONSE]) + len(responses).to_bytes(4, "big") + body)
        return self._answer()

    def algorithm(self, key: PublicKey) -> str:
        """Choose how to sign with `key`.

        Raises:
            paramiko.SSHException: there is no way that the server takes.
        """
        algorithm: str = self._finalize_pubkey_algorithm(key.type)
        return algorithm

    def _request(self, user: str, method: str, body: bytes) -> Answer:
        self.auth_method = method
        self._send(_head(user, method) + body)
        return self._answer()

    def _send(self, data: bytes) -> None:
        self.transport._send_message(Message(data))

    def _answer(self) -> Answer:
        message = self._next_message()
        if message is None:
            raise self.transport.get_exception() or EOFError()
        kind, data = message
        if kind == MSG_USERAUTH_SUCCESS:
            return Success()
        try:
            reader = Reader(data)
            if kind == MSG_USERAUTH_FAILURE:
                return Failure(tuple(reader.text().split(",")), reader.boolean())
            if self.auth_method == "publickey":
                return KeyAccepted()
            if self.auth_method == "password":
                return NewPasswordWanted(reader.text())
            if self.auth_method == "keyboard-interactive":
                return _info_request(reader)
        except ValueError as exc:
            raise paramiko.SSHException(f"a malformed answer: {exc}") from exc
        raise paramiko.SSHException("an answer to no question")

    def _next_message(self) -> tuple[int, bytes] | None:
        while self.transport.is_active() or not self._messages.empty():
            # A session that ended before it knew this handler does not call abort().
            with suppress(Empty):
                return self._messages.get(timeout=_STEP)
        return None

    # For paramiko, on the session's thread

    def abort(self) -> None:
        """Tell whoever waits that the session has ended."""
        self._messages.put(None)

    @property
    def _client_handler_table(self) -> dict[int, Any]:
        if self.authenticated:
            # As with OpenSSH, they have no meaning any more.
            return {}
        table: dict[int, Any] = {
            **super()._client_handler_table,
            MSG_USERAUTH_FAILURE: self._on_failure,
            _MSG_60: self._on_60,
        }
        return table

    def _parse_userauth_success(self, m: Message) -> None:
        super()._parse_userauth_success(m)
        self._messages.put((MSG_USERAUTH_SUCCESS, b""))

    def _on_failure(self, m: Message) -> None:
        self._put(MSG_USERAUTH_FAILURE, m)

    def _on_60(self, m: Message) -> None:
        self._put(_MSG_60, m)

    def _put(self, kind: int, m: Message) -> None:
        if self._messages.qsize() >= _MAX_WAITING:
            raise paramiko.SSHException("the server answers what it was not asked")
        self._messages.put((kind, m.get_remainder()))


def _head(user: str, method: str) -> bytes:
    words = b"".join(map(pack_string, (user, _SERVICE, method)))
    return bytes([MSG_USERAUTH_REQUEST]) + words


def _info_request(reader: Reader) -> InfoRequest:
    name, instruction = reader.text(), reader.text()
    reader.string()  # a language
    prompts = tuple((reader.text(), reader.boolean()) for _ in range(reader.uint32()))
    return InfoRequest(name, instruction, prompts)
