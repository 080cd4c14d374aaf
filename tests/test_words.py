"""What messages call the options on the command line."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator

import pytest

from tests.test_imports import PACKAGE
from tunneledzmq import SSHOptions, check, run, words
from tunneledzmq.gateway.config.words import HONOURED

OPTIONS = {field.name for field in dataclasses.fields(SSHOptions)} - {"server", "connections"}
OPTIONS |= {"addr", "ssh", "local"}
NAMED = re.compile(rf"(?<![\w-])({'|'.join(OPTIONS)})(=| must be )")


def messages() -> Iterator[str]:
    """Yield all literals of the package that name an option, with what is filled in as `{}`."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if id(node) not in documentation and path.name != "words.py" and NAMED.search(text):
                yield text


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_speaks_of_flags", True)


def test_every_option_that_messages_name_has_a_name_on_the_command_line(flags: None) -> None:
    texts = list(messages())
    assert len(texts) > 50
    left = {text: said for text in texts if NAMED.search(said := words.say(text))}
    # Lines of a program, as the demo shows them.
    assert not {text for text in left if "sock.connect(" not in text and "SSHOptions" not in text}


def test_the_command_line_has_what_they_are_called() -> None:
    parsers: tuple[argparse.ArgumentParser, ...] = (check._parser(), run._parser())
    known = {option for parser in parsers for option in parser._option_string_actions}
    said = " ".join([*words.FLAGS.values(), *(text for _, text in words._PHRASES)])
    assert set(re.findall(r"(?<!\w)--?[a-zA-Z][\w-]*", said)) <= known
    keywords = {name.lower() for name in words.FLAGS.values() if re.fullmatch(r"[A-Z]\w+", name)}
    assert keywords - {"addr", "ssh_askpass"} <= set(HONOURED)


@pytest.mark.parametrize(
    ("api", "command_line"),
    [
        (
            "ssh-keyscan h >> f (or strict_host_key_checking='accept-new')",
            "ssh-keyscan h >> f (or --accept-new)",
        ),
        (
            "going on without password, as strict_host_key_checking=no",
            "going on without password, as StrictHostKeyChecking=no",
        ),
        (
            "if it is only slow, pass a longer connect_timeout=",
            "if it is only slow, pass a longer --connect-timeout",
        ),
        (
            "no answer within connect_timeout (10 s): is",
            "no answer within 10 s (--connect-timeout): is",
        ),
        ("keyfile is empty: leave it out", "-i is empty: leave it out"),
        ("connect_timeout must be above 0, not -1", "--connect-timeout must be above 0, not -1"),
        (
            "the key file id is encrypted: pass passphrase= or prompt=",
            "the key file id is encrypted: run this at a terminal, or set SSH_ASKPASS and "
            "SSH_ASKPASS_REQUIRE=force",
        ),
        (
            "There is nobody to ask for password: pass password= or prompt=",
            "There is nobody to ask for password: run this at a terminal, or set SSH_ASKPASS and "
            "SSH_ASKPASS_REQUIRE=force",
        ),
        (
            "BatchMode=yes forbids to ask for password: pass password=",
            "BatchMode=yes forbids to ask for password: take BatchMode out of the config file",
        ),
        (
            "name the right key with keyfile=, and set agent=False",
            "name the right key with -i, and write IdentityAgent none into the config file",
        ),
        ("pass ciphers='+3des-cbc', if", "write Ciphers +3des-cbc into the config file, if"),
        ("use backend='openssh', or", "use --backend openssh, or"),
        (
            "are addr and ssh= the wrong way round?",
            "are the address and --ssh the wrong way round?",
        ),
        ("not [user@]host[:port]: x (ssh='a b')", "not [user@]host[:port]: x (--ssh 'a b')"),
        ("is marked as revoked in known_hosts", "is marked as revoked in known_hosts"),
        ("ProxyCommand 'x --password=y' failed", "ProxyCommand 'x --password=y' failed"),
    ],
)
def test_messages_in_its_words(flags: None, api: str, command_line: str) -> None:
    assert words.say(api) == command_line


def test_without_it_they_are_left_alone() -> None:
    assert words.say("pass password=") == "pass password="
