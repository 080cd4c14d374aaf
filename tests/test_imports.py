"""What the program's side of the package may import, and what that may cost."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

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


PACKAGE = ROOT / "tunneledzmq"


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported_by(module: str) -> set[str]:
    """Return the modules of the package that one names, for the types' sake too."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                both = f"{name}.{alias.name}"
                found.add(both if both in MODULES else name)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name in MODULES} - {module}


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
    costs = (
        float(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
        for _ in range(20)
    )
    assert any(cost < 60 for cost in costs), "once, on a busy machine"


def test_a_gateway_imports_no_zmq() -> None:
    code = home._BOOTSTRAP.replace(
        "main(control)",
        "import tunneledzmq.gateway.sshtunnel.forwarder; print('zmq' in sys.modules)",
    )
    output = subprocess.run(
        [sys.executable, "-I", "-c", code, "-1", "0", home._PACKAGE, *sys.path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output == "False\n"


def test_imports_point_one_way() -> None:
    imports = {module: imported_by(module) for module in MODULES}
    way = graphlib.TopologicalSorter(imports)
    way.prepare()  # CycleError names a circle


def test_the_program_s_side_and_the_gateway_s_share_what_is_for_both() -> None:
    for module in MODULES:
        for imported in imported_by(module):
            if module.startswith("tunneledzmq.shared"):
                assert imported.startswith("tunneledzmq.shared"), module
            elif module.startswith("tunneledzmq.gateway"):
                assert imported.startswith(("tunneledzmq.gateway", "tunneledzmq.shared")), (
                    f"{module} imports {imported}"
                )
            elif imported.startswith("tunneledzmq.gateway"):
                assert module == "tunneledzmq.handles.home"
