"""What it takes to log in to an SSH server: ``ssh=`` in all its forms."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import wraps
from typing import Any

from .shared.names import ServerAddress, parse_server

__all__ = [
    "DEFAULT_CONFIG_FILE",
    "SSHLike",
    "SSHOptions",
    "to_options",
]

DEFAULT_CONFIG_FILE = "~/.ssh/config"
"""The user's ssh_config(5) file."""

NO_HOPS = ("none",)
_STRICT = ("yes", "accept-new", "no", "ask")
_BACKENDS = ("sshtunnel", "openssh")


Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class SSHOptions:
    """How to reach and log in to an SSH server.

    Sockets whose options are equal share one SSH session. ``None`` means: what the config file
    says, else the default that stands here, which is OpenSSH's where it has one. The names are
    those of ssh_config(5), or zmq.ssh's where it had one.

    Raises:
        ValueError: a field is malformed.
        TypeError: a field is of another type.
    """

    server: str
    """``[user@]host[:port]`` or ``ssh://[user@]host[:port]``, where host is a name, an address
    (IPv6 in brackets), or a ``Host`` of the config file."""

    _: KW_ONLY

    keyfile: Paths | None = None
    """Private key file, or several (`str`, path, or a sequence of them), which must be usable; one
    that is locked is passed over where nobody opens it. Default: the agent's keys, then
    ``id_ed25519``, ``id_ecdsa`` and ``id_rsa`` of ``~/.ssh``."""

    passphrase: str | None = field(default=None, repr=False)
    """Passphrase of encrypted private keys. Default: `prompt` is asked."""

    password: str | None = field(default=None, repr=False)
    """Password to log in with, tried after the keys. Default: `prompt` is asked."""

    agent: bool = True
    """Whether the keys of the agent at ``$SSH_AUTH_SOCK`` are tried; without that, on Windows,
    those of OpenSSH's agent, else Pageant's."""

    jump: SSHLike | None = ()
    """Hops before `server` (ProxyJump), in order: ``"a,b"``, :class:`SSHOptions`, or a sequence of
    both. A hop given as a string takes everything but the secrets from these options. Default:
    what the config file says; ``"none"``: no hops, whatever it says."""

    config_file: str | os.PathLike[str] | None = DEFAULT_CONFIG_FILE
    """ssh_config(5) file. The default may be missing, and the system's is read after it
    (``/etc/ssh/ssh_config``; on Windows ``%ProgramData%/ssh/ssh_config``); any other file is the
    only one that is read, as with ``ssh -F``. `None` reads none."""

    known_hosts: Paths | None = None
    """known_hosts file, or several. Default: ``~/.ssh/known_hosts`` and the system's. With
    ``"accept-new"``, keys are added to the first."""

    strict_host_key_checking: str | None = None
    """``"yes"`` (default; ``"ask"`` is treated as yes): an unknown key is an error.
    ``"accept-new"``: it is added to `known_hosts`, a changed one is an error. ``"no"``: a changed
    key is logged as a warning, and no password is sent to it."""

    compression: bool | None = None
    """Whether to compress. Default: no."""

    ciphers: str | Sequence[str] | None = None
    """Ciphers in order of preference, comma-separated or a sequence. Default: aes128-gcm first."""

    connect_timeout: float | None = None
    """Seconds for the whole login. Default: 10."""

    server_alive_interval: float | None = None
    """Seconds of silence after which the server is asked whether it is alive; 0 never asks.
    Default: 15."""

    server_alive_count_max: int | None = None
    """Unanswered questions after which the session counts as lost. Default: 3."""

    prompt: Callable[[str, bool], str] | None = None
    """``prompt(text, echo) -> str``, asked for passwords, passphrases and one-time codes; `echo`
    tells whether what is typed may be seen. Default: the terminal (`getpass`), if the program has
    one; otherwise a missing secret is an error."""

    backend: str = "sshtunnel"
    """``"sshtunnel"`` (on paramiko), or ``"openssh"`` (the system's ``ssh``), for what paramiko
    cannot do: FIDO keys, GSSAPI, PKCS#11."""

    connections: int = 1
    """SSH sessions over which the sockets are spread in turn."""

    persist: float = 0
    """Seconds for which an SSH session outlives its last tunnel, for the next one (ControlPersist);
    never the program."""

    def __post_init__(self) -> None:
        _check_type("server", self.server, (str,), "a str")
        parse_server(self.server)
        for name in ("keyfile", "known_hosts"):
            self._normalize(name, _paths(name, getattr(self, name)))
        if self.ciphers is not None:
            self._normalize("ciphers", _names("ciphers", self.ciphers))
        if self.config_file is not None:
            self._normalize("config_file", _path("config_file", self.config_file, "a path"))
        for name in ("passphrase", "password"):
            _check_type(name, getattr(self, name), (str, type(None)), "a str")
        _check_type("agent", self.agent, (bool,), "True or False")
        _check_type("compression", self.compression, (bool, type(None)), "True, False or None")
        if self.strict_host_key_checking not in (None, *_STRICT):
            raise ValueError(
                f"strict_host_key_checking must be one of {', '.join(_STRICT)}, "
                f"not {self.strict_host_key_checking!r}"
            )
        if self.backend not in _BACKENDS:
            raise ValueError(f"backend must be one of {_BACKENDS}, not {self.backend!r}")
        _check_number("connect_timeout", self.connect_timeout, above=0)
        _check_number("server_alive_interval", self.server_alive_interval, least=0)
        _check_number("server_alive_count_max", self.server_alive_count_max, least=1)
        _check_number("connections", self.connections, least=1)
        _check_number("persist", self.persist, least=0)
        for name in ("server_alive_count_max", "connections"):
            if isinstance(getattr(self, name), float):
                raise TypeError(f"{name} must be an int, not float")
        for name in ("connections", "persist"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a number, not None")
        if self.prompt is not None and not callable(self.prompt):
            raise TypeError(f"prompt must be callable, not {type(self.prompt).__name__}")
        self._normalize("jump", _hops(self.jump))

    def _normalize(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def address(self) -> ServerAddress:
        """`server`, taken apart."""
        return parse_server(self.server)

    @property
    def hop(self) -> SSHOptions | None:
        """The options of the hop from which `server` is reached, with the hops before it."""
        return None if self.jump == NO_HOPS else self.through(self.jump or ())

    def through(self, hops: SSHLike) -> SSHOptions | None:
        """Return the options of the last of some `hops`, which is reached through the others."""
        last = None
        for hop in _hops(hops):
            if isinstance(hop, str):
                hop = replace(self, server=hop, passphrase=None, password=None, jump=())
            last = hop if last is None else hop._behind(last)
        return last

    def _behind(self, *hops: SSHOptions) -> SSHOptions:
        own = () if self.jump == NO_HOPS else _hops(self.jump)
        return replace(self, jump=(*hops, *own))


# Words of other libraries, and where it stands here.
_OTHER_WORDS = {
    "host": "it is the first argument, [user@]host[:port]",
    "hostname": "it is the first argument, [user@]host[:port]",
    "port": "it stands in the first argument, [user@]host:port",
    "user": "it stands in the first argument, user@host",
    "username": "it stands in the first argument, user@host",
    "key_filename": "it is keyfile=, a path or several",
    "key_file": "it is keyfile=, a path or several",
    "identity_file": "it is keyfile=, a path or several",
    "client_keys": "it is keyfile=, a path or several",
    "pkey": "it is keyfile=, a path or several; keys that are loaded already stay in the ssh-agent",
    "ssh_pkey": "it is keyfile=, a path or several",
    "timeout": "it is connect_timeout=",
    "look_for_keys": "they are looked for unless keyfile= names others",
    "allow_agent": "it is agent=",
    "compress": "it is compression=",
    "proxy_jump": "it is jump=",
    "config": "it is config_file=",
}


def _with_hints(init: Callable[..., None]) -> Callable[..., None]:
    """Say what to write in place of another library's word."""

    @wraps(init)
    def init_or_hint(self: SSHOptions, *args: Any, **fields: Any) -> None:
        for name in fields:
            if name in _OTHER_WORDS:
                raise TypeError(f"SSHOptions has no {name}=: {_OTHER_WORDS[name]}")
        init(self, *args, **fields)

    return init_or_hint


SSHOptions.__init__ = _with_hints(SSHOptions.__init__)  # type: ignore[method-assign]

SSHLike = str | SSHOptions | Sequence[str | SSHOptions]
"""What ``ssh=`` takes: a server, its options, or the hops in order."""


def to_options(ssh: SSHLike) -> SSHOptions:
    """Turn what was given as ``ssh=`` into options.

    Raises:
        ValueError: it is empty or malformed.
        TypeError: it is of another type.
    """
    if isinstance(ssh, SSHOptions):
        return ssh
    if isinstance(ssh, str):
        return SSHOptions(ssh)
    if not isinstance(ssh, Sequence) or isinstance(ssh, (bytes, bytearray)):
        raise TypeError(
            f"ssh= must be a str, SSHOptions or a sequence of them, not {type(ssh).__name__}"
        )
    if not ssh:
        raise ValueError("ssh= is empty; to connect without a tunnel, pass ssh=None")
    *hops, last = map(to_options, ssh)
    return last._behind(*hops) if hops else last


def _hops(jump: SSHLike | None) -> tuple[str | SSHOptions, ...]:
    if jump is None or isinstance(jump, SSHOptions):
        return () if jump is None else (jump,)
    if isinstance(jump, str):
        jump = [hop.strip() for hop in jump.split(",")]
    if not isinstance(jump, Sequence) or isinstance(jump, (bytes, bytearray)):
        raise TypeError(f"jump= must be servers or SSHOptions, not {type(jump).__name__}")
    for hop in jump:
        if isinstance(hop, str):
            parse_server(hop, "jump")
        elif not isinstance(hop, SSHOptions):
            raise TypeError(f"jump= must be servers or SSHOptions, not {type(hop).__name__}")
    if len(jump) > 1 and "none" in jump:
        raise ValueError(f"jump= names hops and none of them (jump={jump!r})")
    return tuple(jump)


# What there is without paths.
_DEFAULT_PATHS = {
    "keyfile": "the agent's keys and the default ones",
    "known_hosts": "the default files",
}


def _paths(name: str, value: Paths | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    what = "a path or a sequence of paths"
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    items = [_path(name, item, what) for item in _items(name, value, what)]
    if not any(items):
        raise ValueError(f"{name} is empty: leave it out for {_DEFAULT_PATHS[name]}")
    if not all(items):
        raise ValueError(f"{name} must be {what}, not {value!r}")
    return tuple(items)


def _path(name: str, value: Any, what: str) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    _check_type(name, path, (str,), what)
    return str(path)


def _names(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    what = "a str or a sequence of them"
    items = value.split(",") if isinstance(value, str) else _items(name, value, what)
    for item in items:
        _check_type(name, item, (str,), what)
    return tuple(items)


def _items(name: str, value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, Iterable) or isinstance(value, (bytes, bytearray)):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")
    return list(value)


def _check_type(name: str, value: object, kinds: tuple[type, ...], what: str) -> None:
    # Never with the value: it may be a secret.
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")


def _check_number(
    name: str, value: float | None, *, above: float | None = None, least: float | None = None
) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    # Written so that NaN fails too.
    if not (value > above if above is not None else value >= (least or 0)) or value == float("inf"):
        bound = f"above {above}" if above is not None else f"at least {least}"
        raise ValueError(f"{name} must be {bound}, not {value!r}")
