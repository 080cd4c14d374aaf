"""Where the programs of others run: a client's machine, and one that only an SSH server reaches."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.network import BASTION, INNER, POSSIBLE, private_network
from tests.peers import ROOT
from tests.programs import Program
from tests.sshd import OpenSSHServer

INSTALLED = "import tunneledzmq.ssh; tunneledzmq.ssh.install();"
"""What makes a program use our functions instead of zmq.ssh's."""


@pytest.fixture(scope="module")
def need(request: pytest.FixtureRequest) -> None:
    """Skip a module whose `PACKAGES` are missing; in CI that is a failure."""
    missing = [name for name in request.module.PACKAGES if not importlib.util.find_spec(name)]
    if not missing:
        return
    reason = f"missing: {', '.join(missing)}; to install them: pip install -e '.[test]'"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Site:
    """Two machines: network namespaces where there may be some, else twice this one."""

    near: list[str]
    """Words before the command line of what runs on the client's machine."""

    far: list[str]
    """The same on the machine behind the server."""

    host: str
    """Address of that machine, which the client does not reach."""

    sshd: OpenSSHServer
    """What stands between them. The user can log in without any options."""

    home: Path

    @contextmanager
    def running(
        self, prefix: Sequence[str], *command: str, end: int = signal.SIGTERM
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a Python program for the body; its output goes to `home/log`."""
        with (
            open(self.home / "log", "ab") as log,
            Program(
                [*prefix, sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            ) as process,
        ):
            try:
                yield process
            finally:
                process.send_signal(end)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)

    def log(self) -> str:
        """Return what those programs wrote."""
        log = self.home / "log"
        return log.read_text(errors="replace") if log.exists() else ""


@pytest.fixture(scope="module")
def site(need: None, need_sshd: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    with ExitStack() as stack:
        near: list[str] = []
        far: list[str] = []
        middle: list[str] = []
        host = server = "127.0.0.1"
        if POSSIBLE:
            try:
                network = stack.enter_context(private_network("p"))
            except subprocess.CalledProcessError:
                pass  # this machine will do for both
            else:
                near, middle, far = (
                    network.within(name)
                    for name in (network.client, network.bastion, network.inner)
                )
                host, server = INNER, BASTION
        sshd = stack.enter_context(OpenSSHServer(host=server, prefix=middle))
        (home / ".ssh").mkdir(mode=0o700)
        shutil.copy(sshd.known_hosts, home / ".ssh" / "known_hosts")
        shutil.copy(sshd.keyfile, home / ".ssh" / "id_ed25519")
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("HOME", str(home))
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(home / name))
        yield Site(near, far, host, sshd, home)
