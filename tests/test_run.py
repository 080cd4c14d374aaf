"""``tunneledzmq run``: unchanged programs, through an SSH server."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import venv
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from tests.peers import ROOT, Peer, free_port
from tests.polling import wait_until
from tests.programs import Program
from tests.sshd import OpenSSHServer
from tunneledzmq.run import cannot_run
from tunneledzmq.run import main as run_main
from tunneledzmq.run.report import summary
from tunneledzmq.run.settings import Settings, environment, excepted

ASK = """
import sys, zmq
with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.setsockopt(zmq.RCVTIMEO, 10_000)
    sock.setsockopt(zmq.LINGER, 0)
    sock.connect(sys.argv[1])
    sock.send(b"hello")
    print(sock.recv().decode(), len(getattr(sock, "tunnels", [])))
"""


def _asking() -> str:
    """Return lines that ask a peer, and leave the socket and its context open."""
    return """
import sys, zmq
ctx = zmq.Context()
sock = ctx.socket(zmq.REQ)
sock.setsockopt(zmq.RCVTIMEO, 10_000)
sock.setsockopt(zmq.LINGER, 0)
sock.connect(sys.argv[1])
sock.send(b"hello")
print(sock.recv().decode(), len(getattr(sock, "tunnels", [])), flush=True)
"""


def start(server: Any, *words: str, env: Any = None, **kwargs: Any) -> Program[str]:
    """Start `run` with these words, after those that log in."""
    login = ("--ssh", server.server, "-i", server.keyfile, "-F", "none")
    known = ("--known-hosts", server.known_hosts)
    return Program(
        [sys.executable, "-m", "tunneledzmq", "run", *login, *known, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        **kwargs,
    )


def run(server: Any, *words: str, status: int = 0, env: Any = None) -> tuple[str, str]:
    """Run it to its end, and return its output and its errors."""
    with start(server, *words, env=env) as program:
        output, errors = program.communicate(timeout=40)
    assert program.returncode == status, (program.returncode, output, errors)
    return output, errors


@pytest.fixture
def ask(tmp_path: Path) -> Sequence[str]:
    """A program that asks a peer, and tells how many tunnels it had."""
    (tmp_path / "ask.py").write_text(ASK)
    return sys.executable, str(tmp_path / "ask.py")


def test_an_unchanged_program_connects_through_the_server(
    openssh: OpenSSHServer, echo: Peer, ask: Sequence[str]
) -> None:
    assert run(openssh, "--", *ask, echo.address) == ("hello 1\n", "")


def test_so_do_the_python_processes_that_it_starts(
    openssh: OpenSSHServer, echo: Peer, ask: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "parent.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, subprocess, sys

            def child(addr):
                sys.argv[1:] = [addr]
                exec(open(os.path.join(os.path.dirname(__file__), "ask.py")).read(), {})

            if __name__ == "__main__":
                shell = ["cmd", "/c"] if os.name == "nt" else ["/bin/sh", "-c", '"$0" "$@"']
                subprocess.run([*shell, *sys.argv[1:]], check=True)
                path = os.pathsep.join(sys.path)
                subprocess.run(sys.argv[1:], env={**os.environ, "PYTHONPATH": path}, check=True)
                possible = multiprocessing.get_all_start_methods()
                for method in {"spawn", "fork"}.intersection(possible):
                    context = multiprocessing.get_context(method)
                    process = context.Process(target=child, args=[sys.argv[-1]])
                    process.start()
                    process.join()
                    assert process.exitcode == 0
            """
        )
    )
    parent = sys.executable, str(tmp_path / "parent.py")
    output, errors = run(openssh, "-v", "--", *parent, *ask, echo.address)
    count = 3 if sys.platform == "win32" else 4
    assert output == count * "hello 1\n"
    assert errors.count(f"{echo.address} through {openssh.server}\n") == count
    assert f"connects to tcp:// addresses: {count}" in errors


