"""From a connection to a server that has proved who it is, or an error that says what to do."""

from __future__ import annotations

import errno

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from ...shared.text import because, printable
from ..login import HUNG_UP, Learned, Login, LoginError
from ..trust.certificate import CA_SIGNATURES
from ..trust.host_key import check_host_key, load_known, load_revoked
from .algorithms import apply_list, choose_algorithms
from .offer import no_common_algorithm
from .transport import ForwardTransport

__all__ = ["handshake"]


def handshake(transport: ForwardTransport, login: Login, learned: Learned) -> bool:
    """Exchange keys and verify the server's; nothing secret is sent before.

    Returns:
        Whether the server may be sent a password.

    Raises:
        LoginError: it speaks no SSH, or its host key is not the one that it should be.
    """
    hosts = load_known(login)
    revoked = load_revoked(login)
    choose_algorithms(
        transport,
        login,
        hosts.key_types(*login.known_as),
        certificates=hosts.has_authority(*login.known_as),
    )
    try:
        # It may take as long as the attempt may, by a clock that nobody sets.
        transport.start_client()
        key = transport.get_remote_server_key()
    except IncompatiblePeer as exc:
        raise login.no_connection(
            errno.EPROTO,
            "no common algorithms with the server: "
            f"{no_common_algorithm(transport) or printable(str(exc))}",
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise _no_ssh(transport, login, exc) from exc
    signatures = apply_list(login.ca_signature_algorithms or ["+"], CA_SIGNATURES, CA_SIGNATURES)
    trusted = check_host_key(
        login, learned, hosts, revoked, key, transport.host_certificate, signatures
    )
    transport.pin_host_key(key)
    return trusted


def _no_ssh(transport: ForwardTransport, login: Login, exc: Exception) -> LoginError:
    if transport.disconnect_reason:
        return login.hung_up(transport.disconnect_reason)
    # It may have ended just after the key exchange.
    exc = transport.get_exception() or exc
    if isinstance(exc, (ConnectionError, EOFError)):
        if transport.remote_version:
            return login.hung_up()
        code = errno.EPROTO if isinstance(exc, EOFError) else errno.ECONNRESET
        return login.no_connection(code, HUNG_UP)
    text = printable(str(exc))
    return login.no_connection(errno.EPROTO, because("no SSH server there, or a broken one", text))
