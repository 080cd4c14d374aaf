"""From a name to a server that has proved who it is, or an error that says what to do."""

from __future__ import annotations

import errno
import logging
import re
import shlex
import socket
import time
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from ...shared.system.leg import connect_to
from ...shared.system.tcp import watch_peer
from ...shared.text import printable
from ..attempt import Attempt
from ..login import Login, LoginError
from ..questions import Questions
from ..reach.proxy_command import connect_over_command
from ..trust import known_hosts
from ..trust.known_hosts import KnownHosts, Verdict
from .algorithms import choose_algorithms

if TYPE_CHECKING:
    from .transport import ForwardTransport

__all__ = ["connect", "handshake"]

logger = logging.getLogger("tunneledzmq")


def connect(login: Login, attempt: Attempt) -> socket.socket:
    """Connect to the server: over its hop, over a command, or directly.

    Raises:
        LoginError: it cannot be reached.
    """
    questions = attempt.questions
    if login.behind_hop:
        questions.tell("resolve", "by the hop")
        sock = _connect_over_hop(login, questions.hop(login))
        done = "over the hop"
    elif login.proxy_command is not None:
        questions.tell("resolve", "by the ProxyCommand")
        sock = connect_over_command(login)
        done = f"over ProxyCommand {login.proxy_command!r}"
    else:
        sock = _connect_directly(login, questions)
        done = "{} port {}".format(*sock.getpeername())
    attempt.on_abort(sock.close)
    questions.tell("connect", done)
    return sock


def _connect_over_hop(login: Login, endpoint: str) -> socket.socket:
    try:
        return connect_to(endpoint, login.connect_timeout)
    except OSError as exc:
        raise login.no_connection(
            exc.errno or errno.ECONNABORTED, f"the gateway of its hop is gone: {exc}"
        ) from exc


