"""Programs at a console: they ask there, and Ctrl-C is theirs alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.asking import AskingServer, Round
from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import PROLOGUE
from tests.sshd import OpenSSHServer
from tests.windows.far import make
from tunneledzmq.demo.server import EmbeddedServer

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="it is about Windows")

Console = Callable[..., Any]

ASK = """
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.connect(addr, ssh=options)
    sock.send(b"hello")
    print("answered", sock.recv().decode(), flush=True)
"""


@pytest.fixture
def console() -> Iterator[Console]:
    """Runs a program (see `start_program`) at a console."""
    with ExitStack() as consoles:
        yield lambda source, **given: consoles.enter_context(
            make("Console", PROLOGUE + source, json.dumps(given))
        )


def test_a_password_is_asked_for_and_not_shown(console: Console, echo: Peer) -> None:
    with EmbeddedServer(password="open sesame") as server:
        program = console(ASK, options=arguments_for(server, keyfile=None), addr=echo.address)
        program.read_until("assword:")
        program.type("open sesame\r")
        shown = program.read_until("answered hello")
    assert "sesame" not in shown


def test_what_may_be_seen_is_shown(console: Console, echo: Peer, tmp_path: Path) -> None:
    with AskingServer(tmp_path, [Round([("Colour: ", True)], ["bleu"])]) as server:
        program = console(ASK, options=arguments_for(server, keyfile=None), addr=echo.address)
        program.read_until("Colour:")
        program.type("bleu\r")
        shown = program.read_until("answered hello")
    assert "bleu" in shown


def test_ctrl_c_is_the_program_s_alone(
    console: Console, openssh: OpenSSHServer, echo: Peer
) -> None:
    source = """
import time
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.connect(addr, ssh=options)
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
    except KeyboardInterrupt:
        sock.send(b"hello")
        print("answered", sock.recv().decode(), sock.tunnels[0].reconnects, flush=True)
"""
    program = console(source, options=arguments_for(openssh), addr=echo.address)
    program.read_until("ready")
    program.type("\x03")
    program.read_until("answered hello 0")


@pytest.mark.parametrize("verbose", [[], ["-v"]], ids=["quiet", "verbose"])
def test_run_waits_for_a_program_that_ends_because_of_ctrl_c(
    verbose: list[str], console: Console, openssh: OpenSSHServer
) -> None:
    ends_in_order = """
import sys, time
try:
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
except KeyboardInterrupt:
    time.sleep(1)
    print("ended in order", flush=True)
    sys.exit(3)
"""
    source = """
import subprocess, time
words = [sys.executable, "-m", "tunneledzmq", "run", *verbose, "--ssh", server]
process = subprocess.Popen([*words, "--", sys.executable, "-c", program])
while process.poll() is None:
    try:
        time.sleep(0.1)
    except KeyboardInterrupt:
        pass
print("status", process.returncode, flush=True)
"""
    program = console(source, verbose=verbose, server=openssh.server, program=ends_in_order)
    program.read_until("ready")
    program.type("\x03")
    shown = program.read_until("status 3")
    assert "ended in order" in shown
