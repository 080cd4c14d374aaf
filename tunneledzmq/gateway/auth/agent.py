"""The user's ssh-agent (draft-miller-ssh-agent), which signs with keys that it holds.

``paramiko.Agent`` finds its agent by the environment alone, and waits for it without end.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..login import Login
from ..wire import Reader, pack_string
from .door import exchange, usual_door
from .publickey import PublicKey

__all__ = ["Agent", "AgentError", "AgentTimeout"]

_REQUEST_IDENTITIES = 11
_IDENTITIES_ANSWER = 12
_SIGN_REQUEST = 13
_SIGN_RESPONSE = 14

# Which hash an RSA key is to sign with.
_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}


class AgentError(Exception):
    """The agent does not do what it was asked for; the text says why."""


class AgentTimeout(AgentError):
    """The agent does not answer."""


class Agent:
    """The agent behind a door.

    Each request takes a connection of its own, so that there is none to be left open.

    Args:
        path: the door.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def find(cls, login: Login) -> Agent | None:
        """Return the agent that `login` names, if any."""
        path = login.identity_agent
        if not login.agent or path == "none":
            return None
        if path in (None, "SSH_AUTH_SOCK"):
            path = os.environ.get("SSH_AUTH_SOCK") or usual_door()
        elif path.startswith("$"):
            path = os.environ.get(path[1:].removeprefix("{").removesuffix("}"))
        return cls(path) if path else None

    def keys(self, timeout: float) -> list[tuple[PublicKey, str]]:
        """List its keys, with their comments.

        Raises:
            AgentTimeout: it does not answer within `timeout` seconds.
            AgentError: it is not there, or does not speak the protocol.
        """
        kind, answer = self._ask(bytes([_REQUEST_IDENTITIES]), timeout, _always)
        if kind != _IDENTITIES_ANSWER:
            raise AgentError("it does not list its keys")
        try:
            pairs = [(answer.string(), answer.text()) for _ in range(answer.uint32())]
        except ValueError as exc:
            raise AgentError(f"its list of keys is malformed: {exc}") from exc
        found = []
        for blob, comment in pairs:
            try:
                found.append((PublicKey(blob), comment))
            except ValueError:
                continue  # of no use, but the others are
        return found

    def sign(
        self,
        key: PublicKey,
        data: bytes,
        algorithm: str,
        timeout: float,
        wanted: Callable[[], bool],
    ) -> bytes:
        """Have `data` signed.

        Args:
            key: one of its keys, or a certificate for one.
            data: what to sign.
            algorithm: the signature's.
            timeout: seconds, in which the user may have to confirm.
            wanted: tells whether the signature still is.

        Raises:
            AgentTimeout: it does not answer in time.
            AgentError: it refuses.
        """
        flags = _FLAGS.get(algorithm.removesuffix("-cert-v01@openssh.com"), 0)
        request = bytes([_SIGN_REQUEST]) + pack_string(key.blob) + pack_string(data)
        kind, answer = self._ask(request + flags.to_bytes(4, "big"), timeout, wanted)
        if kind != _SIGN_RESPONSE:
            raise AgentError("it refused to sign")
        try:
            return answer.string()
        except ValueError as exc:
            raise AgentError(f"its signature is malformed: {exc}") from exc

    def _ask(
        self, request: bytes, timeout: float, wanted: Callable[[], bool]
    ) -> tuple[int, Reader]:
        try:
            answer = exchange(self.path, request, timeout, wanted)
        except TimeoutError as exc:
            raise AgentTimeout(f"it did not answer within {timeout:.3g} s") from exc
        except OSError as exc:
            raise AgentError(exc.strerror or str(exc)) from exc
        return answer[0], Reader(answer[1:])


def _always() -> bool:
    return True
