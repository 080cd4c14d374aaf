"""What ssh asks for while it logs in: a connection to the server, passwords, passphrases."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import socket
from contextlib import suppress

from ..questions import Questions
from .command import OpenSSHLogin, helper_command

__all__ = ["Answers"]

logger = logging.getLogger("tunneledzmq")

_PASSPHRASE = re.compile(r"Enter passphrase for (?:key )?'?(.*?)'?: *$")
_PASSWORD = re.compile(r"password.*: *$", re.IGNORECASE)

# How much of a key's path ssh repeats in its prompt.
_SHOWN = 100

# Seconds for a helper to say what it was started for.
_TIMEOUT = 5.0
_MAX_QUESTION = 1 << 16


class Answers:
    """Listens for the helpers that ssh starts (see :mod:`helper`).

    What they ask for never stands in a command line or an environment.

    Args:
        login: the secrets that are known; each is given once, since a second question means that
            it was wrong.
        questions: where the program's user is asked for all others.
        directory: a private one.
        connection: the connection to the server, unless ssh makes it itself.

    Raises:
        OSError: it cannot listen.
    """

    def __init__(
        self,
        login: OpenSSHLogin,
        questions: Questions,
        directory: str,
        connection: socket.socket | None,
    ) -> None:
        self.path = os.path.join(directory, "ask")
        self.askpass = os.path.join(directory, "askpass")
        self._login = login
        self._questions = questions
        self._connection = connection
        self._given: set[str] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
            self._listener.bind(self.path)
            os.chmod(self.path, 0o600)
            self._listener.listen(16)
            self._write_askpass()
        except BaseException:
            self._listener.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to select on for :meth:`answer`."""
        return self._listener.fileno()

    def _write_askpass(self) -> None:
        """Write the one program that SSH_ASKPASS can name."""
        command = shlex.join(helper_command(self.path, "prompt"))
        with suppress(FileNotFoundError):
            os.unlink(self.askpass)
        descriptor = os.open(self.askpass, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        with open(descriptor, "w") as script:
            script.write(f'#!/bin/sh\nexec {command} "$1"\n')

    def answer(self) -> None:
        """Answer one helper.

        Raises:
            LoginError: there is no answer, and no use in going on.
        """
        helper, _ = self._listener.accept()
        with helper, suppress(OSError):  # it may be gone again
            helper.settimeout(_TIMEOUT)
            question = b""
            while data := helper.recv(4096):
                question += data
                if len(question) > _MAX_QUESTION:
                    return
            what, kind, text = question.decode(errors="replace").split("\0", 2)
            if what == "connection":
                self._hand_over(helper)
            elif kind == "none":
                logger.warning("%s: %s", self._login.server, text)
            elif (answer := self._find(text)) is not None:
                helper.sendall(b"=" + answer.encode())

    def _hand_over(self, helper: socket.socket) -> None:
        if self._connection is not None:
            socket.send_fds(helper, [b"\0"], [self._connection.fileno()])
            # It is ssh's alone from now on, which tells the server when it closes it.
            self._connection.close()
            self._connection = None

    def _find(self, text: str) -> str | None:
        if match := _PASSPHRASE.search(text):
            return self._passphrase(match[1], text)
        answer = None
        if self._is_password(text):
            answer = self._known("password", self._login.password)
        answer = self._ask(text) if answer is None else answer
        if answer is None:
            wrong = "password" in self._given
            raise self._login.no_entry(
                errno.EACCES,
                f"the server did not let {self._login.user!r} in with the password, and there is "
                "nobody to ask for another one"
                if wrong
                else f"there is nobody to ask for {text.strip().rstrip(':')!r}: pass password= or "
                "prompt=, or a key that opens without",
            )
        return answer

    def _passphrase(self, path: str, text: str) -> str | None:
        named = next((k for k in self._login.keyfiles or () if k[:_SHOWN] == path[:_SHOWN]), None)
        tried = f"passphrase of {path}" in self._given and self._login.passphrase is not None
        answer = self._known(f"passphrase of {path}", self._login.passphrase)
        answer = self._ask(text) if answer is None else answer
        if answer is None and named is not None:
            raise self._login.no_entry(
                errno.EACCES,
                f"the passphrase for the key file {named} is wrong"
                if tried
                else f"the key file {named} is encrypted: pass passphrase=",
            )
        return answer  # without one, ssh passes a key over that was not named

    def _known(self, name: str, secret: str | None) -> str | None:
        if name in self._given:
            return None
        self._given.add(name)
        return secret

    def _is_password(self, text: str) -> bool:
        if not _PASSWORD.search(text):
            return False
        if not self._login.connects_itself:
            return True
        # It may be a hop that asks, which the password is not for.
        host = self._login.host_key_alias or self._login.host
        user = self._login.user
        return text.startswith((f"{user[:30]}@{host[:128]}'s ", f"({user}@{host}) "))

    def _ask(self, text: str) -> str | None:
        return None if self._login.batch_mode else self._questions.prompt(text, echo=False)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        if self._connection is not None:
            self._connection.close()
        for path in (self.path, self.askpass):
            with suppress(OSError):
                os.unlink(path)

    def after_fork(self) -> None:
        """Close a forked child's copies of the sockets."""
        self._listener.close()
        if self._connection is not None:
            self._connection.close()
