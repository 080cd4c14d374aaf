"""What the real ssh makes of a known_hosts file."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.sshd import PRIVILEGE_SEPARATION_DIRECTORY, SSHD, generate_key, public_key
from tunneledzmq.gateway.trust.known_hosts import Verdict

_SIGNS = {
    "REVOKED HOST KEY DETECTED": Verdict.REVOKED,
    "REMOTE HOST IDENTIFICATION HAS CHANGED": Verdict.CHANGED,
    "is known and matches the": Verdict.KNOWN,
    "host key is known for": Verdict.UNKNOWN,
}


class OpenSSHClient:
    """An ssh that says what it thinks of the host keys of an sshd, at its standard input.

    Args:
        directory: for its files.
        key_types: of the sshd's host keys.
    """

    def __init__(self, directory: Path, key_types: Sequence[str] = ("ssh-ed25519",)) -> None:
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        self._directory = directory
        self.keyfiles = {kind: generate_key(directory / kind, kind) for kind in key_types}
        self.keys = {kind: public_key(file) for kind, file in self.keyfiles.items()}
        """Each as type and base64."""
        lines = [f"HostKey {file}" for file in self.keyfiles.values()]
        (directory / "sshd_config").write_text("\n".join([*lines, "UsePAM no", "PidFile none", ""]))

    def judge(self, text: bytes, host: str, port: int) -> tuple[Verdict, str]:
        """Return the verdict, and the algorithm on which both have agreed.

        Args:
            text: of the known_hosts file.
        """
        (self._directory / "known_hosts").write_bytes(text)
        options = {
            "BatchMode": "yes",
            "GlobalKnownHostsFile": "/dev/null",
            "KexAlgorithms": "curve25519-sha256",
            "PreferredAuthentications": "none",
            "ProxyCommand": f"{SSHD} -i -f {self._directory}/sshd_config",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": f"{self._directory}/known_hosts",
        }
        command = ["ssh", "-v", "-F", "none", "-l", "nobody", "-p", str(port)]
        command += [f"-o{name}={value}" for name, value in options.items()]
        run = subprocess.run([*command, "--", host], capture_output=True, text=True, timeout=20)
        algorithm = re.search(r"kex: host key algorithm: (\S+)", run.stderr)
        for sign, verdict in _SIGNS.items():
            if sign in run.stderr:
                assert algorithm
                return verdict, algorithm[1]
        raise AssertionError(run.stderr)
