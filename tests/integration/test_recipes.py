"""The README's recipes and commands, as they stand there, and what is shown of a session."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import zmq.auth

from tests.integration.conftest import Cluster, Site
from tests.integration.readme import as_here, blocks
from tests.integration.test_readme import BLOCKS, ECHO
from tests.peers import ROOT
from tests.polling import wait_until
from tests.programs import run_program

PACKAGES = [
    *("gevent", "ipykernel", "ipyparallel", "jupyter_client", "jupyter_console", "numpy"),
    "tornado",
]

pytestmark = pytest.mark.timeout(120)

# Blocks that are not run here, by what they begin with or have in them, and why.
NOT_RUN = {
    "python -m tunneledzmq demo": "installs from an index, as test_packages does; see test_demo",
    "python -m pytest": "is this very run",
    r".venv\Scripts": "PowerShell; see tests/windows for what is tried of Windows",
    "+-----": "a picture",
}

[RECIPES] = [block for block in blocks("python") if block.startswith("# ")]
[SESSION] = [block for block in blocks("python") if block.startswith(">>> ")]
[RUNS] = [block for block in blocks("shell") if block.startswith("python -m tunneledzmq run")]
[CONSOLE] = [block for block in blocks("shell") if "jupyter_console" in block]


def recipe(begins: str) -> str:
    """Return the one recipe whose comment begins so."""
    [found] = [each for each in re.split(r"\n\n+(?=# )", RECIPES) if each.startswith(f"# {begins}")]
    return found


BEFORE = """
import tunneledzmq.ssh
from contextlib import suppress
"""


def test_nothing_is_forgotten() -> None:
    known = [RECIPES, SESSION, RUNS, CONSOLE, *BLOCKS]
    others = [block for block in blocks() if block not in known]
    assert [block for block in others if not any(part in block for part in NOT_RUN)] == []
    assert all(any(part in block for block in others) for part in NOT_RUN)
    recipes = re.split(r"\n\n+(?=# )", RECIPES)
    assert len(recipes) == len(
        re.findall(r"^def test_the_recipe", Path(__file__).read_text(), re.M)
    )


def run_recipe(site: Site, begins: str, after: str = "", before: str = "", **given: str) -> str:
    text = as_here(recipe(begins), site)
    return run_program(f"{BEFORE}{before}\n{text}\n{after}", prefix=site.near, timeout=60, **given)


def test_the_recipe_for_jupyter(site: Site, names: None, kernel: Path) -> None:
    before = f"""
import os
from jupyter_client import BlockingKernelClient
os.chdir({str(kernel.parent)!r})
"""
    assert run_recipe(site, "Jupyter", before=before) == "42\n"


def test_the_recipe_for_ipyparallel(site: Site, names: None, cluster: Cluster) -> None:
    before = """
import ipyparallel
f = lambda x: x * x
"""
    run_recipe(site, "ipyparallel", before=before, file=cluster.file("client"))


def test_the_recipe_for_programs_written_for_zmq_ssh(
    site: Site, names: None, cluster: Cluster
) -> None:
    after = "print(len(ipyparallel.Client(file, sshserver='bastion')[:].map_sync(str, range(4))))"
    before = "import ipyparallel"
    output = run_recipe(
        site, "programs written for", after, before=before, file=cluster.file("client")
    )
    assert output == "4\n"


def test_the_recipe_for_curve_and_streams(site: Site, names: None, tmp_path: Path) -> None:
    public, _ = zmq.auth.create_certificates(tmp_path, "server")
    zmq.auth.create_certificates(tmp_path, "client")
    server_key, _ = zmq.auth.load_certificate(public)
    serve = """
import sys, zmq, zmq.auth
sock = zmq.Context().socket(zmq.REP)
sock.curve_publickey, sock.curve_secretkey = zmq.auth.load_certificate(sys.argv[2])
sock.curve_server = True
sock.bind(sys.argv[1])
while True:
    sock.send(sock.recv())
"""
    before = f"""
import asyncio, os, zmq.auth
from zmq.eventloop.zmqstream import ZMQStream
os.chdir({str(tmp_path)!r})
server_key = {server_key!r}
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
ctx = TunneledContext()
sock = ctx.socket(zmq.REQ)
"""
    after = """
done = loop.create_future()
stream.on_recv(done.set_result)
stream.send(b"hello")
print(loop.run_until_complete(asyncio.wait_for(done, 10)))
stream.close()
ctx.term()
loop.close()
"""
    keys = str(tmp_path / "server.key_secret")
    with site.running(site.far, "-c", serve, f"tcp://{site.host}:5555", keys):
        assert run_recipe(site, "CURVE", after, before) == "[b'hello']\n"


def test_the_recipe_for_contexts_made_deep_inside(site: Site, names: None) -> None:
    before = "import tunneledzmq, zmq.decorators\nfrom zmq.devices import ThreadProxy"
    after = f"""
port = proxy.bind_in_to_random_port("tcp://127.0.0.1")
proxy.start()
with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.rcvtimeo = 10_000
    sock.connect(f"tcp://127.0.0.1:{{port}}", ssh=None)
    sock.send(b"hello")
    print(sock.recv())
