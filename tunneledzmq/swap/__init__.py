"""This package's classes in the place of pyzmq's, in the running program."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..default import program
from ..endpoints import check_local, excepted, to_patterns
from ..mixing import TWINS, guard
from ..options import SSHLike, SSHOptions, to_options
from ..socket import to_text
from .imports import Imports
from .places import MADE_FROM_PLAIN_CLASSES, MODULES, put, take_out

__all__ = ["install", "put_in_place", "uninstall"]

_imports = Imports(MODULES, MADE_FROM_PLAIN_CLASSES, TWINS, put=put, take_out=take_out)


def install(
    ssh: SSHLike | None = None, *, local: str | None = None, excepts: str | Iterable[str] = ()
) -> None:
    """Put this package's classes in the place of pyzmq's.

    For programs that make their contexts deep inside. What makes contexts and sockets from then on
    by way of :mod:`zmq`, :mod:`zmq.asyncio`, :mod:`zmq.green` or :mod:`zmq.devices` gets this
    package's. zmq.ssh's functions are replaced as by :func:`tunneledzmq.ssh.install`.

    What was there before (contexts, sockets, classes that were derived, names that were imported
    by ``from zmq import Context``) stays pyzmq's own, so that its ``connect`` takes no ``ssh=``.
    With a default it connects through the server all the same, from then on; what is connected
    already stays so.

    Args:
        ssh: the default for all contexts that have none of their own: every ``connect`` to a
            ``tcp://`` address that names no server goes through this one. May be called again to
            change it. Default: none.
        local: the default for ``connect``'s `local`, as a context's: ``"tcp://127.0.0.1:*"`` for
            programs that take ``Peer-Address`` for an IP address.
        excepts: patterns of what is connected to directly all the same, one or several, with ``*``,
            ``?`` and ``[...]``: ``"HOST"`` or ``"HOST:PORT"``. A notebook needs ``"127.0.0.1"``:
            its kernel connects to itself. Default: nothing, not even loopback.

    Raises:
        ValueError: `ssh`, `local` or `excepts` is malformed.
        TypeError: `ssh`, `local` or `excepts` is of another type.
    """
    options, patterns = None if ssh is None else to_options(ssh), to_patterns(excepts)
    put_in_place(options, local, (lambda addr: excepted(addr, patterns)) if patterns else None)


def put_in_place(
    ssh: SSHOptions | None,
    local: str | None = None,
    excepts: Callable[[str], bool] | None = None,
    on_connect: Callable[[str, SSHOptions | None], None] | None = None,
) -> None:
    """Do what `install` does, with exceptions (see `tunneledzmq.default.Program`)."""
    if local is not None:
        local = check_local(to_text(local, "local"))
    program.ssh, program.local = ssh, local
    program.excepts, program.on_connect = excepts, on_connect
    if ssh is not None:
        guard()
    _imports.watch()


def uninstall() -> None:
    """Put pyzmq's classes back into their places.

    Contexts and sockets that were made meanwhile stay what they are; without a default of their
    own, they connect directly from now on.
    """
    program.ssh = program.local = program.excepts = program.on_connect = None
    _imports.leave()
