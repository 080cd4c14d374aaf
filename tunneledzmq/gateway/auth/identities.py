"""The keys to log in with, in the order in which they are offered."""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import dataclass, field, replace

from ...shared.text import printable
from ..login import Login
from .agent import Agent, AgentError, AgentTimeout
from .keyfiles import KeyFile, KeyFileError, read_public_key
from .publickey import PublicKey

__all__ = ["Identities", "Identity", "load_identities"]

logger = logging.getLogger("tunneledzmq")

# Seconds to wait for the agent's list, and which part of connect_timeout at most.
_LIST_TIMEOUT = 5.0
_LIST_SHARE = 0.4


@dataclass
class Identity:
    """A key, or a certificate for one, and what signs with it."""

    name: str
    """For messages."""

    public: PublicKey | None
    """What is offered; `None` until a passphrase tells it."""

    signer: Agent | KeyFile
    held: PublicKey | None = None
    """The key as the agent knows it."""

    one_of_several: bool = False
    """Whether it is one of several keys of the agent."""

    @property
    def bothers(self) -> bool:
        """Whether signing with it may take the user, whom nobody should trouble in vain."""
        return self.signer.locked if isinstance(self.signer, KeyFile) else self.one_of_several


@dataclass
class Identities:
    """What there is to log in with."""

    offers: list[Identity] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why others are left out, for an error that may come."""

    agent_silent: bool = False
    """Whether the agent does not answer at the moment."""


def load_identities(login: Login) -> Identities:
    """Look for the keys to log in with.

    In the order of OpenSSH (sshconnect2.c, pubkey_prepare): certificates that are named; key files
    that are in the agent too; the agent's other keys; other key files. But those that the program
    itself names come before the agent's, which often are more than a server lets us try.

    Raises:
        LoginError: a key that the program named cannot be used.
    """
    return _Search(login).run()


class _Search:
    def __init__(self, login: Login) -> None:
        self._login = login
        self._found = Identities()
        self._agent = Agent.find(login)
        # The agent's keys and certificates, with their comments.
        self._held: list[tuple[PublicKey, str]] = []

    def run(self) -> Identities:
        self._ask_agent()
        named = [self._named_file(path) for path in self._login.keyfiles or ()]
        usual = self._usual_files() if self._login.keyfiles is None else []
        held = [file for file in usual if self._in_agent(file.public)]
        offers = self._of_certificate_files([*named, *usual])
        for file in [*named, *held]:
            offers += self._of_file(file)
        if not self._login.identities_only:
            offers += self._of_agent(but=[file.public for file in [*named, *held]])
        for file in usual:
            if file not in held:
                offers += self._of_file(file)
        self._found.offers = _without_repetition(offers)
        return self._found

    # The agent

    def _ask_agent(self) -> None:
        agent = self._agent
        if agent is None:
            return
        timeout = min(_LIST_TIMEOUT, _LIST_SHARE * self._login.connect_timeout)
        try:
            held = agent.keys(timeout)
        except AgentTimeout as exc:
            self._found.agent_silent = True
            self._leave_out(f"the ssh-agent at {agent.path} does not answer: {exc}")
        except AgentError as exc:
            self._note(f"the ssh-agent at {agent.path} is of no use: {exc}")
        else:
            self._held = [
                (key, comment) for key, comment in held if not self._is_short(key, comment)
            ]
            if not held:
                self._note(f"the ssh-agent at {agent.path} holds no keys, or is locked")

    def _is_short(self, key: PublicKey, comment: str) -> bool:
        required = self._login.required_rsa_size
        short = key.rsa_bits is not None and key.rsa_bits < required
        if short:
            name = _agent_name(key, comment)
            self._note(f"{name} has {key.rsa_bits} bits, RequiredRSASize asks for {required}")
        return short

    def _in_agent(self, key: PublicKey | None) -> PublicKey | None:
        """Return a key as the agent has it: preferably plain, or with a certificate."""
        held = [own for own, _ in self._held if key is not None and own.plain == key.plain]
        return min(held, key=lambda own: own.certificate is not None, default=None)

    def _of_agent(self, but: list[PublicKey | None]) -> list[Identity]:
        known = {key.plain for key in but if key is not None}
        assert self._agent is not None or not self._held
        return [
            Identity(_agent_name(key, comment), key, self._agent, key)
            for key, comment in self._held
            if self._agent and key.plain not in known and self._is_usable(key, comment)
        ]

    def _is_usable(self, key: PublicKey, comment: str) -> bool:
        return key.certificate is None or self._is_valid(key, _agent_name(key, comment))

    # Key files

    def _named_file(self, path: str) -> KeyFile:
        try:
            file = KeyFile(path, self._login.required_rsa_size)
            if not file.encrypted:
                file.unlock(None)
            elif self._login.passphrase is not None and not self._in_agent(file.public):
                file.unlock(self._login.passphrase)
        except KeyFileError as exc:
            raise self._login.no_entry(exc.errno, str(exc)) from exc
        if not file.private and not self._in_agent(file.public):
            raise self._login.no_entry(
                errno.ENOENT,
                f"the key file {path} cannot be used: {file.lack}, and the ssh-agent does not "
                "have the key",
                passing=self._found.agent_silent,
            )
        return file

    def _usual_files(self) -> list[KeyFile]:
        files = []
        for path in self._login.identity_files:
            try:
                file = KeyFile(path, self._login.required_rsa_size)
            except KeyFileError as exc:
                if exc.errno != errno.ENOENT:
                    self._leave_out(str(exc))
                continue
            if file.private or self._in_agent(file.public):
                files.append(file)
            elif file.lack != KeyFile.lack:
                self._note(f"the key file {path} cannot be used: {file.lack}")
        return files

    def _of_file(self, file: KeyFile) -> list[Identity]:
        """Return a key, and its certificates before it."""
        offers = []
        try:
            certificate = file.certificate()
        except KeyFileError as exc:
            self._leave_out(str(exc))
        else:
            name = f"{file.path}-cert.pub"
            if certificate is not None and self._is_valid(certificate, name):
                offers.append((name, certificate))
        for key, comment in self._held:
            if (
                key.certificate is not None
                and file.public is not None
                and key.plain == file.public.plain
                and self._is_valid(key, _agent_name(key, comment))
            ):
                offers.append((_agent_name(key, comment), key))
        return [
            self._identity(name, key, file) for name, key in [*offers, (file.path, file.public)]
        ]

    def _identity(self, name: str, offer: PublicKey | None, file: KeyFile) -> Identity:
        held = self._in_agent(file.public)
        if held is not None and self._agent is not None:
            return Identity(name, offer, self._agent, held)
        return Identity(name, offer, file)

    # Certificates

    def _of_certificate_files(self, files: list[KeyFile]) -> list[Identity]:
        offers = []
        for path in self._login.certificate_files:
            try:
                key = read_public_key(path)
            except KeyFileError as exc:
                self._leave_out(f"the certificate {exc}")
                continue
            if self._is_valid(key, path):
                offers += self._of_certificate(path, key, files)
        return offers

    def _of_certificate(self, path: str, key: PublicKey, files: list[KeyFile]) -> list[Identity]:
        held = self._in_agent(key)
        if held is not None and self._agent is not None:
            return [Identity(path, key, self._agent, held)]
        for file in files:
            if file.public is not None and file.public.plain == key.plain:
                return [Identity(path, key, file)]
        self._leave_out(f"{path}: there is no private key for this certificate")
        return []

    def _is_valid(self, key: PublicKey, path: str) -> bool:
        certificate = key.certificate
        fault = "no certificate" if certificate is None else certificate.fault(time.time())
        if fault is not None:
            self._leave_out(f"{path}: {fault}")
        return fault is None

    # What is left out

    def _note(self, problem: str) -> None:
        self._found.problems.append(problem)
        logger.info("%s: %s", self._login.server, problem)

    def _leave_out(self, problem: str) -> None:
        self._found.problems.append(problem)
        logger.warning("%s: %s", self._login.server, problem)


def _agent_name(key: PublicKey, comment: str) -> str:
    name = f"the agent's {key.type} key"
    return f"{name} ({printable(comment)})" if comment else name


def _without_repetition(offers: list[Identity]) -> list[Identity]:
    seen: set[bytes] = set()
    kept = []
    for offer in offers:
        if offer.public is None or offer.public.blob not in seen:
            kept.append(offer)
        if offer.public is not None:
            seen.add(offer.public.blob)
    several = sum(isinstance(offer.signer, Agent) for offer in kept) > 1
    return [replace(offer, one_of_several=several) for offer in kept]