def _connect_directly(login: Login, questions: Questions) -> socket.socket:
    """Try the addresses of the server one after the other."""
    deadline = time.monotonic() + login.connect_timeout
    try:
        found = socket.getaddrinfo(login.host, login.port, login.address_family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise login.no_connection(
            errno.EHOSTUNREACH,
            f"the name {login.host!r} was not found ({exc}): check how it is written; it must be "
            "known to this machine, or have a Host entry with a HostName in the config file",
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
            _bind(sock, login)
            sock.connect(address)
            watch_peer(sock, login.server_alive_interval * login.server_alive_count_max)
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


def _bind(sock: socket.socket, login: Login) -> None:
    """Choose our own address (BindAddress)."""
    if login.bind_address is None:
        return
    try:
        found = socket.getaddrinfo(login.bind_address, 0, sock.family, socket.SOCK_STREAM)
        sock.bind(found[0][4])
    except (OSError, UnicodeError) as exc:
        # The same for all addresses of the server, but for those of another family.
        raise OSError(
            errno.EADDRNOTAVAIL, f"BindAddress {login.bind_address!r} cannot be used: {exc}"
        ) from exc


def handshake(transport: ForwardTransport, login: Login) -> bool:
    """Exchange keys and verify the server's; nothing secret is sent before.

    Returns:
        Whether the server may be sent a password.

    Raises:
        LoginError: it speaks no SSH, or its host key is not the one that it should be.
    """
    hosts = _load_known(login)
    revoked = _load_revoked(login)
    choose_algorithms(transport, login, hosts.key_types(*login.known_as))
    transport.handshake_timeout = login.connect_timeout
    try:
        transport.start_client(timeout=login.connect_timeout)
        key = transport.get_remote_server_key()
    except IncompatiblePeer as exc:
        raise login.no_connection(
            errno.EPROTO, f"no common algorithms with the server: {printable(str(exc))}"
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _no_ssh(transport, login, exc) from exc
    trusted = _check_host_key(login, hosts, revoked, key)
    transport.pin_host_key(key)
    return trusted


def _no_ssh(transport: ForwardTransport, login: Login, exc: Exception) -> LoginError:
    text = printable(str(exc))
    if isinstance(exc, ConnectionError) or (isinstance(exc, EOFError) and transport.remote_version):
        return login.no_connection(
            errno.ECONNRESET, "the server closed the connection before the login"
        )
    if "No existing session" in text:  # start_client() ran out of time
        return login.timed_out("banner" if transport.remote_version else "connect")
    return login.no_connection(
        errno.EPROTO, f"no SSH server there, or a broken one: {text or 'it hung up'}"
    )


def _load_known(login: Login) -> KnownHosts:
    try:
        return KnownHosts.load(login.user_known_hosts + login.global_known_hosts)
    except OSError as exc:
        raise login.no_trust(
            exc.errno or errno.EIO,
            f"the known_hosts file {exc.filename!r} cannot be read: {exc.strerror}",
        ) from exc


def _load_revoked(login: Login) -> list[bytes]:
    if login.revoked_host_keys is None:
        return []
    try:
        return known_hosts.load_keys(login.revoked_host_keys)
    except (OSError, ValueError) as exc:
        # As with OpenSSH, no key is believed then.
        raise login.no_trust(
            getattr(exc, "errno", None) or errno.EINVAL,
            f"RevokedHostKeys {login.revoked_host_keys} cannot be read: "
            f"{getattr(exc, 'strerror', None) or exc}",
        ) from exc


def _check_host_key(
    login: Login, hosts: KnownHosts, revoked: list[bytes], key: paramiko.PKey
) -> bool:
    """Tell whether the key is trusted; raise where it is an error that it is not."""
    print_ = f"{key.get_name()} {known_hosts.fingerprint(key)}"
    verdict = hosts.verify(*login.known_as, key)
    if key.asbytes() in revoked:
        raise login.no_trust(
            errno.EACCES, f"the host key {print_} is one of {login.revoked_host_keys}"
        )
    if key.get_name() == "ssh-rsa" and key.get_bits() < login.required_rsa_size:
        raise login.no_trust(
            errno.EACCES,
            f"the host key {print_} has {key.get_bits()} bits, RequiredRSASize asks for "
            f"{login.required_rsa_size}",
        )
    if verdict is Verdict.KNOWN:
        return True
    if verdict is Verdict.UNKNOWN and login.accepted_key not in (None, key.asbytes()):
        verdict = Verdict.CHANGED  # accepted before, though it could not be written down
    if verdict is Verdict.UNKNOWN and login.strict_host_key_checking == "yes":
        raise login.no_trust(errno.EACCES, _unknown(login, key, print_), "UnknownHostKeyError")
    if verdict is Verdict.UNKNOWN:
        verdict = _remember(login, key, print_)
    if verdict is Verdict.REVOKED:
        raise login.no_trust(
            errno.EACCES, f"the host key {print_} is marked as revoked in known_hosts"
        )
    if verdict is Verdict.CHANGED:
        text = _changed(login, print_)
        if login.strict_host_key_checking != "no":
            raise login.no_trust(errno.EACCES, text, "HostKeyChangedError")
        logger.warning(
            "%s: %s; going on without password, as strict_host_key_checking=no", login.server, text
        )
        return False
    login.accepted_key = key.asbytes()
    return True


def _changed(login: Login, print_: str) -> str:
    keys = _load_known(login).find(*login.known_as)
    where = ", ".join(f"{known.file}:{known.line}" for known in keys)
    name = shlex.quote(known_hosts.lookup_name(*login.known_as))
    return (
        f"the host key has changed: the server has {print_}, known_hosts has another one "
        f"({where or 'accepted before'}). Somebody may be listening in between. If the server "
        f"really has a new key: ssh-keygen -R {name}"
    )


def _unknown(login: Login, key: paramiko.PKey, print_: str) -> str:
    files = login.user_known_hosts
    alias = login.host_key_alias
    if not files:
        return (
            f"the host key {print_} is not known, since there is no file to know it from: "
            "name one with UserKnownHostsFile or known_hosts="
        )
    scan = f"ssh-keyscan -p {login.port} -t {_scan_type(key)} {shlex.quote(login.host)}"
    if alias is not None:
        # What it prints begins with the name of the host, or with # for a comment.
        plain = re.sub(r"([/&\\])", r"\\\1", alias)
        scan += f" | sed {shlex.quote(f's/^[^# ][^ ]*/{plain}/')}"
    proxied = login.behind_hop or login.proxy_command is not None
    where = ", run where the server can be reached" if proxied else ""
    return (
        f"the host key {print_} is not in {', '.join(files)}"
        f"{f' under its HostKeyAlias {alias}' if alias else ''}. If that is the server's "
        f"fingerprint: {scan} >> {shlex.quote(files[0])}{where} "
        "(or strict_host_key_checking='accept-new')"
    )


def _remember(login: Login, key: paramiko.PKey, print_: str) -> Verdict:
    """Add the key; return the verdict on it, since another login may have been faster."""
    if not login.user_known_hosts:
        logger.info("%s: there is no file to add the host key %s to", login.server, print_)
        return Verdict.UNKNOWN
    file = login.user_known_hosts[0]
    try:
        verdict = known_hosts.add(file, *login.known_as, key, hashed=login.hash_known_hosts)
    except (OSError, ValueError) as exc:
        logger.warning("%s: the host key was not added to known_hosts: %s", login.server, exc)
        return Verdict.UNKNOWN
    if verdict is Verdict.UNKNOWN:
        logger.info("%s: added the host key %s to %s", login.server, print_, file)
    return verdict


def _scan_type(key: paramiko.PKey) -> str:
    name = key.get_name()
    return "ecdsa" if "ecdsa" in name else "ed25519" if "ed25519" in name else "rsa"
