"""What the program's side of the package may import, and what that may cost."""

from __future__ import annotations

import subprocess
import sys

from tests.logins import Server, arguments_for
from tests.peers import ROOT, Peer
from tests.programs import run_program
from tunneledzmq.handles import home

COST = """
import time
import zmq
before = time.process_time()
import tunneledzmq
print(1000 * (time.process_time() - before))
"""


def test_the_program_never_imports_paramiko(server: Server, echo: Peer) -> None:
    output = run_program(
        """
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr, ssh=options)
            sock.send(b"hello")
            sock.recv()
            print([name for name in sys.modules if name.startswith(("paramiko", "sshtunnel"))])
        """,
        options=arguments_for(server),
        addr=echo.address,
    )
    assert output == "[]\n"


def test_importing_takes_less_than_60_ms() -> None:
    command = [sys.executable, "-c", COST]
    costs = [
        float(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
        for _ in range(5)
    ]
    assert min(costs) < 60


def test_a_gateway_imports_no_zmq() -> None:
    code = home._BOOTSTRAP.replace(
        "main(control)",
        "import tunneledzmq.gateway.sshtunnel.forwarder; print('zmq' in sys.modules)",
    )
    output = subprocess.run(
        [sys.executable, "-I", "-c", code, "0", home._PACKAGE, *sys.path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output == "False\n"
