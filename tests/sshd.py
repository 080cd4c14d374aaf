"""A real OpenSSH server for the tests, and the keys that open it."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import psutil

from tests.peers import free_port
from tests.polling import wait_until

SSHD = "/usr/sbin/sshd"
PRIVILEGE_SEPARATION_DIRECTORY = Path("/run/sshd")

KEYGEN_TYPES = {
    "ssh-ed25519": ["-t", "ed25519"],
    "ecdsa-sha2-nistp256": ["-t", "ecdsa", "-b", "256"],
    "ssh-rsa": ["-t", "rsa", "-b", "2048"],
}


def keygen(*arguments: str | Path) -> None:
    """Run `ssh-keygen`. Files are given as paths."""
    command = ["ssh-keygen", "-q", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def generate_key(path: Path, key_type: str = "ssh-ed25519", passphrase: str = "") -> Path:
    """Write a new private key to `path`, and its public half beside it (`.pub`)."""
    keygen(*KEYGEN_TYPES[key_type], "-N", passphrase, "-f", path, "-C", "test")
    return path


def public_key(keyfile: str | Path) -> str:
    """Return the public half of a key: its type and its base64."""
    return " ".join(Path(f"{keyfile}.pub").read_text().split()[:2])


def fingerprint(keyfile: str | Path) -> str:
    """Return the fingerprint of a key, such as `SHA256:...`."""
    command = ["ssh-keygen", "-lf", f"{keyfile}.pub"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]


def openssh_version() -> tuple[int, int]:
    """Return the version of the installed OpenSSH, such as (9, 2)."""
    banner = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr
    match = re.match(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", banner)
    assert match, banner
    return int(match[1]), int(match[2])


class OpenSSHServer:
    """An `sshd` with keys of its own, listening when the constructor returns.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        host_key_types: the types of its host keys, see `KEYGEN_TYPES`.
        prefix: words before the command line, such as `ip netns exec NAME`.
        config: further lines of its `sshd_config`, such as `AllowTcpForwarding="no"`.

    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        host_key_types: Sequence[str] = ("ssh-ed25519",),
        prefix: Sequence[str] = (),
        **config: str | Path,
    ) -> None:
        self.host = host
        self.port = port or free_port("::1" if ":" in host else "127.0.0.1")
        self.user = getpass.getuser()
        self._prefix = list(prefix)
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

        self.directory = Path(tempfile.mkdtemp(prefix="sshd-"))
        self._log = self.directory / "log"
        self.keyfile = str(generate_key(self.directory / "id"))
        self.authorized_keys = str(self.directory / "authorized_keys")
        Path(self.authorized_keys).write_text(public_key(self.keyfile) + "\n")
        self.host_keys = [
            str(generate_key(self.directory / f"host_{key_type}", key_type))
            for key_type in host_key_types
        ]
        self.known_hosts = str(self.directory / "known_hosts")
        Path(self.known_hosts).write_text(
            "".join(f"[{self.host}]:{self.port} {public_key(key)}\n" for key in self.host_keys)
        )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def server(self) -> str:
        """What a user would write: `user@host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def log(self) -> str:
        """Return what it has written to its standard error."""
        return self._log.read_text(errors="replace")

    def logins(self) -> int:
        """Return how many logins it has accepted."""
        return len(re.findall(r"Accepted \S+ for ", self.log()))

    def authorize(self, keyfile: str | Path) -> None:
        """Let a further key in."""
        with open(self.authorized_keys, "a") as authorized_keys:
            authorized_keys.write(public_key(keyfile) + "\n")

    def change_host_key(self) -> None:
        """Have another host key from its next start on."""
        key = Path(self.host_keys[0])
        key.unlink()
        Path(f"{key}.pub").unlink()
        generate_key(key)

    def sessions(self) -> list[psutil.Process]:
        """Return the processes that serve its connections."""
        if not self._process:
            return []
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill_sessions(self, *, spare: Collection[psutil.Process] = ()) -> None:
        """Cut its connections, all but those that processes of `spare` serve; it listens on."""
        _kill([session for session in self.sessions() if session not in spare])

    def kill(self) -> None:
        """End it and all its connections at once."""
        if not self._process:
            return
        sessions = self.sessions()
        self._process.kill()
        self._process.wait()
        self._process = None
        _kill(sessions)

    def restart(self) -> None:
        """Start it once more, on the same port and with the same keys."""
        self.kill()
        self._start()

    def stop(self) -> None:
        """End it, and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> OpenSSHServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start(self) -> None:
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        listened = self.log().count("Server listening") if self._log.exists() else 0
        config = self.directory / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._settings()))
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, SSHD, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self._is_up(listened), what=f"sshd listens\n{self.log()}")

    def _is_up(self, listened: int) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise RuntimeError(f"sshd ended with {self._process.returncode}:\n{self.log()}")
        return self.log().count("Server listening") > listened

    def _settings(self) -> list[tuple[str, str]]:
        settings = {
            "ListenAddress": f"[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}",
            "AuthorizedKeysFile": self.authorized_keys,
            "PidFile": "none",
            "LogLevel": "VERBOSE",
            "UsePAM": "no",
            "StrictModes": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "MaxStartups": "1000",
            "MaxSessions": "1000",
            "UseDNS": "no",
            "PrintMotd": "no",
            "PrintLastLog": "no",
        }
        if openssh_version() >= (9, 8):
            # The tests of failing logins would have it lock everybody on this address out.
            settings["PerSourcePenalties"] = "no"
        host_keys = [("HostKey", key) for key in self.host_keys]
        return [*host_keys, *{**settings, **self._config}.items()]


def _kill(processes: Collection[psutil.Process]) -> None:
    """Kill processes, and wait until they have ended.

    Not until they are reaped: a session of an ordinary account has a child, which is left to the
    system's first process, and that may take its time.
    """

    def has_ended(process: psutil.Process) -> bool:
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: all(map(has_ended, processes)), 5, "the sessions end")
