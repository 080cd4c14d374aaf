"""The words of ssh_config(5): what may stand behind them, and what becomes of them here."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .hops import Hop, parse_hops
from .numbers import parse_number, parse_port, parse_time

__all__ = [
    "HONOURED",
    "REFUSED",
    "UNSET",
    "Refusal",
    "canonical_word",
    "is_known",
    "parser_of",
]

Parser = Callable[[list[str], str], Any]
"""Makes the value of a line's arguments, or of its text; ValueError says what is wrong."""

_FLAG = {"yes": True, "true": True, "no": False, "false": False}

UNSET: Final = object()
"""The value of a line after which the next one with its word counts."""


# Values


def _one(convert: Callable[[str], Any]) -> Parser:
    def parse(arguments: list[str], text: str) -> Any:
        if not arguments or not arguments[0]:
            raise ValueError("missing argument")
        if len(arguments) > 1:
            raise ValueError("extra arguments at end of line")
        return convert(arguments[0])

    return parse


def _choice(choices: Mapping[str, Any]) -> Parser:
    def convert(text: str) -> Any:
        try:
            return choices[text.lower()]
        except KeyError:
            raise ValueError(f"unsupported option {text!r}: {', '.join(choices)}") from None

    return _one(convert)


def _time(text: str) -> Any:
    return UNSET if text == "none" else parse_time(text)


def _agent(text: str) -> str:
    for name, closed in re.findall(r"\$\{([^}]*)(\}?)", text):
        if not closed or not name:
            raise ValueError(f"environment variable ${{{name} is not complete")
        if name not in os.environ:
            raise ValueError(f"the environment variable ${{{name}}} is not set")
    if text.startswith("$") and not re.match(r"\$(\w+\Z|\{)", text, re.ASCII):
        raise ValueError(f"invalid environment name {text!r}")
    return text


def _names(arguments: list[str], text: str) -> Any:
    if not arguments:
        return UNSET
    if "" in arguments:
        raise ValueError("empty argument")
    if len(arguments) > 1 and "none" in map(str.lower, arguments):
        raise ValueError('"none" must stand alone')
    return [] if list(map(str.lower, arguments)) == ["none"] else arguments


def _command(arguments: list[str], text: str) -> str | None:
    command = text.lstrip(" \t=")
    return None if command.lower() == "none" else command


def _hops(arguments: list[str], text: str) -> list[Hop]:
    return parse_hops(text.lstrip(" \t="))