def test_a_process_logs_in_once_for_all_its_contexts(
    openssh: OpenSSHServer, echo: Peer, ask: Sequence[str], tmp_path: Path
) -> None:
    again = f"for _ in range(3):\n{textwrap.indent(ASK, '    ')}"
    (tmp_path / "again.py").write_text(again)
    logins = openssh.logins()
    output, _ = run(openssh, "--", sys.executable, str(tmp_path / "again.py"), echo.address)
    assert output == 3 * "hello 1\n"
    assert openssh.logins() == logins + 1


def test_what_is_excepted_is_connected_to_directly(
    openssh: OpenSSHServer, echo: Peer, ask: Sequence[str]
) -> None:
    words = ("-v", "--except", "10.*", "--except", "127.0.0.1")
    output, errors = run(openssh, *words, "--", *ask, echo.address)
    assert output == "hello 0\n"
    assert f"{echo.address} directly (--except)\n" in errors


@pytest.mark.parametrize(
    ("pattern", "addr", "matches"),
    [
        ("127.0.0.1", "tcp://127.0.0.1:5555", True),
        ("127.0.0.1", "tcp://127.0.0.11:5555", False),
        ("*:5555", "tcp://10.0.1.2:5555", True),
        ("*:5555", "tcp://10.0.1.2:55555", False),
        ("*.LAN", "tcp://printer.lan:1", True),
        ("::1", "tcp://[::1]:1", True),
        ("[[]::1]:1", "tcp://[::1]:1", True),
        ("127.0.0.1", "tcp://eth0;127.0.0.1:5555", True),
    ],
)
def test_patterns_match_hosts_or_addresses(pattern: str, addr: str, matches: bool) -> None:
    assert excepted(addr, [pattern]) is matches


def test_a_report_that_somebody_has_removed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    assert "no Python process" in summary(str(tmp_path))
    assert "was removed meanwhile" in summary(str(tmp_path / "gone"))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asyncio"])
def test_what_was_not_reached_is_told_with_the_reason(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, asynchronous: bool
) -> None:
    source = """
import sys, time, zmq, zmq.asyncio
kind = zmq.asyncio.Context if sys.argv[1] == "True" else zmq.Context
with kind() as ctx:
    socks = [ctx.socket(zmq.REQ) for _ in sys.argv[2:]]
    for sock, addr in zip(socks, sys.argv[2:]):
        sock.connect(addr)
    deadline = time.monotonic() + 20
    while not all(t.last_error or t.stats().connections_open for t in ctx.tunnels):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ctx.destroy(0)
"""
    (tmp_path / "many.py").write_text(source)
    dead = f"tcp://127.0.0.1:{free_port()}"
    program = (sys.executable, str(tmp_path / "many.py"), str(asynchronous))
    _, errors = run(openssh, "-v", "--", *program, dead, echo.address, echo.address)
    assert f"): {dead} NOT reached over {openssh.server}: " in errors
    assert "Connection refused" in errors
    assert f"): {echo.address} through {openssh.server}, 2 times\n" in errors
    assert "connects to tcp:// addresses: 3; addresses that were not reached: 1\n" in errors


