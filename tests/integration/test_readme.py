"""The README's snippets, as they stand there, on machines that are called as they are there."""

from __future__ import annotations

import re
import textwrap

import pytest

from tests.integration.conftest import Site
from tests.integration.readme import as_here, blocks
from tests.programs import run_program

PACKAGES: list[str] = []

# The recipes, which begin with a comment, and what is shown of a session are in test_recipes.
BLOCKS = [block for block in blocks("python") if not block.startswith(("#", ">>>"))]

# What a reader has from the snippets before, and what a program ends with.
BEFORE = """
import asyncio, logging
from tunneledzmq import SSHOptions, TunneledContext
logging.basicConfig(stream=sys.stdout, level=logging.ERROR)
ctx = TunneledContext()
ctx.rcvtimeo = 10_000
sock = ctx.socket(zmq.DEALER)
"""
ECHO = """
import sys, zmq
sock = zmq.Context().socket(zmq.REP)
sock.bind(sys.argv[1])
while True:
    sock.send(sock.recv())
"""
AFTER = """
print("to the end")
ctx.destroy(linger=0)
"""


def program(block: str) -> str:
    if not re.search(r"\bawait ", block):
        return f"{BEFORE}\n{block}\n{AFTER}"
    body = textwrap.indent(f"{block}\nprint(await sock.recv())\n{AFTER}", "    ")
    return f"{BEFORE}\nctx.destroy(linger=0)\nasync def main():\n{body}\nasyncio.run(main())\n"


def test_there_are_snippets() -> None:
    assert len(BLOCKS) >= 5
    assert "sock.close()" in BLOCKS[0] and any("await " in block for block in BLOCKS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_snippet_runs(site: Site, names: None, number: int) -> None:
    block = as_here(BLOCKS[number], site)
    with site.running(site.far, "-c", ECHO, f"tcp://{site.host}:5555"):
        output = run_program(program(block), prefix=site.near)
    assert output.endswith("to the end\n") and "ERROR" not in output
    if "recv()" in program(block):
        assert "b'hello'" in output
