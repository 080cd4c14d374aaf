"""Random config files mean to us what they mean to ``ssh -G``.

``RANDOM_CONFIG=10000 pytest tests/test_random_config.py`` asks about as many files, each the one of
its number, in some minutes; without it, about a few. ``RANDOM_CONFIG=17:18`` asks about that one.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.gateway.config.test_config import HOME, STRICT, USER, as_openssh_says_it, request
from tests.gateway.trust.test_known_hosts import needs
from tests.seeds import chunks, seeds_of
from tunneledzmq.gateway.config import resolve
from tunneledzmq.gateway.config.hops import parse_hops
from tunneledzmq.gateway.login import LoginError

SEEDS = seeds_of("RANDOM_CONFIG", default=300)

HOSTS = ["name", "name", "name", "Name.x", "127.1", "0x7f000001", "::1", "2001:DB8:0::1", "10"]

OUR_DEFAULTS = {
    "identityfile": [f"{HOME}/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")],
    "connecttimeout": ["10"],
    "serveraliveinterval": ["15"],
    "ciphers": [],
    "macs": [],
    "kexalgorithms": [],
    "preferredauthentications": ["publickey,keyboard-interactive,password"],
    "hashknownhosts": ["no"],
}
"""What is not OpenSSH's default."""

NOT_LOOKED_AT = [
    *["ForwardAgent", "EscapeChar", "KeepAlive", "Protocol"],  # without effect
    *["Ciphers", "MACs", "KexAlgorithms"],  # whose names are looked at when they are needed
]
"""Words where nothing is wrong in a file for us, whatever ssh says."""

# Where we refuse what ssh -G does not: our words for it, and why.
STRICTER = {
    r"not \[user@\]host|user name before the @": "a hop that ssh finds out about when it dials",
    r"CheckHostIP changes": "said to be not supported",
}
NOT_EXPANDED = ["IdentityFile", "CertificateFile", "RevokedHostKeys"]
"""Words whose tokens we replace, and ``ssh -G`` does not."""

METHODS = ["publickey", "keyboard-interactive", "password"]

ODD = 0.04
"""How often something odd is written."""

