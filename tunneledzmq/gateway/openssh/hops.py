"""The hops of the config file (ProxyJump), which ssh goes over by itself.

For each ssh starts one more ssh, under the name by which it was started itself, and tells it no
more than which config file to read. So the name is that of a program which adds our options.
"""

from __future__ import annotations

import errno
import glob
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress

from ..login import LoginError
from .said import Said

__all__ = ["Hops"]

# Starts a program under another name, which a shell cannot.
_START = "import posix, sys; posix.execv(sys.argv[2], [sys.argv[1], *sys.argv[3:]])"

# What it says goes to a file, where nothing else goes: servers' banners do not. No server can have
# the file grow without end.
_SCRIPT = """\
#!/bin/sh
ulimit -f 2048
exec {command} -E {said}$$ "$@" 2>/dev/null
"""

# Bytes of what a hop said that are looked at.
_MAX_SIZE = 1 << 16


class Hops:
    """The program that ssh starts for a hop.

    Args:
        server: for messages.
        ssh: path of ssh.
        flags: the options that hops are to be given; an error if they cannot be.
        python: path of an interpreter.
    """

    def __init__(self, server: str, ssh: str, flags: Sequence[str], python: str) -> None:
        self._python = python
        self._server = server
        self._ssh = ssh
        self._flags = flags

    def write(self, path: str) -> bool:
        """Write the program; `False` if that is of no use, and none is needed.

        Raises:
            LoginError: it is of no use.
            OSError: it cannot be written.
        """
        flags = [*self._flags, "-oLogLevel=INFO", "-oControlMaster=no"]
        # Whoever has logged in for the user may have done so with other options.
        flags += ["-oControlPath=none"] if self._flags else []
        command = shlex.join(self.command(path, flags))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
        with open(descriptor, "w") as script:
            script.write(_SCRIPT.format(command=command, said=shlex.quote(f"{path}-")))
        fault = self._fault(path)
        if fault and self._flags:
            raise LoginError(
                "GatewayError",
                errno.ENOTSUP,
                f"{self._server}: ssh cannot tell the hops of its config file the options: {fault}."
                " Name the hops with jump= instead",
            )
        return not fault

    @staticmethod
    def said(path: str) -> list[Said]:
        """Return what the hops have said, each for itself, and forget it."""
        found = []
        for name in sorted(glob.glob(f"{glob.escape(path)}-*")):
            with suppress(OSError), open(name, "rb") as file:
                found.append(Said())
                for line in file.read(_MAX_SIZE).split(b"\n"):
                    found[-1].add(line)
                os.unlink(name)
        return found

    def command(self, path: str, arguments: Sequence[str]) -> list[str]:
        """Return the command line of an ssh that starts the program at `path` for its hops."""
        return [self._python, "-I", "-S", "-c", _START, path, self._ssh, *arguments]

    def _fault(self, path: str) -> str:
        # It stands unquoted in a ProxyCommand.
        if shlex.quote(path) != path or "%" in path:
            return f"a shell would not take {path!r} as it is"
        if not os.access(path, os.X_OK):
            return f"{path} cannot be executed there"
        with open(self._ssh, "rb") as program:
            # The system starts a script under the name of its file.
            return f"{self._ssh} is a script" if program.read(2) == b"#!" else ""
