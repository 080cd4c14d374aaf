"""Being let in: one method after the other, or an error that says what was tried."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from functools import partial
from typing import Protocol

import paramiko

from ...shared.text import printable, with_notes
from ..login import Learned, Login, LoginError
from ..questions import Questions
from .agent import Agent, AgentError, AgentTimeout
from .identities import Identities, Identity
from .keyfiles import KeyFile, KeyFileError
from .passwords import Passwords
from .userauth import (
    Answer,
    Failure,
    InfoRequest,
    KeyAccepted,
    NewPasswordWanted,
    Success,
    Userauth,
)

__all__ = ["authenticate"]

logger = logging.getLogger("tunneledzmq")

# What a server may ask for in one login: rounds of questions and the questions in them, and methods
# to be passed one after the other. More is a server that never comes to an end.
_MAX_QUESTIONS = 100
_MAX_METHODS = 10

# Part of the time that is left in which an agent may sign: its silence is told before that of
# the server would be.
_SIGN_SHARE = 0.9


class Session(Protocol):
    """The session, as it is seen by who logs in."""

    auth_handler: Userauth
    disconnect_reason: str
    """What the server said when it ended the session, if it did."""

    def ensure_session(self) -> None:
        """Ask for the authentication service.

        Raises:
            paramiko.SSHException: the session has ended.
        """
        ...

    def is_active(self) -> bool:
        """Whether the session lives."""
        ...

    def get_exception(self) -> Exception | None:
        """Return what ended the session, once."""
        ...


def authenticate(
    transport: Session,
    login: Login,
    learned: Learned,
    questions: Questions,
    identities: Identities,
    *,
    trusted: bool,
) -> None:
    """Log in: with keys, with what is typed in, or with both where the server wants that.

    Args:
        transport: the session, of which the server is verified.
        login: as whom.
        learned: what earlier logins have learned.
        questions: where the program's user is asked for secrets.
        identities: the keys.
        trusted: whether the server may be sent secrets.

    Raises:
        LoginError: the server did not let us in.
    """
    attempt = _Attempt(transport, login, learned, questions, identities, trusted=trusted)
    try:
        transport.ensure_session()
        attempt.run()
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise attempt.broken_off(exc) from exc


class _Attempt:
    """One try at logging in.

    Each method is an iterator, of which each step is a request; it ends when there is nothing more
    to be tried that way. The server's last answer says which methods may go on.
    """

    def __init__(
        self,
        transport: Session,
        login: Login,
        learned: Learned,
        questions: Questions,
        identities: Identities,
        *,
        trusted: bool,
    ) -> None:
        self._transport = transport
        self._login = login
        self._questions = questions
        self._identities = identities
        self._trusted = trusted
        self._passwords = Passwords(login, learned, questions)
        self._tried: list[str] = []
        # Keys that could not be tried, since nobody opens them, and those of them of which the
        # server said that they would let us in.
        self._locked: list[str] = []
        self._wanted: list[str] = []
        self._problems = identities.problems
        self._allowed: tuple[str, ...] = ()
        self._questions_asked = self._methods_passed = 0
        self._methods: dict[str, Iterator[Answer]] = {"publickey": self._publickey()}
        self._start_typing()

    def run(self) -> None:
        """Try everything, until the server is content."""
        answer = self._first()
        while not isinstance(answer, Success):
            if isinstance(answer, Failure):
                self._allowed = answer.methods
                if answer.partial:
                    logger.debug("%s: one more method is wanted", self._login.server)
                    self._methods_passed += 1
                    if self._methods_passed > _MAX_METHODS:
                        raise self._endless(f"more than {_MAX_METHODS} methods one after the other")
                    self._start_typing()
            answer = self._next()

    def _first(self) -> Answer:
        """Begin with a key if there is one, since the server's first answer tells the methods."""
        if self._login.preferred_authentications[:1] == ["publickey"]:
            answer = next(self._methods["publickey"], None)
            if answer is not None:
                return answer
        return self._transport.auth_handler.try_none(self._login.user)

    def _next(self) -> Answer:
        for name in self._login.preferred_authentications:
            if name in self._allowed and name in self._methods:
                answer = next(self._methods[name], None)
                if answer is not None:
                    return answer
        raise self._refused()

    def _start_typing(self) -> None:
        if self._trusted:
            self._methods["keyboard-interactive"] = self._keyboard_interactive()
            self._methods["password"] = self._password()

    # publickey

    def _publickey(self) -> Iterator[Answer]:
        for identity in self._identities.offers:
            try:
                yield from self._offer(identity)
            except KeyFileError as exc:
                # Nobody opens it: as with ssh, the next one may do.
                self._tried.remove(identity.name)
                self._locked.append(identity.name)
                self._leave_out(str(exc))
            except AgentTimeout as exc:
                raise self._silent_agent(identity, exc) from exc
            except AgentError as exc:
                self._leave_out(f"{identity.name}: the ssh-agent does not sign: {exc}")
            except paramiko.SSHException as exc:
                if not self._transport.is_active():
                    raise
                self._leave_out(f"{identity.name}: {exc}")

    def _offer(self, identity: Identity) -> Iterator[Answer]:
        userauth, user = self._transport.auth_handler, self._login.user
        self._tried.append(identity.name)
        if identity.bothers and identity.public is not None:
            answer = userauth.try_query(user, identity.public)
            if not isinstance(answer, KeyAccepted):
                logger.debug("%s: %s is not accepted", self._login.server, identity.name)
                yield answer
                return
        if isinstance(identity.signer, KeyFile):
            self._unlock(identity.name, identity.signer, accepted=identity.bothers)
            public = identity.public or identity.signer.public
        else:
            public = identity.public
        assert public is not None
        answer = userauth.try_publickey(user, public, partial(self._sign, identity))
        logger.debug("%s: %s: %s", self._login.server, identity.name, printable(str(answer)))
        yield answer

    def _unlock(self, name: str, file: KeyFile, *, accepted: bool) -> None:
        try:
            self._passwords.unlock(file)
        except KeyFileError:
            if accepted and file.public is not None:
                self._wanted.append(name)
            raise

    def _sign(self, identity: Identity, data: bytes, algorithm: str) -> bytes:
        if isinstance(identity.signer, KeyFile):
            return identity.signer.sign(data, algorithm)
        assert identity.held is not None
        left = max(0.1, self._login.connect_timeout - self._questions.elapsed)
        wanted = self._transport.is_active
        return identity.signer.sign(identity.held, data, algorithm, _SIGN_SHARE * left, wanted)

    def _silent_agent(self, identity: Identity, exc: AgentTimeout) -> LoginError:
        assert isinstance(identity.signer, Agent)
        return self._login.no_entry(
            errno.ETIMEDOUT,
            f"the ssh-agent at {identity.signer.path} does not sign with {identity.name}: {exc}. "
            "Does it wait for a confirmation? agent=False does without it",
            passing=True,
        )

    # password and keyboard-interactive

    def _password(self) -> Iterator[Answer]:
        for password in self._passwords:
            self._try_once("password")
            answer = self._transport.auth_handler.try_password(self._login.user, password)
            if isinstance(answer, NewPasswordWanted):
                raise self._login.no_entry(
                    errno.EACCES,
                    "the password has expired, and the server wants a new one: change it with "
                    f"ssh first ({printable(answer.prompt.strip())})",
                )
            self._passwords.learn(_is_granted(answer))
            yield answer

    def _keyboard_interactive(self) -> Iterator[Answer]:
        userauth, user = self._transport.auth_handler, self._login.user
        for _ in range(self._passwords.tries):
            answer = userauth.try_keyboard_interactive(user)
            asked = False
            while isinstance(answer, InfoRequest):
                self._questions_asked += 1 + len(answer.prompts)
                if self._questions_asked > _MAX_QUESTIONS:
                    raise self._endless(f"more than {_MAX_QUESTIONS} questions")
                responses = self._passwords.respond(answer)
                if responses is None:
                    return
                self._try_once("keyboard-interactive")
                asked = asked or bool(responses)
                answer = userauth.respond(responses)
            self._passwords.learn(_is_granted(answer))
            yield answer
            if not asked:
                return

    def _try_once(self, name: str) -> None:
        if name not in self._tried:
            self._tried.append(name)

    # Errors

    def _endless(self, wanted: str) -> LoginError:
        return self._login.no_entry(
            errno.EACCES, f"the server asks without end: it wanted {wanted}. Is it the right one?"
        )

    def _leave_out(self, problem: str) -> None:
        self._problems.append(problem)
        logger.warning("%s: %s", self._login.server, problem)

    def _refused(self) -> LoginError:
        user = repr(self._login.user)
        wants = f"; it accepts {printable(', '.join(self._allowed))}" if any(self._allowed) else ""
        typed = {"password", "keyboard-interactive"}
        if self._wanted:
            tried = f"; it did not with {', '.join(self._tried)}" if self._tried else ""
            text = (
                f"the server would let {user} in with {', '.join(self._wanted)}, which nobody "
                f"opens{tried}{wants}"
            )
        elif not self._tried and self._locked:
            text = f"no key that opens, and no password, to log in as {user}{wants}"
        elif not self._tried and self._login.password is not None:
            text = (
                f"no key to log in as {user}, and the server takes no password: pass keyfile=, or "
                f"start an ssh-agent with a key{wants}"
            )
        elif not self._tried:
            # Who was asked already, or cannot be, is not told how to be asked.
            asked = self._questions.declined or self._questions.hindrance
            text = (
                f"no key and no password to log in as {user}: pass keyfile="
                f"{'' if asked else ' or password='}, or start an ssh-agent with a key{wants}"
            )
        elif typed.intersection(self._tried):
            text = (
                f"the server did not let {user} in with {', '.join(self._tried)}{wants}. Are the "
                "password and the user name right?"
            )
        else:
            text = (
                f"the server did not let {user} in with {', '.join(self._tried)}{wants}. Is the "
                "public key in its authorized_keys, and the user name right?"
            )
        if not self._trusted and typed.intersection(self._allowed):
            self._problems.append("no password is sent, since its host key has changed")
        return self._login.no_entry(
            errno.EACCES,
            with_notes(text, [*self._problems, *self._passwords.problems]),
            passing=self._identities.agent_silent,
        )

    def broken_off(self, exc: Exception) -> LoginError:
        """Make the error for a session that ended in the middle."""
        reason = self._transport.disconnect_reason
        if not reason:
            text = "the connection was lost during the login"
            if isinstance(exc, EOFError):  # perhaps of a request that came too late
                exc = self._transport.get_exception() or exc
            if isinstance(exc, paramiko.SSHException):
                text += f": {printable(str(exc))}"
            return self._login.no_connection(errno.ECONNRESET, text)
        if not self._tried:
            return self._login.hung_up(reason)
        text = f"the server broke the login off after {', '.join(self._tried)}: {reason}"
        if sum(offer.name in self._tried for offer in self._identities.offers) > 1:
            text += "; name the right key with keyfile=, and set agent=False"
        return self._login.no_entry(errno.EACCES, text)


def _is_granted(answer: Answer) -> bool:
    return isinstance(answer, Success) or (isinstance(answer, Failure) and answer.partial)
