"""What the program's processes are told by their environment. There are no secrets in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..endpoints import check_local, excepted
from ..options import DEFAULT_CONFIG_FILE
from ..shared.interpreter import absolute_entries
from ..shared.system.paths import absolute

__all__ = ["VARIABLE", "Settings", "environment", "excepted"]

VARIABLE = "TUNNELEDZMQ_RUN"
"""Name of the variable. The hook knows it, too."""

_HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")


class Settings(NamedTuple):
    """How the program's sockets connect."""

    ssh: dict[str, Any]
    """Fields of `SSHOptions`."""

    excepts: list[str]
    """Patterns of what is connected to directly."""

    local: str | None = None
    """Endpoint of the local leg."""

    report: str | None = None
    """A directory where each process writes what it has done."""

    python: Sequence[str] = ()
    """The interpreter for gateways, and its ``sys.path``: PROGRAM's may have pyzmq alone."""

    @classmethod
    def make(
        cls, ssh: dict[str, Any], excepts: Sequence[str], local: str | None = None
    ) -> Settings:
        """Make settings that mean the same in every working directory.

        Raises:
            ValueError: a pattern is empty, or `local` is malformed.
        """
        if not all(excepts):
            raise ValueError("--except is empty")
        paths = {
            name: value and [_absolute(path) for path in value]
            for name, value in ssh.items()
            if name in ("keyfile", "known_hosts")
        }
        config_file = ssh["config_file"]
        if config_file not in (None, DEFAULT_CONFIG_FILE):
            paths["config_file"] = _absolute(config_file)
        if local is not None:
            check_local(local)
        patterns = [pattern.removeprefix("tcp://") for pattern in excepts]
        return cls({**ssh, **paths}, patterns, local, python=_own_python())


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment for the program."""
    given = os.environ.get("PYTHONPATH")
    # An empty entry is the working directory.
    known = given.split(os.pathsep) if given else []
    path = [_HOOK, *(entry for entry in known if entry != _HOOK)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        VARIABLE: json.dumps(settings._asdict()),
    }


def _own_python() -> list[str]:
    # On Windows, that of a virtual environment starts another process.
    base = getattr(sys, "_base_executable", None) if sys.platform == "win32" else None
    return [base or sys.executable, *absolute_entries(sys.path)]


def _absolute(path: str) -> str:
    return absolute(os.path.expanduser(path), os.getcwd())
