"""From what the program asked for to how to log in: ssh_config(5)."""

from __future__ import annotations

import os

from .login import Login, Request

__all__ = ["resolve"]


def resolve(request: Request) -> Login:
    """Look up what the program left to the config file, and to OpenSSH's defaults.

    Raises:
        LoginError: the config file cannot be used.
    """
    user = request.user or request.local_user
    port = request.port or 22
    ssh = os.path.join(request.home, ".ssh")
    strict = request.strict_host_key_checking
    interval = request.server_alive_interval
    return Login(
        server=server_name(user, request.host, port),
        host=request.host,
        port=port,
        user=user,
        behind_hop=request.jump == "given",
        connect_timeout=request.connect_timeout or 10.0,
        server_alive_interval=15.0 if interval is None else interval,
        server_alive_count_max=request.server_alive_count_max or 3,
        compression=bool(request.compression),
        ciphers=request.ciphers,
        strict_host_key_checking="yes" if strict in (None, "ask") else str(strict),
        user_known_hosts=request.known_hosts
        or [os.path.join(ssh, "known_hosts"), os.path.join(ssh, "known_hosts2")],
        global_known_hosts=[]
        if request.known_hosts
        else ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"],
        keyfiles=request.keyfiles,
        identity_files=[os.path.join(ssh, f"id_{kind}") for kind in ("ed25519", "ecdsa", "rsa")],
        agent=request.agent,
        passphrase=request.passphrase,
        password=request.password,
    )


def server_name(user: str, host: str, port: int) -> str:
    """Return ``user@host:port``, for messages."""
    return f"{user}@[{host}]:{port}" if ":" in host else f"{user}@{host}:{port}"
