"""From what the program asked for to how to log in: ssh_config(5)."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

from ...shared.system.account import SYSTEM_SSH_DIRECTORY
from ..login import Login, LoginError, Request
from .files import ClientConfig, Statement
from .settings import DEFAULT_PORT, Settings
from .tokens import Tokens

__all__ = ["methods_of", "resolve", "server_name"]

_METHODS = {
    "publickey": "pubkeyauthentication",
    "keyboard-interactive": "kbdinteractiveauthentication",
    "password": "passwordauthentication",
}
# Bits of an RSA key below which OpenSSH takes none.
_MIN_RSA_SIZE = 1024
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


def resolve(request: Request) -> Login:
    """Look up what the program left to the config file, and to OpenSSH's defaults.

    Raises:
        LoginError: the config file cannot be used.
    """
    settings = Settings(request, _read(request))
    settings.refuse()
    tokens = settings.tokens
    name = server_name(tokens.user, tokens.host, tokens.port)
    jump, command = settings.proxy()
    alive_count = _first(request.server_alive_count_max, settings.get("serveralivecountmax"), 3)
    alive_interval = _first(
        request.server_alive_interval, settings.get("serveraliveinterval", 15) or 0
    )
    return Login(
        server=name,
        host=tokens.host,
        port=tokens.port,
        user=tokens.user,
        directory=request.directory,
        address_family=settings.get("addressfamily", socket.AF_UNSPEC),
        bind_address=settings.get("bindaddress"),
        connect_timeout=request.connect_timeout or settings.get("connecttimeout") or 10.0,
        # For OpenSSH too, a count of 0 is a server that is never given up.
        server_alive_interval=alive_interval if alive_count else 0,
        server_alive_count_max=alive_count or 3,
        compression=_first(request.compression, settings.get("compression"), False),
        ciphers=request.ciphers or settings.get("ciphers"),
        kex_algorithms=settings.get("kexalgorithms"),
        macs=settings.get("macs"),
        behind_hop=request.jump == "given" or bool(jump),
        proxy_jump=jump,
        proxy_command=command,
        strict_host_key_checking=_strict(request, settings),
        user_known_hosts=_user_known_hosts(request, settings),
        global_known_hosts=_global_known_hosts(request, settings),
        hash_known_hosts=settings.get("hashknownhosts", False),
        revoked_host_keys=settings.path("revokedhostkeys"),
        host_key_alias=tokens.host_key_alias,
        host_key_algorithms=settings.get("hostkeyalgorithms"),
        ca_signature_algorithms=settings.get("casignaturealgorithms"),
        required_rsa_size=max(_MIN_RSA_SIZE, settings.get("requiredrsasize", 0)),
        pubkey_accepted_algorithms=settings.get("pubkeyacceptedalgorithms"),
        keyfiles=request.keyfiles,
        identity_files=_identity_files(request, settings),
        certificate_files=settings.paths("certificatefile"),
        identities_only=settings.get("identitiesonly", False),
        agent=request.agent and settings.get("identityagent", "").lower() != "none",
        identity_agent=_identity_agent(settings),
        passphrase=request.passphrase,
        password=request.password,
        preferred_authentications=_methods(request, settings),
        number_of_password_prompts=settings.get("numberofpasswordprompts", 3),
        batch_mode=settings.get("batchmode", False),
    )


def server_name(user: str, host: str, port: int) -> str:
    """Return ``user@host:port``, for messages."""
    return f"{user}@[{host}]:{port}" if ":" in host else f"{user}@{host}:{port}"


def _read(request: Request) -> dict[str, list[Statement]]:
    asked = Tokens(
        host_argument=request.host,
        host=request.host,
        port=request.port or DEFAULT_PORT,
        user=request.user or request.local_user,
        local_user=request.local_user,
        home=request.home,
    )
    config = ClientConfig(
        request.host, asked, request.directory, timeout=request.connect_timeout or 10.0
    )
    # Given first, these are what Match sees, and what counts.
    if request.user is not None:
        config.give("user", request.user)
    if request.port is not None:
        config.give("port", request.port)
    if request.config_file is not None:
        _read_files(request, config, request.config_file)
    return config.lookup()


def _read_files(request: Request, config: ClientConfig, path: str) -> None:
    missing = (FileNotFoundError, NotADirectoryError) if request.default_config else ()
    try:
        with suppress(*missing):
            config.read(path, of_user=True, check_owner=request.default_config)
        if request.default_config:
            path = os.path.join(SYSTEM_SSH_DIRECTORY, "ssh_config")
            with suppress(*missing):
                config.read(path, of_user=False)
    except (OSError, ValueError) as exc:
        code = (exc.errno if isinstance(exc, OSError) else None) or errno.EINVAL
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise LoginError(
            "TunnelError",
            code,
            f"{request.host}: the config file {path} cannot be read: {reason}",
        ) from exc


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _strict(request: Request, settings: Settings) -> str:
    strict = _first(request.strict_host_key_checking, settings.get("stricthostkeychecking"), "yes")
    return "yes" if strict == "ask" else str(strict)


def _user_known_hosts(request: Request, settings: Settings) -> list[str]:
    if request.known_hosts:
        return request.known_hosts
    if settings.get("userknownhostsfile") is not None:
        return settings.path_list("userknownhostsfile")
    return [os.path.join(request.home, ".ssh", name) for name in ("known_hosts", "known_hosts2")]


def _global_known_hosts(request: Request, settings: Settings) -> list[str]:
    if request.known_hosts:
        return []
    if settings.get("globalknownhostsfile") is not None:
        return settings.plain_path_list("globalknownhostsfile")
    return [os.path.join(SYSTEM_SSH_DIRECTORY, f"ssh_known_hosts{suffix}") for suffix in ("", "2")]


def _identity_files(request: Request, settings: Settings) -> list[str]:
    if settings.get("identityfile") is not None:
        return settings.paths("identityfile")
    return [os.path.join(request.home, ".ssh", name) for name in _DEFAULT_KEYS]


def _identity_agent(settings: Settings) -> str | None:
    value = settings.get("identityagent")
    if value is None or value == "SSH_AUTH_SOCK" or value.lower() == "none":
        return None
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:]) or os.devnull
    return settings.path("identityagent")


def _methods(request: Request, settings: Settings) -> list[str]:
    wanted = settings.get("preferredauthentications") or list(_METHODS)
    # What the program gave is to be used, whatever the file says.
    given = methods_of(request)
    return [
        method
        for method in dict.fromkeys([*wanted, *given])
        if method in _METHODS and (method in given or settings.get(_METHODS[method], True))
    ]


def methods_of(request: Request) -> list[str]:
    """Return the methods for which the program gave something."""
    methods = ["publickey"] if request.keyfiles is not None else []
    return methods + ["keyboard-interactive", "password"] * (request.password is not None)
