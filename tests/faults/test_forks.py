"""A fork of the program falls at no bad moment of a gateway's start, whichever thread forks."""

from __future__ import annotations

import os

import pytest

from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

# A thread connects, and stands still for a moment where `owner` has `name`.
PROGRAM = """
import importlib, os, signal, threading, time
from tunneledzmq.handles.gateways import gateways

reached = threading.Event()

def stand_still(owner, name):
    owner = importlib.import_module(owner)
    real = getattr(owner, name)
    def slow(*args, **kwargs):
        if threading.current_thread() is connecting:
            setattr(owner, name, real)
            made = real(*args, **kwargs) if name == "pipe" else None
            reached.set()
            time.sleep(0.5)
            return made or real(*args, **kwargs)
        return real(*args, **kwargs)
    setattr(owner, name, slow)

def round_trip(sock):
    sock.send(b"hello")
    assert sock.recv() == b"hello"

def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def fork():
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return child

ctx = TunneledContext()
sock = ctx.socket(zmq.REQ)
sock.linger, sock.rcvtimeo = 0, 5_000
connecting = threading.Thread(target=lambda: sock.connect(addr, ssh=options))
"""


@pytest.mark.parametrize(
    ("owner", "name"),
    [("tunneledzmq.handles.handle", "start_process"), ("os", "pipe")],
    ids=["before the process", "while it starts"],
)
def test_a_fork_while_a_gateway_starts_keeps_nothing_of_it(
    owner: str, name: str, openssh: OpenSSHServer, echo: Peer
) -> None:
    """Neither the start nor the gateway's end is waited for as long as the child lives."""
    output = run_program(
        PROGRAM
        + """
stand_still(owner, name)
connecting.start()
assert reached.wait(5)
child = fork()
try:
    connecting.join(5)
    assert not connecting.is_alive()
    round_trip(sock)
    [handle] = gateways()._handles.values()
    before = handle.pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: handle.pid != before and sock.tunnels[0].state == "up")
    sock.close()
    wait_until(lambda: handle.ended)
finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
ctx.term()
print("fine")
""",
        options=arguments_for(openssh),
        addr=echo.address,
        owner=owner,
        name=name,
    )
    assert output == "fine\n"


def test_connects_go_on_while_another_gateway_starts(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        PROGRAM
        + """
from dataclasses import replace
other = ctx.socket(zmq.REQ)
other.linger, other.rcvtimeo = 0, 5_000
other.connect(addr, ssh=replace(options, compression=True))
from tunneledzmq.handles import handle
real, go_on = handle.start_process, threading.Event()
def slow(*args):
    reached.set()
    go_on.wait()
    return real(*args)
handle.start_process = slow
connecting.start()
assert reached.wait(5)
with ctx.socket(zmq.REQ) as third:
    done = []
    def connect():
        third.connect(addr, ssh=replace(options, compression=True))
        done.append(True)
    thread = threading.Thread(target=connect)
    thread.start()
    thread.join(3)
    print(done)
    go_on.set()
    thread.join()
connecting.join()
round_trip(sock)
sock.close()
other.close()
ctx.term()
""",
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "[True]\n"


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])
def test_a_fork_in_the_middle_of_the_start_itself_does_not_hang(
    isolate: bool, openssh: OpenSSHServer, echo: Peer
) -> None:
    """As a signal's handler or a finalizer may fork."""
    output = run_program(
        """
        import os, time
        from tunneledzmq.handles import handle
        name = "start_process" if isolate else "start_thread"
        real = getattr(handle, name)
        def forking(*args):
            child = os.fork()
            if not child:
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            return real(*args)
        setattr(handle, name, forking)
        start = time.monotonic()
        with TunneledContext(isolate=isolate) as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr, ssh=options)
            assert time.monotonic() - start < 4
            sock.send(b"hello")
            assert sock.recv() == b"hello"
        """,
        options=arguments_for(openssh),
        addr=echo.address,
        isolate=isolate,
    )
    assert output == "7\n"


def test_whoever_holds_what_a_fork_waits_for_may_connect(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    """A lock of the program's that is taken for each fork, and held in a connect."""
    output = run_program(
        PROGRAM
        + """
mine = threading.Lock()
waits = threading.Event()
def before():
    waits.set()
    mine.acquire()
# It was there before this package, so that it is called last.
from tunneledzmq.shared.system import fork as forks
os.register_at_fork(before=before, after_in_parent=mine.release, after_in_child=mine.release)
os.register_at_fork(before=forks._before_fork, after_in_parent=forks._after_fork_in_parent)
with mine:
    forking = threading.Thread(target=lambda: os.waitpid(os.fork() or os._exit(0), 0))
    forking.start()
    assert waits.wait(5)
    sock.connect(addr, ssh=options)
forking.join(15)
assert not forking.is_alive()
round_trip(sock)
sock.close()
ctx.term()
print("fine")
""",
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "fine\n"
