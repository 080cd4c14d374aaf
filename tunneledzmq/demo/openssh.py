"""OpenSSH's server for the demo: where there is one, it is what a tunnel would lead to."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ..shared.directory import RuntimeDirectory
from .server import ServerStatus

__all__ = ["OpenSSHServer", "find_sshd"]

# It ends with this program, however that ends: its standard input is then closed. What waits for
# that goes with it.
_WATCH = """
exec 3<&0
"$@" </dev/null 3<&- &
sshd=$!
(read -r _ <&3; kill $sshd) &
wait $sshd
kill $!
"""

# sshd may be where an ordinary account's PATH does not lead.
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/sbin")

# Seconds for it to start.
_TIMEOUT = 10.0

_ENDED = re.compile(r"^(?:Disconnected from|Connection (?:closed|reset) by) ", re.MULTILINE)


def find_sshd() -> str | None:
    """Return the path of OpenSSH's server, if it is installed with what makes keys.

    That of Windows is a service, and no program for a user.
    """
    if os.name == "nt" or shutil.which("ssh-keygen") is None:
        return None
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), *_PLACES]))


class OpenSSHServer:
    """An ``sshd`` on loopback with keys of its own; only the user who runs it may log in.

    Args:
        sshd: its path.
    """

    def __init__(self, sshd: str) -> None:
        self._sshd = sshd
        self.host = "127.0.0.1"
        self.user = getpass.getuser()
        self._directory: RuntimeDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        """``user@host:port``, what ``ssh=`` takes."""
        return f"{self.user}@{self.host}:{self.port}"

    def start(self) -> None:
        """Start, and wait until it listens.

        Raises:
            RuntimeError: it does not; the text says why.
            OSError: what it needs cannot be written.
        """
        self._directory = RuntimeDirectory("server")
        directory = self._path = Path(self._directory.path)
        for name in ("host", "id"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tunneledzmq demo"]
            subprocess.run([*command, "-f", directory / name], check=True, stdin=subprocess.DEVNULL)
        with socket.create_server((self.host, 0)) as chosen:
            self.port = chosen.getsockname()[1]
        self.keyfile = str(directory / "id")
        self.known_hosts = str(directory / "known_hosts")
        host_key = (directory / "host.pub").read_text()
        Path(self.known_hosts).write_text(f"[{self.host}]:{self.port} {host_key}")
        settings = {
            "ListenAddress": f"{self.host}:{self.port}",
            "HostKey": directory / "host",
            "AuthorizedKeysFile": directory / "id.pub",
            "AllowUsers": self.user,
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",
            "UseDNS": "no",
            "PidFile": "none",
            "LogLevel": "VERBOSE",
            "MaxSessions": "1000",
        }
        config = directory / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with open(directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    _WATCH,
                    "sshd-of-tunneledzmq",
                    self._sshd,
                    "-D",
                    "-e",
                    "-f",
                    config,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + _TIMEOUT
        while "Server listening" not in self._log():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"sshd does not start: {self._log().strip()}")
            time.sleep(0.01)

    def status(self) -> ServerStatus:
        """Say what it sees, as far as it tells."""
        logins = self._log().count("Accepted publickey for ")
        return ServerStatus(logins - len(_ENDED.findall(self._log())), logins, 0)

    def stop(self) -> None:
        """End it and remove its keys."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
        if self._directory is not None:
            self._directory.remove()

    def _log(self) -> str:
        return (self._path / "log").read_text(errors="replace").replace("\r", "")

    def __enter__(self) -> OpenSSHServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.stop()
