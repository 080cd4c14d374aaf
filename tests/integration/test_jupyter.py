"""Jupyter's clients on a kernel behind an SSH server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import INSTALLED, Site
from tests.peers import ROOT
from tests.polling import wait_until
from tests.programs import run_program

PACKAGES = ["ipykernel", "jupyter_client", "jupyter_console"]


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
