"""This package's classes in the place of pyzmq's, in the running program."""

from __future__ import annotations

from collections.abc import Callable

from ..default import program
from ..mixing import guard
from ..options import SSHLike, SSHOptions, to_options
from .imports import Imports
from .places import MADE_FROM_PLAIN_CLASSES, MODULES, put, take_out

__all__ = ["install", "put_in_place", "uninstall"]

_imports = Imports(MODULES, MADE_FROM_PLAIN_CLASSES, put=put, take_out=take_out)


def install(ssh: SSHLike | None = None) -> None:
    """Put this package's classes in the place of pyzmq's.

    For programs that make their contexts deep inside. What makes contexts and sockets from then on
    by way of :mod:`zmq`, :mod:`zmq.asyncio`, :mod:`zmq.green` or :mod:`zmq.devices` gets this
    package's. To be called before programs import names from there (``from zmq import Context``);
    classes that they have derived before still connect through the server.

    Args:
        ssh: the default for all contexts that have none of their own: every ``connect`` to a
            ``tcp://`` address that names no server goes through this one. May be called again to
            change it. Default: none.

    Raises:
        ValueError: `ssh` is malformed.
        TypeError: `ssh` is of another type.
    """
    put_in_place(None if ssh is None else to_options(ssh))


def put_in_place(
    ssh: SSHOptions | None,
    excepts: Callable[[str], bool] | None = None,
    on_connect: Callable[[str, SSHOptions | None], None] | None = None,
) -> None:
    """Do what `install` does, with exceptions (see `tunneledzmq.default.Program`)."""
    program.ssh, program.excepts, program.on_connect = ssh, excepts, on_connect
    if ssh is not None:
        guard()
    _imports.watch()


def uninstall() -> None:
    """Put pyzmq's classes back into their places.

    Contexts and sockets that were made meanwhile stay what they are; without a default of their
    own, they connect directly from now on.
    """
    program.ssh = program.excepts = program.on_connect = None
    _imports.leave()
