"""What ssh asks for while it logs in: a connection to the server, passwords, passphrases."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import socket
from contextlib import suppress

from ...shared.text import printable, with_notes
from ..auth.passwords import (
    WRONG_PASSPHRASE,
    WRONG_PASSWORD,
    asks_password,
    may_ask_password,
)
from ..login import LoginError
from ..questions import Questions
from ..sshtunnel.identification import ZMTP, ZMTP_THERE
from .command import OpenSSHLogin, helper_command
from .errors import unknown_host_key, unusable_keyfiles
from .hops import Hops
from .said import Said

__all__ = ["Answers"]

logger = logging.getLogger("tunneledzmq")

# ssh's own words, in full: what only looks like them is a question of the server's.
_PASSPHRASE = re.compile(r"Enter passphrase for key '(.*)': ", re.DOTALL)
_PASSWORD = re.compile(r"(?!Enter |Retype ).*'s password: ", re.DOTALL)
_ABOUT_HOST_KEY = ("The authenticity of host ", "Are you sure you want to continue connecting")
_UNKNOWN_KEY = re.compile(
    r"The authenticity of host '(\S+)[^']*' can't be established\.\n"
    r"([\w-]+) key fingerprint is (\S+?)\.\n.*",
    re.DOTALL,
)

# Characters of a question that a message repeats.
_MAX_SHOWN = 400

# How much of a key's path ssh repeats in its prompt.
_SHOWN = 100

# Seconds for a helper to say what it was started for.
_TIMEOUT = 5.0
_MAX_QUESTION = 1 << 16


class Answers:
    """Listens for the helpers that ssh starts (see :mod:`helper`).

    What they ask for never stands in a command line or an environment.

    The secrets are the server's: an ssh that is on the way there, over its hops, gets from here
    only what the user types in.

    Args:
        login: the secrets that are known; each is given once, since a second question means that
            it was wrong.
        said: what the ssh that logs in to the server has said up to now.
        questions: where the program's user is asked for all others.
        directory: a private one.
        connection: the connection to the server, unless ssh makes it itself.

    Raises:
        OSError: it cannot listen.
    """

    def __init__(
        self,
        login: OpenSSHLogin,
        said: Said,
        questions: Questions,
        directory: str,
        connection: socket.socket | None,
    ) -> None:
        self.path = os.path.join(directory, "ask")
        self.askpass = os.path.join(directory, "askpass")
        self.hop = os.path.join(directory, "hop")
        self.skipped: list[str] = []
        """Why keys are passed over, for an error that may come."""
        self.told = False
        """Whether the server was told a password, or another answer."""
        self._login = login
        self._said = said
        self._questions = questions
        self._connection = connection
        self._given: set[str] = set()
        # What the server's ssh has asked for already, and after how many tries to be let in.
        self._asked_before: dict[str, int] = {}
        # Whether keyboard-interactive has asked for anything.
        self._asked = False
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
            if question == b"connection":
                self._hand_over(helper)
                return
            _, who, kind, text = question.decode(errors="replace").split("\0", 3)
            if kind == "none":
                logger.warning("%s: %s", self._login.server, printable(text))
            elif (answer := self._find(text, of_hop=who != "master")) is not None:
                helper.sendall(b"=" + answer.encode(errors="surrogateescape"))

    def _hand_over(self, helper: socket.socket) -> None:
        if self._connection is not None:
            _look_at(self._connection, self._login)
            socket.send_fds(helper, [b"\0"], [self._connection.fileno()])
            # It is ssh's alone from now on, which tells the server when it closes it.
            self._connection.close()
            self._connection = None

    def _find(self, text: str, *, of_hop: bool) -> str | None:
        if text.startswith(_ABOUT_HOST_KEY):
            raise self._unknown_host_key(text)
        own = _PASSPHRASE.fullmatch(text) if of_hop or self._said.asks_for_passphrase else None
        if own and not of_hop:
            return self._passphrase(own[1], text)
        answer = None
        if not of_hop and self._wants_password(text):
            answer = self._known("password", self._login.password)
        answer = self._ask(text if of_hop else self._again(text)) if answer is None else answer
        if answer is None and not own:
            raise self._unanswered(text, of_hop)
        self.told = self.told or not of_hop
        return answer  # without a passphrase, ssh passes a key over

    def _unknown_host_key(self, text: str) -> LoginError:
        # "ask" is treated as "yes", by whichever ssh, and however often it would ask.
        if match := _UNKNOWN_KEY.fullmatch(text):
            return unknown_host_key(self._login, match[1], match[2], f"{match[2]} {match[3]}")
        asked = printable(text).strip()[:_MAX_SHOWN]
        return self._login.no_trust(errno.EACCES, f"the host key is not accepted: {asked}")

    def _unanswered(self, text: str, of_hop: bool) -> LoginError:
        named = self._login.keyfiles or ()
        notes = [*self.skipped, *unusable_keyfiles(self._said, named)]
        given = "password" in self._given and self._login.password is not None
        if given and not of_hop:
            return self._login.no_entry(
                errno.EACCES,
                with_notes(
                    f"the server did not let {self._login.user!r} in with the password, and there "
                    "is nobody to ask for another one",
                    notes,
                ),
            )
        advice = (
            "it is a hop's, which the password is not for: pass prompt=, or SSHOptions with a "
            "password of its own as jump="
            if of_hop
            else "pass password= or prompt=, or a key that opens without"
        )
        asked = printable(text).strip().rstrip(":")[:_MAX_SHOWN]
        nobody = f"there is nobody to ask for {asked!r}: {self._questions.hindrance or advice}"
        if self._questions.declined:
            nobody = f"the user gave no answer when asked for {asked!r}"
        return self._login.no_entry(errno.EACCES, with_notes(nobody, notes))

    def _passphrase(self, path: str, text: str) -> str | None:
        named = next((k for k in self._login.keyfiles or () if k[:_SHOWN] == path[:_SHOWN]), None)
        tried = f"passphrase of {path}" in self._given and self._login.passphrase is not None
        answer = self._known(f"passphrase of {path}", self._login.passphrase)
        answer = self._ask(self._again(text, WRONG_PASSPHRASE)) if answer is None else answer
        if not answer:
            if tried and answer is None and named is not None:
                raise self._login.no_entry(
                    errno.EACCES, f"the passphrase for the key file {named} is wrong"
                )
            name = named or path
            why = self._questions.hindrance or "pass passphrase= or prompt="
            if self._questions.declined:
                why = "the user gave no passphrase for it"
            self.skipped.append(f"the key file {name} is encrypted: {why}")
        return answer

    def _again(self, text: str, wrong: str = WRONG_PASSWORD) -> str:
        """Say before a question why it is asked again, where the first answer was wrong."""
        tries = self._said.answers
        before = self._asked_before.get(text)
        self._asked_before[text] = tries
        same_key = wrong == WRONG_PASSPHRASE and before is not None
        return f"{wrong}\n{text}" if same_key or (before or tries) < tries else text

    def _known(self, name: str, secret: str | None) -> str | None:
        if name in self._given:
            return None
        self._given.add(name)
        return secret

    def _wants_password(self, text: str) -> bool:
        if self._said.methods[-1:] == ["password"]:
            return bool(_PASSWORD.fullmatch(text))
        host = self._login.host_key_alias or self._login.host
        question = text.removeprefix(f"({self._login.user}@{host}) ")
        first, self._asked = not self._asked, True
        # ssh does not tell whether what is typed may be seen.
        return asks_password(question, echo=False) or (
            first and may_ask_password(question, echo=False)
        )

    def _ask(self, text: str) -> str | None:
        return None if self._login.batch_mode else self._questions.prompt(text, echo=False)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        if self._connection is not None:
            self._connection.close()
        Hops.said(self.hop)
        for path in (self.path, self.askpass, self.hop):
            with suppress(OSError):
                os.unlink(path)

    def after_fork(self) -> None:
        """Close a forked child's copies of the sockets."""
        self._listener.close()
        if self._connection is not None:
            self._connection.close()


def _look_at(connection: socket.socket, login: OpenSSHLogin) -> None:
    """Look at what the server has said by now: ssh would wait for the end of a line."""
    with suppress(OSError):
        said = connection.recv(len(ZMTP), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if said == ZMTP:
            raise login.no_connection(
                errno.EPROTO, f"no SSH server there, or a broken one: {ZMTP_THERE}"
            )
