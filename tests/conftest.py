"""The real parts that the tests are made of: SSH servers, remote peers, contexts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import leaks
from tests.leaks import nothing_left_behind, pytest_runtest_makereport  # noqa: F401
from tests.logins import Server, options_for
from tests.peers import Peer
from tests.sshd import SSHD, OpenSSHServer
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket
from tunneledzmq.demo.server import EmbeddedServer

run_directory = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary directory of its own, so that what it leaves there is its own.

    It is a short one, since a Unix socket's path holds 107 bytes.
    """
    directory = config.stash[run_directory] = Path(tempfile.mkdtemp(prefix="tz-"))
    (directory / "run").mkdir(mode=0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "run")
    os.environ.pop("SSH_AUTH_SOCK", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[run_directory], ignore_errors=True)


@pytest.fixture(scope="session")
def need_sshd() -> None:
    """Skip the tests that need OpenSSH's server where it is missing; in CI that is a failure."""
    if os.access(SSHD, os.X_OK):
        return
    reason = f"{SSHD} is missing; to install it: apt-get install openssh-server"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def openssh(need_sshd: None) -> Iterator[OpenSSHServer]:
    """OpenSSH's server."""
    with OpenSSHServer() as server:
        yield server


@pytest.fixture(scope="session")
def asyncssh() -> Iterator[EmbeddedServer]:
    """The embedded server."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture(scope="session", params=["openssh", "asyncssh"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the SSH servers in turn."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def options(server: Server) -> SSHOptions:
    """Options that log in to `server`."""
    return options_for(server)


@pytest.fixture
def openssh_options(openssh: OpenSSHServer) -> SSHOptions:
    """Options that log in to `openssh`."""
    return options_for(openssh)


class OwningContext(TunneledContext):
    """Holds its sockets until its end, so that a test need not close them.

    They give up after 10 s instead of hanging.
    """

    _owned: list[TunneledSocket]

    def __init__(self, **arguments: Any) -> None:
        self._owned = []
        super().__init__(**arguments)
        self.rcvtimeo = self.sndtimeo = 10_000

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        sock = super().socket(*args, **kwargs)
        self._owned.append(sock)
        return sock


@pytest.fixture
def ctx() -> Iterator[TunneledContext]:
    """A context that owns its sockets."""
    context = OwningContext()
    yield context
    context.destroy(linger=0)


@pytest.fixture(params=[True, False], ids=["isolated", "threads"])
def any_ctx(request: pytest.FixtureRequest) -> Iterator[TunneledContext]:
    """As `ctx`, with the gateway in a process and in threads in turn."""
    context = OwningContext(isolate=request.param)
    yield context
    context.destroy(linger=0)


@pytest.fixture
def remote() -> Iterator[Callable[..., Peer]]:
    """Starts remote peers (see `Peer`) that end with the test."""
    with ExitStack() as peers:
        yield lambda kind, **where: peers.enter_context(Peer(kind, **where))


@pytest.fixture
def gateways() -> Callable[[], set[psutil.Process]]:
    """Tells the gateway processes that live and that the test has started."""
    before = leaks.gateways()
    return lambda: leaks.gateways() - before


@pytest.fixture(scope="session")
def echo() -> Iterator[Peer]:
    """A remote peer that answers each request with itself."""
    with Peer("echo") as peer:
        yield peer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, with its `.ssh`."""
    (tmp_path / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def config(home: Path) -> Callable[..., Path]:
    """Writes the blocks of the user's config file."""

    def write(*blocks: str) -> Path:
        path = home / ".ssh" / "config"
        path.write_text("".join(blocks))
        path.chmod(0o600)
        return path

    return write
