"""What messages call the options: as the API does, or in the words of the command line."""

from __future__ import annotations

import re

__all__ = ["FLAGS", "say", "speak_of_flags"]

FLAGS = {
    "addr": "ADDR",
    "agent": "IdentityAgent",
    "backend": "--backend",
    "ciphers": "Ciphers",
    "compression": "Compression",
    "config_file": "-F",
    "connect_timeout": "--connect-timeout",
    "jump": "-J",
    "keyfile": "-i",
    "known_hosts": "--known-hosts",
    "local": "--local",
    "passphrase": "SSH_ASKPASS",
    "password": "SSH_ASKPASS",
    "persist": "--persist",
    "prompt": "SSH_ASKPASS",
    "server_alive_count_max": "ServerAliveCountMax",
    "server_alive_interval": "ServerAliveInterval",
    "ssh": "--ssh",
    "strict_host_key_checking": "StrictHostKeyChecking",
}
"""What the command line has for each option of the API: a flag, a keyword of ssh_config(5), or an
environment variable."""

_ANSWER = "run this at a terminal, or set SSH_ASKPASS and SSH_ASKPASS_REQUIRE=force"

# What takes more than another name, in this order.
_PHRASES = (
    # There are no secrets in a command line, which everybody on the machine can read.
    (r"(BatchMode=yes forbids .*?): pass password=", r"\1: take BatchMode out of the config file"),
    (
        r"pass keyfile= or password=",
        "name a key with -i, or run this at a terminal (or set SSH_ASKPASS) to be asked for the "
        "password",
    ),
    (r"pass keyfile=", "name a key with -i"),
    (
        r"pass password= or prompt=, or a key that opens without",
        f"{_ANSWER}, or name a key that opens without with -i",
    ),
    (r"pass prompt=, or SSHOptions with a password of its own as jump=", _ANSWER),
    (r"pass (?:\w+= or )?(?:password|passphrase|prompt)=", _ANSWER),
    (r"pass SSHOptions\(password=\.\.\.\)", "it is asked for at the terminal, or by SSH_ASKPASS"),
    (r"strict_host_key_checking='accept-new'", "--accept-new"),
    (r"within connect_timeout \(([^)]*)\)", r"within \1 (--connect-timeout)"),
    (r"set agent=False", "write IdentityAgent none into the config file"),
    (r"agent=False", "IdentityAgent none in the config file"),
    (r"pass ciphers='([^']*)'", r"write Ciphers \1 into the config file"),
    (r"backend='(\w+)'", r"--backend \1"),
    (r"ssh= is empty; .*ssh=None", "--ssh is empty"),
    (r"ssh= takes tcp://HOST:PORT addresses only", "ADDR is tcp://HOST:PORT"),
    (r"are (?:the address|addr) and (ssh|jump)= ", r"are the address and \1= "),
)

_NAME = rf"(?<![\w-])({'|'.join(FLAGS)})(?:=(\w|(?=['\"]))?|(?= must be | is empty: ))"

_speaks_of_flags = False


def speak_of_flags() -> None:
    """Have messages speak of the command line from now on: that is where the options are from."""
    global _speaks_of_flags
    _speaks_of_flags = True


def say(text: str) -> str:
    """Return a message in the words that its reader can use."""
    if not _speaks_of_flags:
        return text
    for pattern, words in _PHRASES:
        text = re.sub(pattern, words, text)
    return re.sub(_NAME, _flag, text)


def _flag(found: re.Match[str]) -> str:
    flag, value = FLAGS[found[1]], found[2]
    if value is None:
        return flag
    return f"{flag}={value}" if value and not flag.startswith("-") else f"{flag} {value}"