ask()
@zmq.decorators.context()
@zmq.decorators.socket(zmq.REQ)
def ask(context, sock):
    sock.connect("tcp://{site.host}:5555")
    sock.send(b"hello")
    return sock.recv(), len(sock.tunnels)
print(ask())
zmq.Context.instance().term()
"""
    with site.running(site.far, "-c", ECHO, f"tcp://{site.host}:5555"):
        output = run_recipe(site, "programs that make", after, before)
    assert output == "b'hello'\n(b'hello', 1)\n"


def test_the_recipe_for_gevent(site: Site, names: None) -> None:
    after = f"""
with ctx.socket(zmq.REQ) as sock:
    sock.connect("tcp://{site.host}:5555")
    sock.send(b"hello")
    print(sock.recv())
"""
    with site.running(site.far, "-c", ECHO, f"tcp://{site.host}:5555"):
        assert run_recipe(site, "gevent", after, "import tunneledzmq.green") == "b'hello'\n"


def test_the_recipe_for_contexts_for_a_moment(site: Site, names: None) -> None:
    after = f"""
for _ in range(3):
    with TunneledContext(ssh=lab) as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect("tcp://{site.host}:5555")
        sock.send(b"hello")
        print(sock.recv())
"""
    logins = site.sshd.logins()
    with site.running(site.far, "-c", ECHO, f"tcp://{site.host}:5555"):
        assert run_recipe(site, "contexts for a moment", after) == "b'hello'\n" * 3
    assert site.sshd.logins() - logins == 1


# Commands


def environment(*directories: Path) -> dict[str, str]:
    path = [*map(str, directories), os.path.dirname(sys.executable), os.environ["PATH"]]
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(path)}


# In the place of the programs of others: they connect to the master, or to where they always do.
STAND_INS = {
    "worker.py": "addr = sys.argv[1]",
    "locust": "addr = 'tcp://%s:5555' % sys.argv[sys.argv.index('--master-host') + 1]",
    "imagezmq-camera.py": "addr = 'tcp://HOST:5555'",
}


@pytest.mark.parametrize("line", RUNS.splitlines())
def test_a_command_that_runs_a_program(site: Site, names: None, tmp_path: Path, line: str) -> None:
    for name, where in STAND_INS.items():
        program = tmp_path / name
        program.write_text(
            f"#!{sys.executable}\nimport sys, zmq\n{where.replace('HOST', site.host)}\n"
            "with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:\n"
            "    sock.rcvtimeo = 10_000\n    sock.connect(addr)\n    sock.send(b'hello')\n"
            "    print(sock.recv())\n"
        )
        program.chmod(0o700)
    logins = site.sshd.logins()
    with site.running(site.far, "-c", ECHO, f"tcp://{site.host}:5555"):
        done = subprocess.run(
            [*site.near, "sh", "-c", as_here(line, site)],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "b'hello'\n"), done.stderr
    assert ("-v" in line) == (site.host in done.stderr), done.stderr
    excepted = f"--except {site.host}" in line
    assert excepted or site.sshd.logins() > logins


def console_commands(site: Site) -> list[str]:
    text = as_here(CONSOLE, site).replace("\\\n", "")
    console, run, engine = text.partition("python -m tunneledzmq run")
    return [console[console.index("python -c") :], run + engine]


def test_the_command_for_the_console(site: Site, names: None, kernel: Path) -> None:
    command, _ = console_commands(site)
    done = subprocess.run(
        # Nobody types here.
        [*site.near, "sh", "-c", f"{command.strip()} --simple-prompt"],
        cwd=kernel.parent,
        env=environment(),
        input="print(6 * 7)\nexit(keep_kernel=True)\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and "42" in done.stdout, done.stderr


def test_the_command_for_an_engine(site: Site, names: None, cluster: Cluster) -> None:
    _, command = console_commands(site)
    words = shlex.split(command)
    words[words.index("--file=ipcontroller-engine.json")] = f"--file={cluster.file('engine')}"
    words[words.index("--") + 1] = sys.executable
    before = site.log().count("Completed registration")
    with site.running(site.near, *words[1:]):
        wait_until(lambda: site.log().count("Completed registration") > before, 40)


def test_what_is_shown_of_a_peer_that_is_not_up(site: Site, names: None) -> None:
    asked, _, answer = as_here(SESSION, site).partition("\n")
    source = f"""
import time
ctx = TunneledContext()
sock = ctx.socket(zmq.REQ)
sock.connect("tcp://{site.host}:5555", ssh="{site.sshd.user}@bastion")
while not sock.tunnels[-1].last_error:
    time.sleep(0.01)
print({asked.removeprefix(">>> ")})
print(sock.tunnels[-1].server)
ctx.destroy(linger=0)
"""
    shown, server = run_program(source, prefix=site.near).splitlines()
    expected = " ".join(answer.split()).replace(f"{site.sshd.user}@bastion:22", server)
    assert shown == expected
