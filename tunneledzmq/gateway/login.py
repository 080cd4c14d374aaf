"""Logging in: from a name to an authenticated SSH session, or an error that says what to do."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.ssh_exception import BadAuthenticationType, IncompatiblePeer

from . import known_hosts
from .known_hosts import KnownHosts, Verdict

if TYPE_CHECKING:
    from .transport import ForwardTransport

__all__ = ["Login", "LoginError", "authenticate", "connect", "handshake"]

logger = logging.getLogger("tunneledzmq")


@dataclass
class Login:
    """Where and how to log in, with all defaults resolved; paths are absolute."""

    server: str
    host: str
    port: int
    user: str
    keyfiles: list[str] | None
    default_keyfiles: list[str]
    passphrase: str | None
    password: str | None
    agent: bool
    known_hosts: list[str] | None
    strict_host_key_checking: str
    compression: bool
    ciphers: list[str] | None
    connect_timeout: float
    server_alive_interval: float
    server_alive_count_max: int

    def __repr__(self) -> str:
        return f"<Login {self.server}>"


class LoginError(Exception):
    """No session.

    Args:
        kind: name of the class in :mod:`tunneledzmq.exceptions`.
        errno: an errno code.
        message: for the user.
    """

    def __init__(self, kind: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.errno = errno
        self.message = message

    def describe(self) -> dict[str, Any]:
        """Return the error as the control protocol has it."""
        return {"kind": self.kind, "errno": self.errno, "message": self.message}


def _no_connection(login: Login, code: int, text: str) -> LoginError:
    return LoginError("SSHConnectionError", code, f"{login.server}: {text}")


def _no_entry(login: Login, code: int, text: str) -> LoginError:
    return LoginError("SSHAuthenticationError", code, f"{login.server}: {text}")


def timed_out(login: Login) -> LoginError:
    """Make the error for a login that took longer than it may."""
    return _no_connection(
        login,
        errno.ETIMEDOUT,
        f"no answer within connect_timeout ({login.connect_timeout:g} s): is the host up, is the "
        "port right, and does a firewall let it through?",
    )


# Reaching the server


def connect(login: Login) -> socket.socket:
    """Connect to the server, trying its addresses one after the other.

    Raises:
        LoginError: the name is not found, or no address can be reached.
    """
    _load_keyfiles(login)  # a key that cannot be used needs no server to be found out
    deadline = time.monotonic() + login.connect_timeout
    try:
        found = socket.getaddrinfo(login.host, login.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise _no_connection(
            login,
            errno.EHOSTUNREACH,
            f"the name {login.host!r} was not found ({exc}): check how it is written",
        ) from exc
    failure: OSError = TimeoutError()
    for left, (family, kind, protocol, _, address) in zip(
        range(len(found), 0, -1), found, strict=True
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.1, (deadline - time.monotonic()) / left))
            sock.connect(address)
            _watch_peer(sock, login)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    if isinstance(failure, TimeoutError):
        raise timed_out(login) from failure
    if isinstance(failure, ConnectionRefusedError):
        advice = "the connection was refused: does an SSH server listen on that port?"
    else:
        advice = f"cannot be reached: {failure.strerror or failure}"
    raise _no_connection(login, failure.errno or errno.ECONNABORTED, advice) from failure


def _watch_peer(sock: socket.socket, login: Login) -> None:
    """Let the kernel give up on a peer that acknowledges nothing, as we do at a higher level."""
    patience = login.server_alive_interval * login.server_alive_count_max
    if patience and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))


# Who the server is


def handshake(transport: ForwardTransport, login: Login) -> None:
    """Exchange keys and verify the server's; nothing secret is sent before.

    Raises:
        LoginError: it speaks no SSH, or its host key is not the one that it should be.
    """
    files = login.known_hosts
    try:
        hosts = KnownHosts.load(
            files
            if files is not None
            else [*known_hosts.DEFAULT_USER_FILES, *known_hosts.DEFAULT_SYSTEM_FILES]
        )
    except OSError as exc:
        raise LoginError(
            "HostKeyError",
            exc.errno or errno.EIO,
            f"{login.server}: the known_hosts file {exc.filename!r} cannot be read: {exc.strerror}",
        ) from exc
    _choose_algorithms(transport, login, hosts)
    transport.banner_timeout = transport.handshake_timeout = login.connect_timeout
    try:
        transport.start_client(timeout=login.connect_timeout)
        key = transport.get_remote_server_key()
    except IncompatiblePeer as exc:
        raise _no_connection(
            login, errno.EPROTO, f"no common algorithms with the server: {exc}"
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _no_ssh(transport, login, exc) from exc
    _check_host_key(login, hosts, key)
    transport.pin_host_key()


def _choose_algorithms(transport: ForwardTransport, login: Login, hosts: KnownHosts) -> None:
    options = transport.get_security_options()
    if login.ciphers is not None:
        try:
            options.ciphers = login.ciphers
        except ValueError as exc:
            raise LoginError(
                "SSHConnectionError",
                errno.EINVAL,
                f"{login.server}: ciphers={','.join(login.ciphers)}: there is one among them that "
                "this version does not know",
            ) from exc
    # Ask for the kinds of keys first that are known for this host, as OpenSSH does.
    known = hosts.key_types(login.host, login.port)
    wanted = [
        name
        for kind in known
        for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))
        if name in options.key_types
    ]
    rest = [name for name in options.key_types if name not in wanted]
    options.key_types = tuple(dict.fromkeys(wanted + rest))


def _no_ssh(transport: ForwardTransport, login: Login, exc: Exception) -> LoginError:
    text = str(exc)
    if isinstance(exc, ConnectionError) or (isinstance(exc, EOFError) and transport.remote_version):
        return _no_connection(
            login, errno.ECONNRESET, "the server closed the connection before the login"
        )
    if "No existing session" in text:  # start_client() ran out of time
        return timed_out(login)
    return _no_connection(
        login, errno.EPROTO, f"no SSH server there, or a broken one: {text or 'it hung up'}"
    )


def _check_host_key(login: Login, hosts: KnownHosts, key: paramiko.PKey) -> None:
    verdict = hosts.verify(login.host, login.port, key)
    strict = login.strict_host_key_checking
    if verdict is Verdict.KNOWN:
        return
    print_ = f"{key.get_name()} {known_hosts.fingerprint(key)}"
    files = login.known_hosts or list(known_hosts.DEFAULT_USER_FILES[:1])
    if verdict is Verdict.REVOKED:
        raise LoginError(
            "HostKeyError",
            errno.EACCES,
            f"{login.server}: the host key {print_} is marked as revoked in known_hosts",
        )
    if verdict is Verdict.CHANGED:
        name = _quoted(known_hosts.lookup_name(login.host, login.port))
        where = ", ".join(
            f"{known.file}:{known.line}" for known in hosts.find(login.host, login.port)
        )
        text = (
            f"{login.server}: the host key has changed: the server has {print_}, known_hosts has "
            f"another one ({where}). Somebody may be listening in between. If the server really "
            f"has a new key: ssh-keygen -R {name}"
        )
        if strict != "no":
            raise LoginError("HostKeyChangedError", errno.EACCES, text)
        logger.warning("%s; going on without password, as strict_host_key_checking=no", text)
        login.password = None
        return
    if strict == "yes":
        raise LoginError(
            "UnknownHostKeyError",
            errno.EACCES,
            f"{login.server}: the host key {print_} is not in {', '.join(files)}. If that is the "
            f"server's fingerprint: ssh-keyscan -p {login.port} -t {_scan_type(key)} {login.host} "
            f">> {files[0]} (or strict_host_key_checking='accept-new')",
        )
    try:
        known_hosts.add(files[0], login.host, login.port, key)
    except (OSError, ValueError) as exc:
        logger.warning("%s: the host key was not added to known_hosts: %s", login.server, exc)
    else:
        logger.info("%s: added the host key %s to %s", login.server, print_, files[0])


def _scan_type(key: paramiko.PKey) -> str:
    name = key.get_name()
    return "ecdsa" if "ecdsa" in name else "ed25519" if "ed25519" in name else "rsa"


def _quoted(text: str) -> str:
    return f"'{text}'" if "[" in text else text


# Who we are


def authenticate(transport: ForwardTransport, login: Login) -> None:
    """Log in with the keys, and with the password at last.

    Raises:
        LoginError: the server let us in with none of them.
    """
    transport.auth_timeout = login.connect_timeout
    tried: list[str] = []
    allowed: list[str] = []
    try:
        for name, key in _keys(login):
            tried.append(name)
            try:
                allowed = transport.auth_publickey(login.user, key)
            except BadAuthenticationType as exc:
                allowed = exc.allowed_types
                break
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    raise
                continue
            if not allowed:
                return
            break  # the server wants another method on top
        if login.password is not None:
            tried.append("password")
            try:
                allowed = transport.auth_password(login.user, login.password)
            except BadAuthenticationType as exc:
                allowed = exc.allowed_types
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    raise
            else:
                if not allowed:
                    return
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _no_entry(
            login,
            errno.EACCES,
            f"the server broke the login off after {', '.join(tried)}: {exc}; with many keys in "
            "the agent, name the right one with keyfile= and set agent=False",
        ) from exc
    if not tried:
        raise _no_entry(
            login,
            errno.EACCES,
            f"no key and no password to log in as {login.user!r}: pass keyfile= or password=, or "
            "start an ssh-agent with a key",
        )
    wants = f"; it accepts {', '.join(allowed)}" if allowed else ""
    raise _no_entry(
        login,
        errno.EACCES,
        f"the server did not let {login.user!r} in with {', '.join(tried)}{wants}. Is the public "
        "key in its authorized_keys, and the user name right?",
    )


def _keys(login: Login) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield the keys to try, with names for messages: files given, the agent's, default files."""
    yield from _load_keyfiles(login)
    if login.agent:
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                yield f"the agent's {key.get_name()} key", key
        except paramiko.SSHException as exc:
            logger.debug("%s: ssh-agent: %s", login.server, exc)
        finally:
            agent.close()
    if login.keyfiles is None:
        for path in login.default_keyfiles:
            if os.path.exists(path):
                try:
                    yield path, _load_key(login, path)
                except LoginError as exc:
                    logger.info("%s", exc)