# What may stand behind a word: what usually does, and what is odd.
SECONDS = "5|0|1m|1m30s|2H|none", "+5|1m +5|-1|1x|1w2d|NONE|''"
NUMBERS = "0|1|3|2048", "+3|-1|x|' 4'|99999999999|''|007|3 4"
FLAGS = "yes|no|true|False", "maybe||''|yes no"
PATHS = "/a|/b|~/c|none", "''|/a /b"
FILES = (
    "/a|/a /b|~/x|none|/%%/%h/%p/%r/%n/%k|/%C|${HOME}/k|\"/a\" '/c'",
    "none /a|/a none|''|# c|NONE|${TUNNELEDZMQ_NOT_SET}|/%z|/%",
)
VALUES: dict[str, tuple[str, str]] = {
    "User": (f"b|bob|{USER}", "''|b c|\"b\"|'b c'|b#c|\"b|%r"),
    "Port": ("22|23|65535|ssh", "+5|-1|0|65536|' 7'|none|0x10|007"),
    "HostName": (
        "h|%h.x|Real|real.x|127.1|::1|127.0.0.1",
        "%%h|%|%z|0x7f.1|010.0.0.1|2001:DB8::1|FE80::1|1.2.3.4.5|0x7g|10",
    ),
    "ConnectTimeout": SECONDS,
    "ServerAliveInterval": SECONDS,
    "ServerAliveCountMax": NUMBERS,
    "NumberOfPasswordPrompts": NUMBERS,
    "RequiredRSASize": NUMBERS,
    "Compression": ("yes|no", "true|x"),
    "IdentitiesOnly": FLAGS,
    "BatchMode": FLAGS,
    "HashKnownHosts": FLAGS,
    "ForwardAgent": FLAGS,
    "AddressFamily": ("any|inet|inet6|INET", "x|"),
    "StrictHostKeyChecking": ("yes|no|ask|off|accept-new", "ACCEPT-NEW|x"),
    "HostKeyAlias": ("Alias|alias2", "''|\xc4lias|%h"),
    "IdentityFile": PATHS,
    "CertificateFile": PATHS,
    "UserKnownHostsFile": FILES,
    "GlobalKnownHostsFile": FILES,
    "RevokedHostKeys": ("/r|none", "''|/r /s"),
    "IdentityAgent": (
        "none|SSH_AUTH_SOCK|/run/%u/%h|~/agent|${HOME}/x",
        "${TUNNELEDZMQ_NOT_SET}|${|${}|%z|''",
    ),
    "ProxyJump": (
        "hop|bob@hop:2222|a,bob@b,c:23|none|[::1]:23|ssh://u@h:7|h:ssh|h:",
        "'hop'|\"hop\"|a # b|a,,b|a:b|a/b|@a|a@|ssh://a/b|None|,|ssh://|a b|h:0|h:+5|[::1]x|"
        "ssh://u;p=1@h/|ssh://-h|a@b@c",
    ),
    "ProxyCommand": ("x y|none|z", "= x|a 'b  c' \"d\" # e|NONE|\"x|''"),
    "BindAddress": ("127.0.0.1|::1", "a b|''"),
    "PreferredAuthentications": ("password,publickey|publickey", "''"),
    "Ciphers": ("aes256-ctr,aes128-gcm@openssh.com|aes128-ctr", "''"),
    "MACs": ("hmac-sha2-512|hmac-sha2-256,hmac-sha2-512", "''"),
    "KexAlgorithms": ("curve25519-sha256|ecdh-sha2-nistp256", "''"),
    "IgnoreUnknown": ("New*|other,new*|nothing", "''|a b|!NewWord,*"),
    "NewWord": ("x|x y", "'x|"),
    "EscapeChar": ("none|~", "xy"),
    "CheckHostIP": ("no", "yes|x"),
    "KeepAlive": FLAGS,
    "Protocol": ("2", "x y z"),
}
BLOCKS = ["Host", "Match", "Match", "Include"]
PATTERNS = (
    "name|n*|?ame|*|real|*.x|127.0.0.1|!name|!other|name real|* !h",
    "''|# name|\"name\" x|NAME|!|[n]ame|name,real|'n*' !x|name ''",
)
CRITERIA = (
    "all|final|canonical|!final|host name|host n*,real|originalhost name|host !name,*|!host real|"
    f"user bob|user {USER},b|localuser {USER}|!user bob|final all|exec true|!exec false|"
    'exec "test %h = name"|host 127.0.0.1',
    "!all|host|nonsense x|user ''|all all|all # c|# c|host=name|all x|host NAME|Host name|''|'|"
    'host "name" ""|user bob all|exec %z|FINAL|host "name|canonical host name all|host ,name|'
    f"final user bob all|all '' x|host {'x' * 1023},name|host name,{'x' * 1022}",
)
LINES = (
    '|  |# User x|\f|User|=User b|==User b|""User b|"User b|"User" b|User=|User =b|User==b|'
    '\vUser b|User b\0c|Us"er" b|User\fb|"#" x|Ho st'
)


class Writer:
    """Writes config files.

    Args:
        included: a directory of files that they include.
    """

    def __init__(self, included: Path) -> None:
        self._included = included
        (included / "1").write_text("User b\nHost name\n Port 9\nHost other\n Port 8\n")
        (included / "2").write_text("Match user bob\n HostKeyAlias x\nMatch all\nIdentityFile /i\n")
        (included / "3").write_text("Match final\n User c\n")
        (included / "4").symlink_to("nothing")

    def write(self, chance: random.Random) -> tuple[str, str]:
        """Return the text of a file, and the host to look up in it."""
        lines = [self._line(chance) for _ in range(chance.randint(1, 9))]
        lines = [self._damage(chance, line) if chance.random() < ODD else line for line in lines]
        text = "".join(f"{line}\n" for line in lines)
        return text.replace("INCLUDED", str(self._included)), chance.choice(HOSTS)

    def _line(self, chance: random.Random) -> str:
        if chance.random() < ODD:
            return chance.choice(LINES.split("|"))
        word = chance.choice([*VALUES, *BLOCKS * 4])
        if word == "Include":
            value = f"INCLUDED/{chance.choice(['1', '2', '3', '4', '*', '[12]', 'none'])}"
        elif word == "Match":
            value = " ".join(self._one(chance, CRITERIA) for _ in range(chance.choice([1, 1, 2])))
        else:
            value = self._one(chance, PATTERNS if word == "Host" else VALUES[word])
        blank = " "
        if chance.random() < ODD:
            word = chance.choice([word.upper(), word.lower(), f'"{word}"'])
            blank = chance.choice(["=", " = ", "\t", " \t ", "= ", "\r"])
            value += chance.choice(["", " # c", " ", "\r", "\f", "\t", " #", "#c"])
        return f"{chance.choice(['', ' '])}{word}{blank}{value}"

    def _damage(self, chance: random.Random, line: str) -> str:
        at = chance.randrange(len(line) + 1)
        return (
            line[:at]
            + chance.choice("""'" =#\\%,!*\t\f\r\0a1-""")
            + line[at + chance.randrange(2) :]
        )

    def _one(self, chance: random.Random, choices: tuple[str, str]) -> str:
        usual, odd = choices
        return chance.choice((odd if chance.random() < ODD else usual).split("|"))


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    return Writer(tmp_path_factory.mktemp("included"))


