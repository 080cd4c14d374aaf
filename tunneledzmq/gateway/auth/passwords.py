"""Passwords, passphrases and codes: those that the program gave, or its user types in."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator

from ...shared.text import DISPLAY_LIMIT, printable
from ..login import Learned, Login
from ..questions import Questions
from .keyfiles import KeyFile, KeyFileError
from .userauth import InfoRequest

__all__ = ["WRONG_PASSPHRASE", "WRONG_PASSWORD", "Passwords", "asks_password", "may_ask_password"]

WRONG_PASSWORD = "Permission denied, please try again."
WRONG_PASSPHRASE = "Bad passphrase, please try again."

logger = logging.getLogger("tunneledzmq")

# Questions of keyboard-interactive that the user's password answers, and such that it does not,
# though they look like it; a server may speak the language of its country.
_PASSWORD = re.compile(r"password", re.IGNORECASE)
_NO_PASSWORD = re.compile(
    r"passphrase|one.?time|otp|token|c[oó]d[eií]|new|again|retype|confirm|current|change|\bpin\b"
    r"|^\W*(?:user|login)[ \w]*\W*$"
    r"|einmal|neues|wiederhol|jeton|usage unique|nouveau|retapez|un solo uso|nuev[ao]|repit",
    re.IGNORECASE,
)


class Passwords:
    """What can be told to one server, and who can be asked for it.

    Args:
        login: has what the program gave.
        learned: has what the user typed in before, and keeps what is typed in now.
        questions: where the program's user is asked.
    """

    def __init__(self, login: Login, learned: Learned, questions: Questions) -> None:
        self._login = login
        self._learned = learned
        self._questions = questions
        self._who = f"{login.user}@{login.host}"
        self.problems: list[str] = []
        """What is missing, for an error that may come."""

        # The password that is being tried, if the user typed it.
        self._typed: str | None = None
        # Where the password that is known has been sent already, and the question it answered.
        self._sent: set[str] = set()
        self._answered: tuple[str, bool] | None = None
        # Whether keyboard-interactive has asked for anything.
        self._asked = False
        # What the server said, to be shown with its next question, and whether it was not content
        # with what was typed for the question before.
        self._said = ""
        self._again = False

    @property
    def tries(self) -> int:
        """How often keyboard-interactive is worth trying."""
        return max(self._login.number_of_password_prompts, int(self._known is not None))

    @property
    def _known(self) -> str | None:
        given = self._login.password
        return self._learned.password if given is None else given

    def __iter__(self) -> Iterator[str]:
        """Return what to try for the method ``password``."""
        if self._known is not None:
            if "password" not in self._sent:
                self._sent.add("password")
                yield self._known
            if self._login.password is not None:
                return
        for _ in range(self._login.number_of_password_prompts):
            self._typed = self._ask(f"{self._who}'s password: ", "password")
            if self._typed is None:
                return
            yield self._typed

    def learn(self, right: bool) -> None:
        """Note whether the server was content with what it was told last."""
        if right and self._typed is not None:
            self._learned.password = self._typed
        self._again = not right and self._typed is not None
        self._typed = None

    def respond(self, request: InfoRequest) -> list[str] | None:
        """Answer the server's questions; `None` if there is nobody to ask."""
        heading = [_display(text.strip()) for text in (request.name, request.instruction)]
        self._said += "".join(f"{line}\n" for line in heading if line)
        if not request.prompts:
            if self._said:
                logger.warning("%s says: %s", self._login.server, self._said.strip())
                self._said = ""
            return []
        wants_password = len(request.prompts) == 1 and (
            asks_password(*request.prompts[0])
            or (not self._asked and may_ask_password(*request.prompts[0]))
            or request.prompts[0] == self._answered
        )
        self._asked = True
        if wants_password and self._known is not None:
            if "keyboard-interactive" not in self._sent:
                self._sent.add("keyboard-interactive")
                self._answered = request.prompts[0]
                self._said = ""
                return [self._known]
            if self._login.password is not None:
                return None
        responses = []
        for text, echo in request.prompts:
            said, self._said = self._said, ""
            asked = printable(text).strip().rstrip(":")
            what = repr(asked) if asked else "an answer"
            answer = self._ask(f"{said}({self._who}) {_display(text)}", what, echo=echo)
            if answer is None:
                return None
            if wants_password or asks_password(text, echo):
                self._typed = answer
                self._answered = (text, echo)
            responses.append(answer)
        return responses

    def unlock(self, file: KeyFile) -> None:
        """Open a key file, with the passphrase that it takes.

        Raises:
            KeyFileError: it cannot be had.
            LoginError: the program's ``prompt`` failed.
        """
        if not file.locked:
            file.unlock(None)
            return
        known = self._learned.passphrases.get(file.path, self._login.passphrase)
        if known is not None:
            try:
                file.unlock(known)
                return
            except KeyFileError:
                if known is self._login.passphrase:
                    raise
                del self._learned.passphrases[file.path]  # the file is another one now
        said = ""
        for _ in range(self._login.number_of_password_prompts):
            passphrase = self._ask(f"{said}Enter passphrase for key '{file.path}': ")
            if not passphrase:
                break
            said = f"{WRONG_PASSPHRASE}\n"
            try:
                file.unlock(passphrase)
            except KeyFileError as exc:
                failure = exc
            else:
                self._learned.passphrases[file.path] = passphrase
                return
        else:
            if self._login.number_of_password_prompts:
                raise failure
        why = self._questions.hindrance or "pass passphrase= or prompt="
        if self._questions.declined:
            why = "the user gave no passphrase for it"
        raise KeyFileError(errno.EACCES, f"the key file {file.path} is encrypted: {why}")

    def _ask(self, text: str, what: str | None = None, *, echo: bool = False) -> str | None:
        if self._again and what is not None:
            text, self._again = f"{WRONG_PASSWORD}\n{text}", False
        if not self._login.batch_mode:
            answer = self._questions.prompt(text, echo=echo)
            instead = "password= or prompt=" if what == "password" else "prompt="
            why = self._questions.hindrance or f"pass {instead}"
            problem = f"There is nobody to ask for {what}: {why}"
            if self._questions.declined:
                problem = f"The user gave no answer when asked for {what}"
        else:
            answer = None
            problem = f"BatchMode=yes forbids to ask for {what}: pass password="
        if answer is None and what is not None:
            self.problems.append(problem)
        return answer


def _display(text: str) -> str:
    return printable(text, DISPLAY_LIMIT, lines=True)


def asks_password(text: str, echo: bool) -> bool:
    """Tell whether a question of a server's is answered with the user's password."""
    return may_ask_password(text, echo) and bool(_PASSWORD.search(text))


def may_ask_password(text: str, echo: bool) -> bool:
    """Tell whether that may be so of the first question, in whatever language it is."""
    return not echo and not _NO_PASSWORD.search(text)