ENDS = {
    "os._exit": "os._exit(0)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT)",
    "an exception": "raise RuntimeError",
    "another program": "os.execv('/bin/true', ['true'])",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_at_once_has_told_what_it_did(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, end: str
) -> None:
    (tmp_path / "ends.py").write_text(f"import os, signal\n{_asking()}\n{ENDS[end]}\n")
    words = ("-v", "--", sys.executable, str(tmp_path / "ends.py"), echo.address)
    with start(openssh, *words) as program:
        output, errors = program.communicate(timeout=40)
    assert output == "hello 1\n"
    assert f": {echo.address} through {openssh.server}\n" in errors


def test_a_forked_process_that_never_comes_back_has_told_it_too(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    source = f"""
import os, signal, sys
import zmq
if os.fork() == 0:
{textwrap.indent(_asking(), "    ")}
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
{_asking()}
os.execv(sys.executable, [sys.executable, "-c", {_asking()!r}, sys.argv[1]])
"""
    (tmp_path / "forks.py").write_text(source)
    words = ("-v", "--", sys.executable, str(tmp_path / "forks.py"), echo.address)
    output, errors = run(openssh, *words)
    assert output == 3 * "hello 1\n"
    ways = re.findall(rf"process (\d+) \((.*)\): {echo.address} through", errors)
    # One of them has become another program.
    assert sorted(who[:16] for _, who in ways) == [
        "-c tcp://127.0.0",
        str(tmp_path)[:16],
        "a forked process",
    ]
    assert len({number for number, _ in ways}) == 2
    assert "connects to tcp:// addresses: 3\n" in errors


def test_a_line_that_was_never_finished_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1").write_text('{"program": "p"}\n{"addr": "tcp://h:1", "server": null}\n{"ad')
    assert summary(str(tmp_path)).splitlines() == [
        "tunneledzmq run: process 1 (p): tcp://h:1 directly (--except)",
        "tunneledzmq run: Python processes that use zmq: 1; connects to tcp:// addresses: 1",
    ]


def test_a_program_in_an_environment_of_its_own_needs_nothing_but_pyzmq(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    venv.create(tmp_path, symlinks=os.name != "nt")
    python = str(tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python")
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    found = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    [zmq_directory] = zmq.__path__
    for path in Path(zmq_directory).parent.glob("*zmq*"):
        if path.name in ("zmq", "pyzmq.libs"):
            shutil.copytree(path, Path(found) / path.name)
    modules = ("sshtunnel", "paramiko", "tunneledzmq")
    source = f"""
import importlib.util
print([name for name in {modules} if importlib.util.find_spec(name)])
{_asking()}"""
    env = {"PYTHONPATH": ""}
    output, _ = run(openssh, "--", python, "-c", source, echo.address, env=env)
    assert output.splitlines() == ["['tunneledzmq']", "hello 1"]


@pytest.mark.parametrize("given", [None, "", "lib", os.pathsep + "lib", "lib" + 2 * os.pathsep])
def test_a_program_finds_its_modules_where_it_would_without(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty entry of PYTHONPATH, as shells easily make one, is the working directory."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)

    def found(env: dict[str, str]) -> list[str]:
        command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"]
        output = subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True)
        path: list[str] = json.loads(output.stdout)
        return path

    hooked = found(environment(Settings({}, [])))
    assert hooked.pop(1).endswith("hook")
    assert hooked == found(dict(os.environ))


def test_the_programs_own_sitecustomize_is_run(
    openssh: OpenSSHServer, echo: Peer, ask: Sequence[str], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('mine', __file__)\n")
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(own)])}
    output, _ = run(openssh, "--", *ask, echo.address, env=env)
    mine = f"mine {own / 'sitecustomize.py'}"
    assert output.splitlines() == [mine, mine, "hello 1"]  # run's own interpreter has it, too


def test_where_it_cannot_be_tunnelled_there_is_no_zmq_either(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    """A process that could only connect directly is refused, again and again."""
    source = """
import sys
sys.modules["tunneledzmq.run.child"] = None
for _ in range(2):
    try:
        import zmq
    except ImportError as exc:
        print(exc)
"""
    output, _ = run(openssh, "--", sys.executable, "-c", source)
    assert output.count("tunneledzmq run: no zmq, since it cannot be tunnelled in") == 2


HOOK = ROOT / "tunneledzmq" / "run" / "hook" / "sitecustomize.py"


def test_the_hook_has_nothing_that_an_old_python_cannot_read() -> None:
    tree = ast.parse(HOOK.read_text())
    too_new = (ast.AnnAssign, ast.JoinedStr, ast.NamedExpr, ast.AsyncFunctionDef, ast.Nonlocal)
    for node in ast.walk(tree):
        assert not isinstance(node, too_new), ast.dump(node)
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns is None and not any(arg.annotation for arg in every)
        if isinstance(node, ast.Raise):
            assert node.cause is None
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__"


def test_an_older_python_has_no_zmq_rather_than_one_that_connects_directly(tmp_path: Path) -> None:
    pretend = f"""
import os, runpy, sys
os.environ["TUNNELEDZMQ_RUN"] = "{{}}"
sys.version_info = (3, 9, 18, "final", 0)
runpy.run_path({str(HOOK)!r})
try:
    import zmq
except ImportError as exc:
    print(exc)
"""
    (tmp_path / "zmq.py").touch()
    here = "try:\n    import zmq\nexcept ImportError as exc:\n    print(exc)\n"
    environment = {
        **os.environ,
        "TUNNELEDZMQ_RUN": "{}",
        "PYTHONPATH": os.pathsep.join([str(HOOK.parent), str(tmp_path)]),
    }
    found = [shutil.which(f"python{version}") for version in ("2.7", "3.6", "3.7", "3.8", "3.9")]
    commands = [[sys.executable, "-c", pretend], *([path, "-c", here] for path in found if path)]
    for command in commands:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        if done.returncode == 127:
            continue  # what stands in the place of one that is not installed (pyenv's shims)
        assert "tunneledzmq run: no zmq, since it cannot be tunnelled in" in done.stdout, done
        assert "it takes Python 3.10" in done.stdout


def test_a_login_that_fails_is_the_programs_error(
    openssh: OpenSSHServer, echo: Peer, ask: Sequence[str]
) -> None:
    openssh_elsewhere = SimpleNamespace(
        server=openssh.server, keyfile=openssh.keyfile, known_hosts=os.devnull
    )
    _, errors = run(openssh_elsewhere, "--", *ask, echo.address, status=1)
    assert "UnknownHostKeyError" in errors
    assert "(or --accept-new)" in errors
    _, errors = run(openssh_elsewhere, "-v", "--", *ask, echo.address, status=1)
    assert re.search(rf": {echo.address} NOT reached over {openssh.server}: the host key", errors)
    assert " through " not in errors


@pytest.mark.parametrize("verbose", [[], ["-v"]], ids=["quiet", "verbose"])
def test_it_ends_as_the_program_does(
    openssh: OpenSSHServer, verbose: list[str], tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("this is no program")
    run(openssh, *verbose, "--", sys.executable, "-c", "raise SystemExit(7)", status=7)
    run(openssh, *verbose, "--", "/no/such/program", status=127)
    run(openssh, *verbose, "--", str(tmp_path / "text"), status=126)
    if sys.platform == "win32":
        dying, status = "import ctypes; ctypes.windll.kernel32.ExitProcess(0xC0000005)", 0xC0000005
    else:
        dying, status = "import os; os.kill(os.getpid(), 9)", -signal.SIGKILL
    run(openssh, *verbose, "--", sys.executable, "-c", dying, status=status)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", None)])
def test_signals_reach_the_program(openssh: OpenSSHServer, number: int, tmp_path: Path) -> None:
    source = f"""
import signal, sys, time
def end(*args):
    print("ended in order", flush=True)
    sys.exit(3)
signal.signal({int(number)}, end)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(30)
"""
    before = signal.signal(number, signal.SIG_DFL)  # under nohup one of them is ignored
    try:
        with start(openssh, "-v", "--", sys.executable, "-c", source) as program:
            wait_until((tmp_path / "ready").exists, 20, what="the program runs")
            program.send_signal(number)
            output, errors = program.communicate(timeout=20)
    finally:
        signal.signal(number, before)
    assert (program.returncode, output) == (3, "ended in order\n")
    assert "no Python process has imported zmq" in errors


def test_no_secret_is_in_the_environment(openssh: OpenSSHServer) -> None:
    """What is there: where and how to log in."""
    source = "import os; print(os.environ['TUNNELEDZMQ_RUN'])"
    output, _ = run(openssh, "--", sys.executable, "-c", source)
    assert Path(openssh.keyfile).name in output
    assert "pass" not in output


@pytest.mark.parametrize(
    "words", [["--", "true"], ["--ssh", "me@bastion"], ["--ssh", "", "--", "true"]]
)
def test_a_wrong_command_line(words: list[str]) -> None:
    command = [sys.executable, "-m", "tunneledzmq", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "usage: tunneledzmq run --ssh SERVER" in done.stderr


def test_what_comes_before_the_options_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_main(["tcp://127.0.0.1:1", "--ssh", "me@bastion", "--", "true"])
    error = " ".join(capsys.readouterr().err.split())
    assert "tcp://127.0.0.1:1 is taken for PROGRAM, since it comes first: --ssh goes" in error


@pytest.mark.parametrize(
    "imports",
    [
        "import tunneledzmq, zmq",
        "import zmq, tunneledzmq",
        "import tunneledzmq.asyncio, zmq",
        "import zmq.asyncio, tunneledzmq.asyncio, zmq",
        "from tunneledzmq.handles import pool; import zmq",
    ],
)
def test_a_program_may_use_this_package(openssh: OpenSSHServer, echo: Peer, imports: str) -> None:
    """Whichever of the two it imports first."""
    source = f"{imports}; import sys\n{ASK}"
    output, _ = run(openssh, "--", sys.executable, "-c", source, echo.address)
    assert output == "hello 1\n"


def test_a_program_that_uses_a_package_that_cannot_begin_has_no_zmq_either(
    openssh: OpenSSHServer,
) -> None:
    source = """
import sys
sys.modules["tunneledzmq.run.child"] = None
for name in ("tunneledzmq", "tunneledzmq", "zmq"):
    try:
        __import__(name)
    except ImportError as exc:
        print(exc)
"""
    output, _ = run(openssh, "--", sys.executable, "-c", source)
    assert output.count("tunneledzmq run: no zmq, since it cannot be tunnelled in") == 3


@pytest.mark.parametrize("words", [[], ["--"]])
def test_a_program_that_is_not_named_is_named_alone(words: list[str]) -> None:
    command = [sys.executable, "-m", "tunneledzmq", "run", "--ssh", "me@bastion", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == (
        "usage: tunneledzmq run --ssh SERVER [options]\n"
        "                       -- PROGRAM [ARGS]\n"
        "tunneledzmq run: error: the following arguments are required: PROGRAM\n"
    )


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_the_program_s_own_arguments_are_left_to_it(
    openssh: OpenSSHServer, dashes: list[str]
) -> None:
    tell = "import sys; print(sys.argv[1:])"
    output, _ = run(openssh, *dashes, sys.executable, "-c", tell, "-v", "--", "--ssh", "--")
    assert output == "['-v', '--', '--ssh', '--']\n"


def test_what_cannot_be_run_is_told_as_a_shell_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "text").write_text("text")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    # A directory on PATH that may not be searched.
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert cannot_run("program", denied) == 127
    assert cannot_run("program", missing) == 127
    assert cannot_run("./program", missing) == 127
    assert cannot_run("text", denied) == 126
    assert cannot_run("script", missing) == 126
    assert capsys.readouterr().err.splitlines() == [
        "tunneledzmq run: program: command not found",
        "tunneledzmq run: program: command not found",
        "tunneledzmq run: ./program: No such file or directory",
        "tunneledzmq run: text: Permission denied",
        "tunneledzmq run: script: bad interpreter: No such file or directory",
    ]


def test_a_program_that_uses_libzmq_itself_is_warned_of(
    openssh: OpenSSHServer, tmp_path: Path
) -> None:
    plain = shutil.which("true")
    assert plain is not None
    assert run(openssh, "--", plain) == ("", "")
    native = tmp_path / "native"
    shutil.copy(plain, native)
    with native.open("ab") as file:
        file.write(b"\0libzmq.so.5\0")  # as the string table of one that is linked has it
    _, errors = run(openssh, "--", str(native))
    assert errors == (
        f"tunneledzmq run: warning: {native} uses libzmq itself, not by Python: it connects "
        f"directly, not through {openssh.server}\n"
    )