def _path(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _anything(arguments: list[str], text: str) -> str:
    return text


_string = _one(str)
_flag = _choice(_FLAG)
_list = _one(lambda text: text.split(","))
# OpenSSH overlooks empty names of algorithms.
_algorithms = _one(lambda text: [name for name in text.split(",") if name] or [""])


# Words

HONOURED: dict[str, Parser] = {
    "addressfamily": _choice(
        {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
    ),
    "batchmode": _flag,
    "bindaddress": _string,
    "certificatefile": _string,
    "ciphers": _algorithms,
    "compression": _choice({"yes": True, "no": False}),
    "connecttimeout": _one(_time),
    "globalknownhostsfile": _names,
    "hashknownhosts": _flag,
    "hostkeyalgorithms": _algorithms,
    "casignaturealgorithms": _algorithms,
    "hostkeyalias": _string,
    "hostname": _string,
    "identitiesonly": _flag,
    "identityagent": _one(_agent),
    "identityfile": _string,
    "ignoreunknown": _string,
    "kbdinteractiveauthentication": _flag,
    "kexalgorithms": _algorithms,
    "macs": _algorithms,
    "numberofpasswordprompts": _one(parse_number),
    "passwordauthentication": _flag,
    "port": _one(parse_port),
    "preferredauthentications": _list,
    "proxycommand": _command,
    "proxyjump": _hops,
    "pubkeyacceptedalgorithms": _algorithms,
    "pubkeyauthentication": _choice({**_FLAG, "unbound": True, "host-bound": True}),
    "refuseconnection": _string,
    "requiredrsasize": _one(parse_number),
    "revokedhostkeys": _one(_path),
    "serveralivecountmax": _one(parse_number),
    "serveraliveinterval": _one(_time),
    "stricthostkeychecking": _choice(
        {
            "yes": "yes",
            "true": "yes",
            "ask": "yes",
            "accept-new": "accept-new",
            "no": "no",
            "false": "no",
            "off": "no",
        }
    ),
    "tag": _string,
    "user": _string,
    "userknownhostsfile": _names,
}
"""What :func:`~tunneledzmq.gateway.config.resolve.resolve` makes something of."""


class Refusal(NamedTuple):
    """Why a word cannot be left out of account."""

    parse: Parser
    harmless: tuple[Any, ...]
    """Values that mean what we do anyway."""
    changes: str
    """What it changes, for messages."""


_BELIEVED = "which host keys are believed"
_REACHED = "how the server is reached"

REFUSED: dict[str, Refusal] = {
    # Where the address is known with another key, the one for the name is not believed.
    "checkhostip": Refusal(_flag, (False,), _BELIEVED),
    "bindinterface": Refusal(_string, (), _REACHED),
    "canonicalizehostname": Refusal(
        _choice({**_FLAG, "always": True}), (False,), "which server is reached"
    ),
    "gssapikeyexchange": Refusal(_flag, (False,), "how the server proves who it is"),
    "knownhostscommand": Refusal(_command, (None,), _BELIEVED),
    # Without it we ask for more proof, but where it would count, the key is not in known_hosts.
    "nohostauthenticationforlocalhost": Refusal(_flag, (False,), _BELIEVED),
    "proxyusefdpass": Refusal(_flag, (False,), _REACHED),
    # "ask" shows what the DNS says, and asks; nobody is asked about host keys here.
    "verifyhostkeydns": Refusal(_choice({**_FLAG, "ask": False}), (False,), _BELIEVED),
}
"""What changes who is believed or reached, and what we do not do."""

_OF_OPENSSH = """
addkeystoagent canonicaldomains canonicalizefallbacklocal canonicalizemaxdots
canonicalizepermittedcnames channeltimeout
clearallforwardings connectionattempts controlmaster controlpath controlpersist dynamicforward
enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports
gssapiauthentication gssapidelegatecredentials hostbasedacceptedalgorithms
hostbasedauthentication ipqos kbdinteractivedevices localcommand localforward loglevel
logverbose obscurekeystroketiming permitlocalcommand permitremoteopen pkcs11provider
rekeylimit remotecommand remoteforward requesttty securitykeyprovider sendenv sessiontype setenv
stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tcpkeepalive tunnel
tunneldevice updatehostkeys versionaddendum visualhostkey warnweakcrypto xauthlocation
"""

# That OpenSSH has given up, and takes without a word or with a warning.
_GIVEN_UP = """
afstokenpassing cipher compressionlevel fallbacktorsh globalknownhostsfile2
kerberosauthentication kerberostgtpassing protocol rhostsauthentication rhostsrsaauthentication
rsaauthentication useprivilegedport userknownhostsfile2 useroaming usersh
"""

# That Debian, Fedora and macOS have added to it.
_ADDED = """
gssapiclientidentity gssapikexalgorithms gssapirenewalforcesrekey gssapiserveridentity
gssapitrustdns protocolkeepalives setuptimeout usekeychain
"""

_WITHOUT_EFFECT = frozenset((_OF_OPENSSH + _GIVEN_UP + _ADDED).split())

_ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "identityfile2": "identityfile",
    "keepalive": "tcpkeepalive",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "rsaminsize": "requiredrsasize",
    "skeyauthentication": "kbdinteractiveauthentication",
    "smartcarddevice": "pkcs11provider",
    "tisauthentication": "kbdinteractiveauthentication",
}


def canonical_word(word: str) -> str:
    """Return the name under which a word is known today, in lower case."""
    word = word.lower() if word.isascii() else word
    return _ALIASES.get(word, word)


def is_known(word: str) -> bool:
    """Tell whether some OpenSSH takes the word (:func:`canonical_word`)."""
    return word in HONOURED or word in REFUSED or word in _WITHOUT_EFFECT


def parser_of(word: str) -> Parser:
    """Return what makes the value of a line with the word (:func:`canonical_word`)."""
    if word in REFUSED:
        return REFUSED[word].parse
    return HONOURED.get(word, _anything)
