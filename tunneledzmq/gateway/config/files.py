"""ssh_config(5) files as OpenSSH reads them, on paramiko's parser.

What that lacks is added here: Include, OpenSSH's quoting and comments, the place of each line for
messages, unknown words and malformed values (which are errors), and several CertificateFile.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
import shlex
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from paramiko.config import SSHConfig

from ...shared.system.account import SYSTEM_SSH_DIRECTORY, open_to_others
from ..login import LoginError
from ..reach.shell import ShellCommand
from .addresses import canonical_host
from .match import Block, Situation, matches, parse_host, parse_match
from .syntax import split_arguments, split_line
from .tokens import HOST_NAME_TOKENS, Tokens
from .wildcards import match_list
from .words import UNSET, canonical_word, is_known, parser_of

__all__ = ["ClientConfig", "Statement"]

logger = logging.getLogger("tunneledzmq")

# OpenSSH's READCONF_MAX_DEPTH.
_MAX_DEPTH = 16

_MAX_SIZE = 1 << 24

# Behind a word whose line sets nothing.
_UNSET = "_unset"


class Statement(NamedTuple):
    """A line that says something."""

    word: str
    """As it is written in the file."""

    value: Any
    where: str
    """File and line, for messages."""


class ClientConfig(SSHConfig):  # type: ignore[misc]
    """paramiko's ``SSHConfig`` for one server.

    paramiko gets the *numbers* of blocks and statements in place of their texts, of which it would
    misread some. From its ``parse`` and ``_lookup`` come the blocks, the passes over them and the
    rule that the first value counts, while IdentityFile adds up.

    Args:
        name: of the server, for messages.
        tokens: what was asked for: the host argument, and who asks.
        directory: the program's working directory.
        timeout: seconds for a command of ``Match exec``.
    """

    def __init__(self, name: str, tokens: Tokens, directory: str, timeout: float) -> None:
        super().__init__()
        self._name = name
        self._tokens = tokens
        self._directory = directory
        self._timeout = timeout
        self._statements: list[Statement] = []
        # The first is for what stands outside of blocks.
        self._blocks = [Block("", (), None)]
        # Lines with a word that nobody knows, unless IgnoreUnknown says otherwise.
        self._unknown: list[int] = []
        # Of the pass over the blocks: which of them count, and the HostName of the final pass.
        self._active: dict[int, bool] = {}
        self._final_host: str | None = None

    def give(self, word: str, value: Any) -> None:
        """Set something before any file does."""
        self.parse([self._add(word, Statement(word, value, "the options"))])

    def read(self, path: str, *, of_user: bool, check_owner: bool = False) -> None:
        """Read a file.

        Args:
            of_user: whether it is a user's file, not the system's.
            check_owner: whether others must not be able to write it.

        Raises:
            OSError: it cannot be opened.
            LoginError: something is wrong in it, or in a file that it includes.
        """
        self.parse(self._lines(path, 0, 0, of_user=of_user, check_owner=check_owner))

    def lookup(self, hostname: str) -> dict[str, list[Statement]]:
        """Return what counts for a server, by word (see :mod:`.config_words`).

        Raises:
            LoginError: a condition cannot be evaluated.
        """
        self._active = {0: True}
        found = self._lookup(hostname)
        self._check_unknown(found)
        wanted = (c.kind == "final" for block in self._blocks for c in block.criteria)
        if any(wanted):
            family = self._value(found, "addressfamily", socket.AF_UNSPEC)
            host = canonical_host(self._situation(found).tokens.host, family)
            # From now on it is settled, whatever HostName the final pass finds.
            self._final_host = host
            found["hostname"] = len(self._statements)
            self._statements.append(Statement("HostName", host.replace("%", "%%"), "final pass"))
            self._active = {0: True}
            found = self._lookup(hostname, found)
        result: dict[str, list[Statement]] = {}
        # A line that sets nothing comes behind those that do.
        for _, numbers in sorted(found.items(), key=lambda item: item[0].endswith(_UNSET)):
            for number in numbers if isinstance(numbers, list) else [numbers]:
                statement = self._statements[int(number)]
                result.setdefault(canonical_word(statement.word), []).append(statement)
        return result

    # paramiko's seams

    def _get_matches(self, match: str) -> list[int]:
        return [int(match)]

    def _does_match(
        self,
        match_list: list[int],
        target_hostname: str,
        canonical: bool,
        final: bool,
        options: dict[str, Any],
    ) -> bool:
        return all(self._is_active(number, options) for number in match_list)

    def _is_active(self, number: int, found: dict[str, Any]) -> bool:
        if number not in self._active:
            block = self._blocks[number]
            try:
                self._active[number] = (
                    block.outer is None or self._is_active(block.outer, found)
                ) and matches(block.criteria, self._situation(found))
            except ValueError as exc:
                raise self._error(block.where, str(exc)) from None
        return self._active[number]

    def _situation(self, found: dict[str, Any]) -> Situation:
        asked = self._tokens
        value = partial(self._value, found)
        host = self._final_host or asked.host_argument
        if self._final_host is None and "hostname" in found:
            line = self._statements[int(found["hostname"])]
            try:
                host = asked.expand(line.value, HOST_NAME_TOKENS)
            except ValueError as exc:
                raise self._error(line.where, str(exc)) from exc
        return Situation(
            tokens=Tokens(
                host_argument=asked.host_argument,
                host=host,
                port=value("port", asked.port),
                user=value("user", asked.user),
                local_user=asked.local_user,
                home=asked.home,
                # In conditions, %k is HostName where there is no alias.
                host_key_alias=value("hostkeyalias", host),
            ),
            block_host=self._final_host or asked.host_argument,
            tag=value("tag", ""),
            final=self._final_host is not None,
            run=self._run,
        )

    def _value(self, found: dict[str, Any], word: str, default: Any) -> Any:
        return self._statements[int(found[word])].value if word in found else default

    def _check_unknown(self, found: dict[str, Any]) -> None:
        """Raise where a line has an unknown word, and no IgnoreUnknown before it covers that."""
        ignoring = int(found.get("ignoreunknown", len(self._statements)))
        for number in self._unknown:
            word, _, where = self._statements[number]
            if number < ignoring or not match_list(
                word.lower(), self._statements[ignoring].value, ignore_case=True
            ):
                raise self._error(where, f"bad configuration option: {word} (see IgnoreUnknown)")

    def _run(self, command: str) -> bool:
        logger.debug("%s: Match exec: %s", self._name, command)
        try:
            process = ShellCommand(command, self._directory)
        except OSError as exc:
            raise ValueError(f"Match exec {command!r}: {exc}") from exc
        status = process.wait(self._timeout)
        process.end()
        if status is None:
            raise ValueError(f"Match exec {command!r}: no end within {self._timeout:g} s")
        if status < 0:
            raise ValueError(f"Match exec {command!r}: {process.describe()}")
        return status == 0

    # Lines

    def _lines(
        self, path: str, outer: int, depth: int, *, of_user: bool, check_owner: bool
    ) -> Iterator[str]:
        """Yield the lines of a file, and of those that it includes, as paramiko is to see them."""
        block = outer
        with open(path, "rb", opener=_open_at_once) as file:
            if check_owner:
                self._check_owner(path, os.fstat(file.fileno()))
            content = file.read(_MAX_SIZE) or b""
        if len(content) == _MAX_SIZE:
            raise self._error(path, f"this is no config file: {_MAX_SIZE} bytes or more")
        text = content.decode("utf-8", "surrogateescape")
        for number, line in enumerate(text.split("\n"), start=1):
            where = f"{path}:{number}"
            try:
                word, rest = split_line(line)
                if not word:
                    continue
                key = canonical_word(word)
                if key in ("host", "match"):
                    arguments = split_arguments(rest)
                    criteria = parse_host(arguments) if key == "host" else parse_match(rest)
                    block = len(self._blocks)
                    self._blocks.append(Block(where, criteria, outer))
                    yield f"match {block}"
                elif key == "include":
                    for included in self._included(rest, of_user, depth):
                        yield from self._include(included, block, depth + 1, of_user, where)
                    yield f"match {block}"
                else:
                    yield from self._statement(key, word, rest, where)
            except ValueError as exc:
                raise self._error(where, str(exc)) from None

    def _statement(self, key: str, word: str, rest: str, where: str) -> Iterator[str]:
        arguments = split_arguments(rest)
        if not is_known(key):
            self._unknown.append(len(self._statements))
            self._statements.append(Statement(word, None, where))
            return
        value = parser_of(key)(arguments, rest)
        if value is UNSET:
            yield self._add(f"{key}{_UNSET}", Statement(word, None, where))
        else:
            yield self._add(key, Statement(word, value, where))

    def _add(self, key: str, statement: Statement) -> str:
        self._statements.append(statement)
        # For paramiko, only IdentityFile adds up.
        key = "identityfile" if key == "certificatefile" else key
        return f"{key} {len(self._statements) - 1}"

    def _included(self, rest: str, of_user: bool, depth: int) -> Iterator[str]:
        if depth == _MAX_DEPTH:
            raise ValueError("too many recursive configuration includes")
        for pattern in split_arguments(rest):
            if not pattern:
                raise ValueError("empty argument")
            if pattern.startswith("~"):
                if not of_user:
                    raise ValueError(f"bad include path {pattern}")
                pattern = self._tokens.expand_home(pattern)
            pattern = re.sub(r"\\(.)", lambda match: glob.escape(match[1]), pattern)
            directory = os.path.join(self._tokens.home, ".ssh") if of_user else SYSTEM_SSH_DIRECTORY
            yield from sorted(glob.glob(os.path.join(directory, pattern)))

    def _include(
        self, path: str, block: int, depth: int, of_user: bool, where: str
    ) -> Iterator[str]:
        if os.path.isdir(path):  # for OpenSSH it has no lines
            self._check_owner(path, os.stat(path))
            return
        yield f"match {block}"
        try:
            yield from self._lines(path, block, depth, of_user=of_user, check_owner=True)
        except FileNotFoundError:
            return  # a link to nothing, or somebody was faster
        except OSError as exc:
            raise self._error(
                where, f"cannot read {path}: {exc.strerror}", exc.errno or errno.EIO
            ) from exc

    def _check_owner(self, path: str, status: os.stat_result) -> None:
        if open_to_others(status):
            raise self._error(
                path,
                "bad owner or permissions: it must be yours or root's, and writable by nobody "
                f"else (chmod go-w {shlex.quote(path)})",
                errno.EACCES,
            )

    def _error(self, where: str, text: str, code: int = errno.EINVAL) -> LoginError:
        message = f"{self._name}: {where}: {text}"
        # A file may hold anything; a message must be printable.
        return LoginError("TunnelError", code, message.encode(errors="backslashreplace").decode())


def _open_at_once(path: str, flags: int) -> int:
    # Nobody may be writing to a FIFO.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
