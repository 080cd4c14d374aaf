"""Whether a server's host key is believed, or an error that says what to do."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import time
from collections.abc import Collection, Sequence

import paramiko

from ...shared.system.advice import add_output, quote
from ...shared.text import printable
from ..login import Learned, Login
from . import known_hosts
from .certificate import CA_SIGNATURES, HostCertificate
from .known_hosts import KnownHosts, Verdict

__all__ = [
    "ask_authority",
    "ask_for_scan",
    "check_host_key",
    "load_known",
    "load_revoked",
    "name_files",
]

logger = logging.getLogger("tunneledzmq")

_SECOND = os.path.join(".ssh", os.path.basename(known_hosts.DEFAULT_USER_FILES[1]))


def load_known(login: Login) -> KnownHosts:
    """Read the files of known host keys.

    Raises:
        LoginError: one of them cannot be read.
    """
    try:
        return KnownHosts.load(login.user_known_hosts + login.global_known_hosts)
    except OSError as exc:
        raise login.no_trust(
            exc.errno or errno.EIO,
            f"the known_hosts file {exc.filename!r} cannot be read: {exc.strerror}",
        ) from exc


def load_revoked(login: Login) -> list[bytes]:
    """Read the keys that are never believed (RevokedHostKeys).

    Raises:
        LoginError: they cannot be read.
    """
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


def check_host_key(
    login: Login,
    learned: Learned,
    hosts: KnownHosts,
    revoked: list[bytes],
    key: paramiko.PKey,
    certificate: HostCertificate | None = None,
    signatures: Collection[str] = CA_SIGNATURES,
) -> bool:
    """Decide on a server's key.

    A certificate of which nothing is to be believed leaves the key for what it is by itself.

    Args:
        login: whose server it is.
        learned: what the logins before have learned.
        hosts: the keys that are known.
        revoked: those that are never believed.
        key: what the server has shown.
        certificate: what an authority says of it, if the server has shown that.
        signatures: algorithms with which an authority may sign.

    Returns:
        Whether the server may be sent a password.

    Raises:
        LoginError: it is not the key that it should be.
    """
    print_ = f"{key.get_name()} {known_hosts.fingerprint(key)}"
    verdict = hosts.verify(*login.known_as, key)
    if key.asbytes() in revoked:
        raise login.no_trust(
            errno.EACCES, f"the host key {print_} is one of {login.revoked_host_keys}"
        )
    doubt = _check_authority(login, hosts, revoked, key, certificate, signatures)
    if key.get_name() == "ssh-rsa" and key.get_bits() < login.required_rsa_size:
        raise login.no_trust(
            errno.EACCES,
            f"the host key {print_} has {key.get_bits()} bits, RequiredRSASize asks for "
            f"{login.required_rsa_size}",
        )
    if verdict is Verdict.KNOWN or (doubt is None and verdict is not Verdict.REVOKED):
        return True
    if verdict is Verdict.UNKNOWN and learned.host_key not in (None, key.asbytes()):
        verdict = Verdict.CHANGED  # accepted before, though it could not be written down
    if verdict is Verdict.UNKNOWN and login.strict_host_key_checking == "yes":
        text = _unknown(login, hosts, key, print_, doubt)
        raise login.no_trust(errno.EACCES, text, "UnknownHostKeyError")
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
    learned.host_key = key.asbytes()
    return True


def _check_authority(
    login: Login,
    hosts: KnownHosts,
    revoked: list[bytes],
    key: paramiko.PKey,
    certificate: HostCertificate | None,
    signatures: Collection[str],
) -> str | None:
    """Tell why no authority vouches for the key; `None`: one does.

    Raises:
        LoginError: the authority, or the key, is revoked.
    """
    if certificate is None:
        return "the server showed no certificate"
    authority = certificate.authority
    if authority.blob in revoked:
        raise login.no_trust(
            errno.EACCES,
            f"the authority of its host certificate is one of {login.revoked_host_keys}",
        )
    verdict = hosts.verify_authority(*login.known_as, authority.blob, key.asbytes())
    if verdict is Verdict.REVOKED:
        raise login.no_trust(
            errno.EACCES,
            "the host key, or the authority of its certificate, is marked as revoked in "
            "known_hosts",
        )
    if verdict is Verdict.UNKNOWN:
        return f"its certificate is signed by another authority ({_print_of(authority.blob)})"
    name = known_hosts.lookup_name(login.known_as[0], known_hosts.SSH_PORT)
    fault = certificate.fault(name, time.time(), signatures)
    if fault is None:
        return None
    logger.warning("%s: its host certificate is not believed: %s", login.server, printable(fault))
    return f"its certificate is not believed: {printable(fault)}"


def ask_authority(host: str) -> str:
    """Say what is to be done about a key that no authority vouches for."""
    return (
        "Who runs the authority can certify the key: ssh-keygen -s CA -h -I ID -n "
        f"{quote(host)} KEY.pub"
    )


def name_files(files: Sequence[str]) -> str:
    """Name the files in which a key is not, and say which of them are not there."""
    # Nobody has the second one of the defaults.
    named = [
        file for file in files if os.path.exists(file) or not (file.endswith(_SECOND) and files[1:])
    ]
    return ", ".join(
        file if os.path.exists(file) else f"{file} (which does not exist)" for file in named
    )


def ask_for_scan(
    host: str, port: int, kind: str, file: str, alias: str | None = None, where: str = ""
) -> str:
    """Say how a key is made known, once it has been compared.

    Args:
        host: the server.
        port: its port.
        kind: the type of the key, as ssh-keyscan has it.
        file: the file of known host keys.
        alias: what the server is called in it, if it is not its name.
        where: what is to be said of the command.
    """
    command = add_output(["ssh-keyscan", "-p", str(port), "-t", kind, host], file, alias)
    accept = "strict_host_key_checking='accept-new'"
    how = accept if command is None else f"{command}{where} (or {accept})"
    return f"If that is the server's fingerprint: {how}"


def _print_of(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def _changed(login: Login, print_: str) -> str:
    keys = load_known(login).find(*login.known_as)
    where = ", ".join(f"{known.file}:{known.line}" for known in keys)
    name = quote(known_hosts.lookup_name(*login.known_as))
    # By itself it would look into ~/.ssh/known_hosts.
    file = f"-f {quote(keys[0].file)} " if keys else ""
    return (
        f"the host key has changed: the server has {print_}, known_hosts has another one "
        f"({where or 'accepted before'}). Somebody may be listening in between. If the server "
        f"really has a new key: ssh-keygen {file}-R {name}"
    )


def _unknown(
    login: Login, hosts: KnownHosts, key: paramiko.PKey, print_: str, doubt: str | None
) -> str:
    files = login.user_known_hosts
    alias = login.host_key_alias
    if hosts.has_authority(*login.known_as):
        # ssh-keyscan would take what the authority is there to tell.
        return (
            f"the host key {print_} is not known, and no @cert-authority of known_hosts vouches "
            f"for it: {doubt}. {ask_authority(login.known_as[0])}"
        )
    if not files:
        return (
            f"the host key {print_} is not known, since there is no file to know it from: "
            "name one with UserKnownHostsFile or known_hosts="
        )
    proxied = login.behind_hop or login.proxy_command is not None
    where = ", run where the server can be reached" if proxied else ""
    return (
        f"the host key {print_} is not in {name_files(files)}"
        f"{f' under its HostKeyAlias {alias}' if alias else ''}. "
        f"{ask_for_scan(login.host, login.port, _scan_type(key), files[0], alias, where)}"
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
