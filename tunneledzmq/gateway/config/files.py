"""ssh_config(5) files as OpenSSH reads them.

paramiko's parser lacks Include, OpenSSH's quoting and comments, the place of each line for
messages, and an error for unknown words and malformed values.
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

from ...shared.system.account import SYSTEM_SSH_DIRECTORY, open_to_others
from ...shared.system.process import hears_of_children
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

# Of all others, the first value counts.
_ADD_UP = ("identityfile", "certificatefile")


class Statement(NamedTuple):
    """A line that says something."""

    word: str
    """As it is written in the file."""

    value: Any
    where: str
    """File and line, for messages."""


Found = dict[str, list[Statement]]


class Line(NamedTuple):
    """A line, and the block that it is in."""

    block: int
    key: str
    """Its word, as :func:`canonical_word` has it."""

    statement: Statement | None
    """`None`: the block begins."""


class ClientConfig:
    """What the files say of one server.

    Args:
        name: of the server, for messages.
        tokens: what was asked for: the host argument, and who asks.
        directory: the program's working directory.
        timeout: seconds for a command of ``Match exec``.
    """

    def __init__(self, name: str, tokens: Tokens, directory: str, timeout: float) -> None:
        self._name = name
        self._tokens = tokens
        self._directory = directory
        self._timeout = timeout
        self._lines: list[Line] = []
        # The first is for what stands outside of blocks.
        self._blocks = [Block("", (), None)]
        # Of the pass over the blocks: which of them count, and the HostName of the final pass.
        self._active: dict[int, bool] = {}
        self._final_host: str | None = None

    def give(self, word: str, value: Any) -> None:
        """Set something before any file does."""
        self._lines.append(Line(0, word, Statement(word, value, "the options")))

    def read(self, path: str, *, of_user: bool, check_owner: bool = False) -> None:
        """Read a file.

        Args:
            of_user: whether it is a user's file, not the system's.
            check_owner: whether others must not be able to write it.

        Raises:
            OSError: it cannot be opened.
            LoginError: something is wrong in it, or in a file that it includes.
        """
        self._read(path, 0, 0, of_user=of_user, check_owner=check_owner)

    def lookup(self) -> Found:
        """Return what counts, by word (see :mod:`.words`).

        Raises:
            LoginError: a condition cannot be evaluated.
        """
        found: Found = {}
        self._go_through(found)
        wanted = (c.kind == "final" for block in self._blocks for c in block.criteria)
        if any(wanted):
            family = self._value(found, "addressfamily", socket.AF_UNSPEC)
            host = canonical_host(self._situation(found).tokens.host, family)
            # From now on it is settled, whatever HostName the final pass finds.
            self._final_host = host
            found["hostname"] = [Statement("HostName", host.replace("%", "%%"), "final pass")]
            self._go_through(found)
        # A line that sets nothing comes behind those that do.
        for key in [key for key in found if key.endswith(_UNSET)]:
            statements = [statement._replace(value=None) for statement in found.pop(key)]
            found.setdefault(key.removesuffix(_UNSET), []).extend(statements)
        return found

    def _go_through(self, found: Found) -> None:
        """Add what the lines say, one after the other: conditions see what was found before."""
        self._active = {0: True}
        for block, key, statement in self._lines:
            active = self._is_active(block, found)
            if statement is None:
                continue
            if not is_known(key):
                self._check_ignored(statement, found)
            elif active:
                key = key + _UNSET if statement.value is UNSET else key
                statements = found.setdefault(key, [])
                if not statements or (key in _ADD_UP and statement not in statements):
                    statements.append(statement)

    def _is_active(self, number: int, found: Found) -> bool:
        if number not in self._active:
            block = self._blocks[number]
            try:
                self._active[number] = (
                    block.outer is None or self._is_active(block.outer, found)
                ) and matches(block.criteria, self._situation(found))
            except ValueError as exc:
                raise self._error(block.where, str(exc)) from None
        return self._active[number]

    def _situation(self, found: Found) -> Situation:
        asked = self._tokens
        value = partial(self._value, found)
        host = self._final_host or asked.host_argument
        if self._final_host is None and "hostname" in found:
            line = found["hostname"][0]
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

    def _value(self, found: Found, word: str, default: Any) -> Any:
        return found[word][0].value if word in found else default

    def _check_ignored(self, unknown: Statement, found: Found) -> None:
        """Raise where no IgnoreUnknown before a line covers its word."""
        word, _, where = unknown
        ignored = self._value(found, "ignoreunknown", "")
        if not ignored or not match_list(word.lower(), ignored, ignore_case=True):
            raise self._error(where, f"bad configuration option: {word} (see IgnoreUnknown)")

    def _run(self, command: str) -> bool:
        logger.debug("%s: Match exec: %s", self._name, command)
        if not hears_of_children():
            raise ValueError(
                f"Match exec {command!r}: its exit status is not to be had, since the program "
                "ignores SIGCHLD"
            )
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

    def _read(self, path: str, outer: int, depth: int, *, of_user: bool, check_owner: bool) -> None:
        """Note the lines of a file, and of those that it includes."""
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
                    self._lines.append(Line(block, key, None))
                elif key == "include":
                    for included in self._included(rest, of_user, depth):
                        self._include(included, block, depth + 1, of_user, where)
                else:
                    self._note(block, key, Statement(word, rest, where))
            except ValueError as exc:
                raise self._error(where, str(exc)) from None

    def _note(self, block: int, key: str, line: Statement) -> None:
        arguments = split_arguments(line.value)
        value = parser_of(key)(arguments, line.value) if is_known(key) else None
        self._lines.append(Line(block, key, line._replace(value=value)))

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
            if os.sep == "/":
                pattern = re.sub(r"\\(.)", lambda match: glob.escape(match[1]), pattern)
            directory = os.path.join(self._tokens.home, ".ssh") if of_user else SYSTEM_SSH_DIRECTORY
            yield from sorted(glob.glob(os.path.join(directory, pattern)))

    def _include(self, path: str, block: int, depth: int, of_user: bool, where: str) -> None:
        if os.path.isdir(path):  # for OpenSSH it has no lines
            self._check_owner(path, os.stat(path))
            return
        try:
            self._read(path, block, depth, of_user=of_user, check_owner=True)
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