@pytest.fixture(scope="session")
def their_defaults() -> dict[str, list[str]]:
    said = ask_openssh("/dev/null", "name")
    assert isinstance(said, dict)
    return said


@needs("ssh")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", chunks(SEEDS, 150), ids=str)
def test_ssh_makes_the_same_of_it(
    seeds: range, writer: Writer, their_defaults: dict[str, list[str]], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    wrong = []
    for seed in seeds:
        text, host = writer.write(random.Random(seed))
        file.write_bytes(text.encode())
        differences = compare(file, host, their_defaults)
        if differences:
            wrong.append(f"{seed}: {host}\n{text}\n{differences}")
    assert not wrong, "\n\n".join(wrong)


def ask_openssh(path: str | Path, host: str) -> dict[str, list[str]] | str:
    """Return what ``ssh -G`` says, or why it refuses."""
    command = ["ssh", "-G", "-F", str(path), "--", host]
    answer = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        return answer.stderr.decode(errors="replace") or "without a word"
    found: dict[str, list[str]] = {}
    for line in os.fsdecode(answer.stdout).split("\n"):
        word, _, value = line.partition(" ")
        found.setdefault(word, []).append(value)
    return found


def compare(file: Path, host: str, their_defaults: dict[str, list[str]]) -> str:
    """Return where we and ssh differ, but for what is accounted for."""
    theirs = ask_openssh(file, host)
    try:
        ours = as_openssh_says_it(resolve(request(host, file)))
    except LoginError as exc:
        accounted = any(re.search(words, exc.message) for words in STRICTER)
        accounted = accounted or only_about(NOT_EXPANDED, exc.message, file)
        return "" if isinstance(theirs, str) or accounted else f"only we refuse: {exc.message}"
    if isinstance(theirs, str):
        return "" if only_about(NOT_LOOKED_AT, theirs, file) else f"only ssh refuses: {theirs}"
    if theirs["serveraliveinterval"] == ["300"] and theirs["batchmode"] == ["yes"]:
        theirs["serveraliveinterval"] = ["0"]  # Debian's default
    if theirs["serveralivecountmax"] == ["0"]:  # never to give up; for us, never to ask
        theirs |= {"serveralivecountmax": ["3"], "serveraliveinterval": ["0"]}
    differences = []
    for word, values in ours.items():
        said = theirs.get(word, [])
        default = OUR_DEFAULTS.get(word) if said == their_defaults.get(word, []) else None
        if values not in (as_we_say_it(word, said), default):
            differences.append(f"{word}: {values}, ssh has {said}")
    return "\n".join(differences)


def as_we_say_it(word: str, values: list[str]) -> list[str]:
    """Return what ssh says of a word, as we would."""
    text = values[0] if values else ""
    if word.endswith("knownhostsfile"):
        files = text.split(" ") if text != "none" else []
        return [" ".join(map(in_full, files))]
    if word in ("identityfile", "certificatefile"):
        return [in_full(value) for value in values if value != "none"]
    if word == "proxyjump":
        # With a comment behind it, ssh takes none for the name of a hop.
        return [",".join(map(str, parse_hops(text)))] if text not in ("", "none") else []
    if word == "requiredrsasize":
        return [str(max(1024, int(text)))]
    if (word, text) in [("connecttimeout", "0"), ("connecttimeout", "none")]:
        return ["10"]
    if word == "revokedhostkeys":
        return [os.path.abspath(text)] if values else []
    if word == "identityagent" and text != "none":
        return [os.path.abspath(text)] if values and text != "SSH_AUTH_SOCK" else []
    if word == "preferredauthentications":
        return [",".join(method for method in text.split(",") if method in METHODS)]
    return [STRICT.get(value, value) for value in values]


def in_full(path: str) -> str:
    return os.path.join(os.getcwd(), re.sub("^~", HOME, path))


def only_about(words: list[str], message: str, file: Path) -> bool:
    """Tell whether an error is about lines with these words, and no others."""
    lines = file.read_bytes().decode().split("\n")
    wrong = [lines[int(number) - 1] for number in re.findall(r"(?:line |config:)(\d+):", message)]
    start = re.compile(rf"\W*({'|'.join(words)})\b", re.IGNORECASE)
    return bool(wrong) and all(start.match(line) for line in wrong)
