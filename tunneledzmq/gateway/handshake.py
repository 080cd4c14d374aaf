"""From a name to a server that has proved who it is, or an error that says what to do."""

from __future__ import annotations

import errno
import logging
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from . import known_hosts
from .known_hosts import KnownHosts, Verdict
from .login import Login, LoginError
from .questions import Questions

if TYPE_CHECKING:
    from .transport import ForwardTransport

__all__ = ["connect", "handshake"]

logger = logging.getLogger("tunneledzmq")


def connect(login: Login, questions: Questions) -> socket.socket:
    """Connect to the server: over its hop, or directly.

    Raises:
        LoginError: it cannot be reached.
    """
    if login.behind_hop:
        questions.tell("resolve", "by the hop")
        sock = _connect_over_hop(login, questions.hop(login))
        questions.tell("connect", "over the hop")
        return sock
    return _connect_directly(login, questions)


def _connect_over_hop(login: Login, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(login.connect_timeout)
        sock.connect(path)
    except OSError as exc:
        sock.close()
        raise login.no_connection(
            exc.errno or errno.ECONNABORTED, f"the gateway of its hop is gone: {exc}"
        ) from exc
    return sock


def _connect_directly(login: Login, questions: Questions) -> socket.socket:
    """Try the addresses of the server one after the other."""
    deadline = time.monotonic() + login.connect_timeout
    try:
        found = socket.getaddrinfo(login.host, login.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise login.no_connection(
            errno.EHOSTUNREACH,
            f"the name {login.host!r} was not found ({exc}): check how it is written; it must be "
            "one for the whole network, since aliases of ~/.ssh/config are not looked up yet",
        ) from exc
    questions.tell("resolve", ", ".join(dict.fromkeys(str(address[0]) for *_, address in found)))
    failure: OSError = TimeoutError()
    for left, (family, kind, protocol, _, address) in zip(
        range(len(found), 0, -1), found, strict=True
    ):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(max(0.1, (deadline - time.monotonic()) / left))
            sock.connect(address)
            _watch_peer(sock, login)
            questions.tell("connect", "{} port {}".format(*address))
            return sock
        except OSError as exc:
            if sock is not None:
                sock.close()
            failure = exc
    if isinstance(failure, TimeoutError):
        raise login.timed_out() from failure
    if isinstance(failure, ConnectionRefusedError):
        advice = "the connection was refused: does an SSH server listen on that port?"
    else:
        advice = f"cannot be reached: {failure.strerror or failure}"
    raise login.no_connection(failure.errno or errno.ECONNABORTED, advice) from failure


def _watch_peer(sock: socket.socket, login: Login) -> None:
    """Let the kernel give up on a peer that acknowledges nothing, as we do at a higher level."""
    patience = login.server_alive_interval * login.server_alive_count_max
    if patience and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))


def handshake(transport: ForwardTransport, login: Login) -> bool:
    """Exchange keys and verify the server's; nothing secret is sent before.

    Returns:
        Whether the server may be sent a password.

    Raises:
        LoginError: it speaks no SSH, or its host key is not the one that it should be.
    """
    try:
        hosts = KnownHosts.load(login.user_known_hosts + login.global_known_hosts)
    except OSError as exc:
        raise login.no_trust(
            exc.errno or errno.EIO,
            f"the known_hosts file {exc.filename!r} cannot be read: {exc.strerror}",
        ) from exc
    _choose_algorithms(transport, login, hosts)
    transport.banner_timeout = transport.handshake_timeout = login.connect_timeout
    try:
        transport.start_client(timeout=login.connect_timeout)
        key = transport.get_remote_server_key()
    except IncompatiblePeer as exc:
        raise login.no_connection(
            errno.EPROTO, f"no common algorithms with the server: {exc}"
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _no_ssh(transport, login, exc) from exc
    trusted = _check_host_key(login, hosts, key)
    transport.pin_host_key()
    return trusted


def _choose_algorithms(transport: ForwardTransport, login: Login, hosts: KnownHosts) -> None:
    options = transport.get_security_options()
    if login.ciphers is not None:
        try:
            options.ciphers = login.ciphers
        except ValueError as exc:
            raise login.no_connection(
                errno.EINVAL,
                f"ciphers={','.join(login.ciphers)}: there is one among them that this version "
                f"does not know; it knows {','.join(options.ciphers)}",
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
        return login.no_connection(
            errno.ECONNRESET, "the server closed the connection before the login"
        )
    if "No existing session" in text:  # start_client() ran out of time
        return login.timed_out()
    return login.no_connection(
        errno.EPROTO, f"no SSH server there, or a broken one: {text or 'it hung up'}"
    )


def _check_host_key(login: Login, hosts: KnownHosts, key: paramiko.PKey) -> bool:
    """Tell whether the key is trusted; raise where it is an error that it is not."""
    verdict = hosts.verify(login.host, login.port, key)
    strict = login.strict_host_key_checking
    if verdict is Verdict.KNOWN:
        return True
    if verdict is Verdict.UNKNOWN and login.accepted_key not in (None, key.asbytes()):
        verdict = Verdict.CHANGED  # accepted before, though it could not be written down
    print_ = f"{key.get_name()} {known_hosts.fingerprint(key)}"
    files = login.user_known_hosts
    if verdict is Verdict.REVOKED:
        raise login.no_trust(
            errno.EACCES, f"the host key {print_} is marked as revoked in known_hosts"
        )
    if verdict is Verdict.CHANGED:
        name = _quoted(known_hosts.lookup_name(login.host, login.port))
        where = ", ".join(
            f"{known.file}:{known.line}" for known in hosts.find(login.host, login.port)
        )
        text = (
            f"the host key has changed: the server has {print_}, known_hosts has "
            f"another one ({where}). Somebody may be listening in between. If the server really "
            f"has a new key: ssh-keygen -R {name}"
        )
        if strict != "no":
            raise login.no_trust(errno.EACCES, text, "HostKeyChangedError")
        logger.warning(
            "%s: %s; going on without password, as strict_host_key_checking=no", login.server, text
        )
        return False
    if strict == "yes":
        raise login.no_trust(
            errno.EACCES,
            f"the host key {print_} is not in {', '.join(files)}. If that is the server's "
            f"fingerprint: ssh-keyscan -p {login.port} -t {_scan_type(key)} {login.host} "
            f">> {files[0]} (or strict_host_key_checking='accept-new')",
            "UnknownHostKeyError",
        )
    login.accepted_key = key.asbytes()
    try:
        known_hosts.add(files[0], login.host, login.port, key)
    except (OSError, ValueError) as exc:
        logger.warning("%s: the host key was not added to known_hosts: %s", login.server, exc)
    else:
        logger.info("%s: added the host key %s to %s", login.server, print_, files[0])
    return True


def _scan_type(key: paramiko.PKey) -> str:
    name = key.get_name()
    return "ecdsa" if "ecdsa" in name else "ed25519" if "ed25519" in name else "rsa"


def _quoted(text: str) -> str:
    return f"'{text}'" if "[" in text else text
