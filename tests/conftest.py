"""The real parts that the tests are made of: SSH servers, remote peers, contexts."""

from __future__ import annotations

import os
import selectors
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

if sys.platform == "win32":
    from tests.windows import far

    if far.WHERE in os.environ:
        far.take_over()

from tests import leaks, logins
from tests.deadline import (  # noqa: F401
    ending,
    pytest_runtest_teardown,
    pytest_timeout_set_timer,
)
from tests.figures import figures, pytest_terminal_summary  # noqa: F401
from tests.leaks import (  # noqa: F401
    nothing_left_behind,
    pytest_collection_finish,
    pytest_runtest_makereport,
)
from tests.logins import Server, options_for
from tests.peers import Peer
from tests.polling import PATIENCE
from tests.sshd import SSHD, OpenSSHServer
from tests.windows.chosen import UNIX, UNIX_TESTS
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket
from tunneledzmq.demo.server import EmbeddedServer
from tunneledzmq.handles import home as homes

run_directory = pytest.StashKey[Path]()

collect_ignore = list(UNIX) if sys.platform == "win32" else []


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary directory of its own, so that what it leaves there is its own.

    It is a short one, that of `tmp_path` too, since a Unix socket's path holds 107 bytes.
    """
    directory = config.stash[run_directory] = Path(tempfile.mkdtemp(prefix="tz-"))
    (directory / "run").mkdir(mode=0o700)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = tempfile.tempdir = str(directory)
    config.option.basetemp = directory / "t"  # not one that has the user's name in it
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "run")
    os.environ.pop("SSH_AUTH_SOCK", None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, let a run fail of which no test passed: all were skipped, or none was found."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and not reporter.getreports("passed"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[run_directory], ignore_errors=True)


ENDURANCE = {path.stem for path in (Path(__file__).parent / "endurance").glob("test_*.py")}

# Where what differs from the usual is tested in each run, and not with --all-combinations only.
UNUSUAL = {
    "asyncssh": {"test_connect", "test_data_path"},
    "openssh backend": {
        *ENDURANCE,
        "test_connect",
        "test_config_hops",
        "test_draining",
        "test_errors",
        "test_forgery",
        "test_lifetimes",
        "test_ordinary_life",
        "test_names",
        "test_passed_over",
        "test_prompts",
        "test_certificate",
        "test_surroundings",
    },
    "threads": {"test_connect", "test_lifetimes", "test_ordinary_life"},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-combinations",
        action="store_true",
        help="every test with every server, backend and home of the gateway; takes twice as long",
    )
    parser.addoption(
        "--selector",
        metavar="CLASS",
        help="that of `selectors` which gateways use, such as PollSelector, instead of the default",
    )


@pytest.fixture(autouse=True)
def chosen_selector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have gateways use the selector that `--selector` names."""
    name = request.config.getoption("selector")
    if name is not None:
        use_selector(name, monkeypatch)


@pytest.fixture(autouse=True)
def words_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have messages speak of the API again, after a test that runs a command in this process."""
    monkeypatch.setattr("tunneledzmq.words._speaks_of_flags", False)


def use_selector(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have gateways use a class of `selectors`, in processes and on threads."""
    monkeypatch.setattr(selectors, "DefaultSelector", getattr(selectors, name))
    choice = f"import selectors; selectors.DefaultSelector = selectors.{name};"
    monkeypatch.setattr(homes, "_BOOTSTRAP", choice + homes._BOOTSTRAP)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if sys.platform == "win32":
        left_out = {f"tests/{name}" for name in UNIX_TESTS}
        _deselect(config, items, {item for item in items if left_out & {_name(item), item.nodeid}})
    if config.getoption("all_combinations"):
        return
    _deselect(config, items, {item for item in items if _is_rare(item)})


def _deselect(config: pytest.Config, items: list[pytest.Item], unwanted: set[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=list(unwanted))
    items[:] = [item for item in items if item not in unwanted]


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _is_rare(item: pytest.Item) -> bool:
    """Tell whether a test differs from the usual in two ways, or where others show the same."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return False
    if sys.platform == "win32" and callspec.params.get("backend") == "openssh":
        return True
    unusual = []
    if callspec.params.get("server") == "asyncssh" and os.access(SSHD, os.X_OK):
        unusual.append("asyncssh")
    if callspec.params.get("backend") == "openssh":
        unusual.append("openssh backend")
    if "threads" in callspec.id.split("-"):
        unusual.append("threads")
    return len(unusual) > 1 or any(item.path.stem not in UNUSUAL[way] for way in unusual)


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


@pytest.fixture(params=["sshtunnel", "openssh"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the backends in turn, for all options that the test makes with `logins`."""
    name: str = request.param
    monkeypatch.setitem(logins.defaults, "backend", name)
    return name


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

    They give up after 10 s, but for `PATIENCE`, instead of hanging.
    """

    _owned: list[TunneledSocket]

    def __init__(self, **arguments: Any) -> None:
        self._owned = []
        super().__init__(**arguments)
        self.rcvtimeo = self.sndtimeo = 10_000 * PATIENCE

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        sock = super().socket(*args, **kwargs)
        self._owned.append(sock)
        return sock


@pytest.fixture
def ctx() -> Iterator[TunneledContext]:
    """A context that owns its sockets."""
    with ending(OwningContext()) as context:
        yield context


@pytest.fixture(params=[True, False], ids=["isolated", "threads"])
def any_ctx(request: pytest.FixtureRequest) -> Iterator[TunneledContext]:
    """As `ctx`, with the gateway in a process and in threads in turn."""
    with ending(OwningContext(isolate=request.param)) as context:
        yield context


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
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
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