def _load_keyfiles(login: Login) -> list[tuple[str, paramiko.PKey]]:
    return [(path, _load_key(login, path)) for path in login.keyfiles or ()]


def _load_key(login: Login, path: str) -> paramiko.PKey:
    try:
        # Opened here because paramiko would not tell a directory from a key in a strange format.
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except OSError as exc:
        raise _no_entry(
            login,
            exc.errno or errno.EIO,
            f"the key file {path} cannot be read: {exc.strerror}",
        ) from exc
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        raise _no_entry(
            login,
            errno.EACCES,
            f"the key file {path} can be read by others, so it is not used: chmod 600 {path}",
        )
    passphrase = login.passphrase.encode() if login.passphrase is not None else None
    try:
        return paramiko.PKey.from_path(path, passphrase)
    except (paramiko.PasswordRequiredException, TypeError) as exc:
        raise _no_entry(
            login, errno.EACCES, f"the key file {path} is encrypted: pass passphrase="
        ) from exc
    except Exception as exc:
        # What cryptography and paramiko raise for a wrong passphrase depends on the format.
        if login.passphrase is not None:
            advice = f"the passphrase for the key file {path} is wrong, or the file is no key"
        else:
            advice = f"the key file {path} is in no format that paramiko knows"
        raise _no_entry(login, errno.EACCES, f"{advice} ({exc})") from exc
