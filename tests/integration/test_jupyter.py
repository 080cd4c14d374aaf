"""Jupyter's clients on a kernel behind an SSH server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import INSTALLED, Site
from tests.logins import arguments_for
from tests.peers import ROOT, Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer, generate_key

PACKAGES = ["ipykernel", "jupyter_client", "jupyter_console"]

NOTEBOOK = """
        import subprocess
        from jupyter_client.manager import KernelManager

        manager = KernelManager(connection_file=file)
        manager.kernel_spec.argv[:] = [
            sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"
        ]
        manager.start_kernel(cwd=root, stderr=subprocess.DEVNULL)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=30)
"""


def test_a_blocking_client_works_on_the_far_kernel(site: Site, kernel: Path) -> None:
    output = run_program(
        """
        from jupyter_client import BlockingKernelClient

        with TunneledContext(ssh=server) as ctx:
            client = BlockingKernelClient(context=ctx, connection_file=kernel)
            client.load_connection_file()
            client.start_channels()
            client.wait_for_ready(timeout=20)
            client.execute_interactive("import os; print(os.getpid())", timeout=20)
            reply = client.execute("x = 6 * 7", user_expressions={"x": "x"}, reply=True, timeout=20)
            print(reply["content"]["user_expressions"]["x"]["data"]["text/plain"])
            print(sorted(tunnel.remote for tunnel in ctx.tunnels if tunnel.stats().bytes_received))
            client.stop_channels()
        """,
        prefix=site.near,
        server=site.sshd.server,
        kernel=str(kernel),
    )
    pid, answer, remotes = output.splitlines()
    assert int(pid) > 0 and answer == "42"
    info = json.loads(kernel.read_text())
    assert remotes == str(
        sorted(
            f"tcp://{site.host}:{info[f'{channel}_port']}"
            for channel in ("shell", "iopub", "stdin", "hb", "control")
        )
    )


def test_an_asyncio_client_works_on_the_far_kernel(site: Site, kernel: Path) -> None:
    output = run_program(
        """
        import asyncio
        from jupyter_client import AsyncKernelClient
        from tunneledzmq.asyncio import TunneledContext

        async def main():
            ctx = TunneledContext(ssh=server)
            client = AsyncKernelClient(context=ctx, connection_file=kernel)
            client.load_connection_file()
            # Logged in before, as the client takes a kernel for dead that is silent for a second.
            with ctx.socket(zmq.REQ) as first:
                await first.connect(f"tcp://{client.ip}:{client.hb_port}")
                client.start_channels()
                await client.wait_for_ready(timeout=20)
            await client.execute_interactive("print(6 * 7)", timeout=20)
            print(len([tunnel for tunnel in ctx.tunnels if tunnel.stats().bytes_received]))
            client.stop_channels()
            ctx.term()

        asyncio.run(main())
        """,
        prefix=site.near,
        server=site.sshd.server,
        kernel=str(kernel),
    )
    assert output.split() == ["42", "5"]


def test_a_client_goes_on_after_the_session_was_killed(site: Site, kernel: Path) -> None:
    output = run_program(
        """
        from contextlib import suppress
        import psutil
        from jupyter_client import BlockingKernelClient

        with TunneledContext(ssh=server) as ctx:
            client = BlockingKernelClient(context=ctx, connection_file=kernel)
            client.load_connection_file()
            client.start_channels()
            client.wait_for_ready(timeout=20)
            for session in psutil.Process(sshd).children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it ended with the one before
                    session.kill()
            client.wait_for_ready(timeout=20)
            client.execute_interactive("print(6 * 7)", timeout=20)
            print({tunnel.reconnects for tunnel in ctx.tunnels})
            client.stop_channels()
        """,
        prefix=site.near,
        server=site.sshd.server,
        sshd=site.sshd.pid,
        kernel=str(kernel),
    )
    assert output.splitlines() == ["42", "{1}"]


def test_the_console_works_on_the_far_kernel(site: Site, kernel: Path) -> None:
    before = site.sshd.logins()
    console = subprocess.run(
        [
            *site.near,
            *(sys.executable, "-c"),
            f"{INSTALLED} from jupyter_console.app import main; main()",
            *("--existing", str(kernel), "--ssh", site.sshd.server, "--simple-prompt"),
        ],
        input="print(6 * 7)\nexit(keep_kernel=True)\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=50,
        check=False,
    )
    assert console.returncode == 0, console.stderr
    assert "42" in console.stdout, console.stdout
    # One to find out whether it needs a password, and one for all five channels.
    assert site.sshd.logins() - before == 2


@pytest.mark.parametrize("allowed", [True, False])
def test_a_notebook_is_asked_in_its_cell(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, allowed: bool
) -> None:
    locked = generate_key(tmp_path / "locked", passphrase="open sesame")
    openssh.authorize(locked)
    options = arguments_for(openssh, keyfile=str(locked))
    cell = f"""
import zmq
from tunneledzmq import *
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.connect({echo.address!r}, ssh=SSHOptions(**{options!r}))
    sock.send(b"hello")
    print(sock.recv())
"""
    output = run_program(
        NOTEBOOK
        + """
        asked = []

        def answer(message):
            asked.append(message["content"])
            client.input("open sesame")

        def show(message):
            if message["msg_type"] == "stream":
                print(message["content"]["text"].strip())
            elif message["msg_type"] == "error":
                print(message["content"]["evalue"])

        client.execute_interactive(
            cell, allow_stdin=allowed, stdin_hook=answer, output_hook=show, timeout=30
        )
        print([(each["prompt"], each["password"]) for each in asked])
        client.stop_channels()
        manager.shutdown_kernel()
        """,
        cell=cell,
        allowed=allowed,
        file=str(tmp_path / "kernel.json"),
        root=str(ROOT),
    )
    *said, asked = output.splitlines()
    if allowed:
        assert said == ["b'hello'"]
        assert asked == str([(f"Enter passphrase for key '{locked}': ", True)])
    else:
        assert "is encrypted: pass passphrase= or prompt=" in said[0] and asked == "[]"


def test_a_notebook_that_installs_still_hears_of_its_children(tmp_path: Path) -> None:
    """Its kernel connects to itself: for what forked children print, and for the debugger."""
    output = run_program(
        NOTEBOOK
        + """
        client.execute_interactive(cell, timeout=30)
        client.stop_channels()
        manager.shutdown_kernel()
        """,
        cell="""
import multiprocessing, tunneledzmq
tunneledzmq.install("nobody@192.0.2.1", excepts="127.0.0.1")

def work():
    print("from a child", flush=True)

child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
print(child.exitcode)
""",
        file=str(tmp_path / "kernel.json"),
        root=str(ROOT),
    )
    assert sorted(output.split()) == ["0", "a", "child", "from"]
