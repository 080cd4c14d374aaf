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
from tests.polling import wait_until
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


@pytest.fixture(scope="module")
def kernel(site: Site) -> Iterator[Path]:
    """A kernel on the far machine; its connection file."""
    path = site.home / "kernel.json"
    command = ("-m", "ipykernel_launcher", "-f", str(path), f"--ip={site.host}")
    with site.running(site.far, *command) as process:

        def written() -> bool:
            assert process.poll() is None, site.log()
            return path.exists() and bool(path.read_text())

        wait_until(written, 30, "the kernel's connection file")
        yield path


CONTROLLER = [
    "--HeartMonitor.period=500",  # milliseconds
    "--HeartMonitor.max_heartmonitor_misses=6",
]

# ipyparallel's nanny connects past the tunnel, so that --ssh works without it only.
ENGINE = ["--IPEngine.enable_nanny=False"]


@dataclass(frozen=True)
class Cluster:
    """A controller on the far machine, with two engines on the near one."""

    site: Site

    def file(self, whose: str) -> str:
        """Return the connection file for a `client` or an `engine`."""
        security = self.site.home / "IPYTHONDIR" / "profile_default" / "security"
        return str(security / f"ipcontroller-{whose}.json")

    @contextmanager
    def engine(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run an engine, tunnelled back to the controller."""
        program = f"{INSTALLED} from ipyparallel.engine.app import main; main()"
        words = (f"--file={self.file('engine')}", f"--ssh={self.site.sshd.server}", *ENGINE)
        with self.site.running(self.site.near, "-c", program, *words) as process:
            yield process


@pytest.fixture(scope="module")
def cluster(site: Site) -> Iterator[Cluster]:
    cluster = Cluster(site)
    with ExitStack() as stack:
        # The profile is made by whoever comes first, and the engines come at the same time.
        words = (f"--ip={site.host}", *CONTROLLER)
        stack.enter_context(site.running(site.far, "-m", "ipyparallel.controller", *words))
        wait_until(lambda: "Heartmonitor beating" in site.log(), 30, "the controller is up")
        for _ in range(2):
            stack.enter_context(cluster.engine())
        wait_until(
            lambda: site.log().count("Completed registration") == 2, 40, "two engines are up"
        )
        yield cluster


@pytest.fixture(scope="module")
def names(site: Site) -> None:
    """The names of the README's servers."""
    server = site.sshd
    blocks = [
        f"Host {name}\n  HostName {server.host}\n  Port {server.port}\n"
        for name in ("bastion", "inner", "lab.example.org")
    ]
    path = site.home / ".ssh" / "config"
    path.write_text("".join(blocks))
    path.chmod(0o600)
    shutil.copy(server.keyfile, site.home / ".ssh" / "lab")
