"""Being let in: keys, the agent, the password, or an error that says what was tried."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import BadAuthenticationType

from .login import Login, LoginError
from .questions import Questions

if TYPE_CHECKING:
    from .transport import ForwardTransport

__all__ = ["authenticate", "load_keyfiles"]

logger = logging.getLogger("tunneledzmq")


def authenticate(
    transport: ForwardTransport,
    login: Login,
    questions: Questions,
    keys: list[tuple[str, paramiko.PKey]],
    *,
    trusted: bool,
) -> None:
    """Log in with the keys, and with the password at last.

    Args:
        transport: the session, of which the server is verified.
        login: as whom.
        questions: where the program is asked for secrets.
        keys: those that were named, with their paths.
        trusted: whether the server may be sent secrets.

    Raises:
        LoginError: the server let us in with none of them.
    """
    transport.auth_timeout = login.connect_timeout
    tried: list[str] = []
    allowed: list[str] = []
    try:
        for name, key in chain(keys, _other_keys(login)):
            tried.append(name)
            try:
                allowed = transport.auth_publickey(login.user, key)
            except BadAuthenticationType as exc:
                allowed = exc.allowed_types
                break
            except paramiko.SSHException as exc:
                # Refused, or the agent does not sign with it.
                if not transport.is_active():
                    raise
                logger.debug("%s: %s: %s", login.server, name, exc)
                continue
            if not allowed:
                return
            break  # the server wants another method on top
        if login.password is not None and trusted:
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
        if not transport.disconnect_reason:
            raise login.no_connection(
                errno.ECONNRESET, "the connection was lost during the login"
            ) from exc
        raise login.no_entry(
            errno.EACCES,
            f"the server broke the login off after {', '.join(tried)}: "
            f"{transport.disconnect_reason}; with many keys in "
            "the agent, name the right one with keyfile= and set agent=False",
        ) from exc
    if not tried:
        raise login.no_entry(
            errno.EACCES,
            f"no key and no password to log in as {login.user!r}: pass keyfile= or password=, or "
            "start an ssh-agent with a key",
        )
    wants = f"; it accepts {', '.join(allowed)}" if allowed else ""
    raise login.no_entry(
        errno.EACCES,
        f"the server did not let {login.user!r} in with {', '.join(tried)}{wants}. Is the public "
        "key in its authorized_keys, and the user name right?",
    )


def _other_keys(login: Login) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield further keys to try, with names for messages: the agent's, and the default files."""
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
        for path in login.identity_files:
            if os.path.exists(path):
                try:
                    yield path, _load_key(login, path)
                except LoginError as exc:
                    logger.info("%s", exc)


def load_keyfiles(login: Login, questions: Questions) -> list[tuple[str, paramiko.PKey]]:
    """Load the keys that were named, with their paths.

    Raises:
        LoginError: one of them cannot be used.
    """
    return [(path, _load_key(login, path)) for path in login.keyfiles or ()]


def _load_key(login: Login, path: str) -> paramiko.PKey:
    try:
        # Opened here because paramiko would not tell a directory from a key in a strange format.
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except OSError as exc:
        raise login.no_entry(
            exc.errno or errno.EIO,
            f"the key file {path} cannot be read: {exc.strerror}",
        ) from exc
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        raise login.no_entry(
            errno.EACCES,
            f"the key file {path} can be read by others, so it is not used: chmod 600 {path}",
        )
    passphrase = login.passphrase.encode() if login.passphrase is not None else None
    try:
        return paramiko.PKey.from_path(path, passphrase)
    except (paramiko.PasswordRequiredException, TypeError) as exc:
        raise login.no_entry(
            errno.EACCES, f"the key file {path} is encrypted: pass passphrase="
        ) from exc
    except Exception as exc:
        # What cryptography and paramiko raise for a wrong passphrase depends on the format.
        if login.passphrase is not None:
            advice = f"the passphrase for the key file {path} is wrong, or the file is no key"
        else:
            advice = f"the key file {path} is in no format that paramiko knows"
        raise login.no_entry(errno.EACCES, f"{advice} ({exc})") from exc
