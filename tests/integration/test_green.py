"""gevent's programs: other greenlets run while one connects."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from tests.gate import Gate, gate
from tests.logins import arguments_for
from tests.peers import Peer
from tests.programs import run_program
from tests.sshd import OpenSSHServer

PACKAGES = ["gevent"]

pytestmark = pytest.mark.usefixtures("need")

# A greenlet that notes the longest time for which it was kept waiting.
TICKING = """
import gevent, time

class Ticking:
    longest = 0.0

    def __enter__(self):
        self.greenlet = gevent.spawn(self.run)
        gevent.sleep(0.05)
        self.longest = 0.0
        return self

    def run(self):
        before = time.monotonic()
        while True:
            gevent.sleep(0.005)
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before), now

    def __exit__(self, *exc_info):
        self.took = time.monotonic()
        self.greenlet.kill()
"""

WAYS = {
    "the twins": """
from tunneledzmq.green import TunneledContext as Context
make = lambda: Context(ssh=options)
""",
    "installed": """
install(options)
import zmq.green
make = zmq.green.Context
assert issubclass(make, TunneledContext) and make.__module__ == "tunneledzmq.green"
""",
    "installed late": """
import zmq.green
install(options)
make = zmq.green.Context
assert issubclass(make, TunneledContext) and make.__module__ == "tunneledzmq.green"
""",
    "made before": """
import zmq.green
make = zmq.green.Context
install(options)
""",
}

ROUND_TRIPS = """
with make() as ctx:
    def ask(number):
        with ctx.socket(zmq.REQ) as sock:
            sock.connect(addr)
            for _ in range(10):
                sock.send(b"%d" % number)
                assert sock.recv() == b"%d" % number
            return [tunnel.remote for tunnel in sock.tunnels]

    with Ticking() as ticking, gevent.Timeout(20):
        greenlets = [gevent.spawn(ask, number) for number in range(5)]
        gevent.joinall(greenlets, raise_error=True)
    assert all(greenlet.value == [addr] for greenlet in greenlets), greenlets
    print("fine" if ticking.longest < 0.5 else f"kept waiting for {ticking.longest} s")
"""


def slow_login(server: OpenSSHServer, slow: Gate) -> dict[str, Any]:
    """Return the keywords of options that log in through a gate."""
    fields = {"strict_host_key_checking": "no", "known_hosts": "/dev/null"}
    return arguments_for(server, **fields) | {"server": f"{server.user}@127.0.0.1:{slow.port}"}


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
@pytest.mark.parametrize("way", WAYS)
def test_greenlets_run_while_others_connect(
    openssh: OpenSSHServer, echo: Peer, way: str, patched: bool
) -> None:
    with gate(openssh) as slow:
        threading.Timer(1.5, slow.open).start()
        output = run_program(
            WAYS[way] + TICKING + ROUND_TRIPS,
            first="from gevent import monkey; monkey.patch_all()\n" if patched else "",
            options=slow_login(openssh, slow),
            addr=echo.address,
        )
    assert output == "fine\n"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_the_gateway_and_other_libraries_keep_their_blocking_descriptors(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    """gevent makes all that Python opens non-blocking."""
    output = run_program(
        """
        import _socket, os, psutil
        from tunneledzmq.green import TunneledContext
        from tunneledzmq.handles.gateways import gateways
        theirs = _socket.socketpair()  # such as a database's
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.connect(addr, ssh=options)
            for _ in range(10):
                sock.send(b"hello")
                assert sock.recv() == b"hello"
            assert all(os.get_blocking(one.fileno()) for one in theirs)
            [handle] = gateways()._handles.values()
            words = psutil.Process(handle.pid).cmdline()
            control = words[words.index("-c") + 3]
            info = open(f"/proc/{handle.pid}/fdinfo/{control}").read()
            flags = int(info.partition("flags:")[2].split()[0], 8)
            print("non-blocking" if flags & os.O_NONBLOCK else "fine")
        """,
        first="from gevent import monkey; monkey.patch_all()\n",
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "fine\n"


def test_sockets_of_other_classes_do_not_block_greenlets_either(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    """As zerorpc's, which are derived from pyzmq's own."""
    with gate(openssh) as slow:
        threading.Timer(1.5, slow.open).start()
        output = run_program(
            TICKING
            + """
def ask(sock):
    sock.connect(addr)
    return len(sock.tunnels)

class Own(zmq.Socket):
    pass

with TunneledContext(ssh=options) as ctx, ctx.socket(zmq.REQ) as one, Own(ctx, zmq.REQ) as two:
    with Ticking() as ticking:
        print(gevent.spawn(ask, one).get(), gevent.spawn(ask, two).get(), ticking.longest < 0.5)
""",
            options=slow_login(openssh, slow),
            addr=echo.address,
        )
    assert output == "1 1 True\n"


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_a_timeout_undoes_the_connect(openssh: OpenSSHServer, echo: Peer, patched: bool) -> None:
    output = run_program(
        """
import gevent, socket, time
from tunneledzmq.green import TunneledContext
listener = socket.create_server(("127.0.0.1", 0))  # it accepts, and says nothing
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    silent = SSHOptions(f"nobody@127.0.0.1:{listener.getsockname()[1]}", config_file=None)
    start = time.monotonic()
    try:
        with gevent.Timeout(0.5):
            sock.connect(addr, ssh=silent)
    except gevent.Timeout:
        print("timeout", sock.tunnels, time.monotonic() - start < 2)
    sock.connect(addr, ssh=options)
    sock.send(b"hello")
    print(sock.recv())
""",
        first="from gevent import monkey; monkey.patch_all()\n" if patched else "",
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output.splitlines() == ["timeout [] True", "b'hello'"]


def test_connects_that_wait_keep_no_name_from_being_looked_up() -> None:
    output = run_program(
        """
import gevent, gevent.socket, psutil, socket, time
from tunneledzmq.green import TunneledContext
listener = socket.create_server(("127.0.0.1", 0))  # it accepts, and says nothing
silent = SSHOptions(f"nobody@127.0.0.1:{listener.getsockname()[1]}", config_file=None)

def connect(sock):
    try:
        with gevent.Timeout(5):
            sock.connect("tcp://127.0.0.1:1", ssh=silent)
    except gevent.Timeout:
        return sock.tunnels

with TunneledContext() as ctx:
    socks = [ctx.socket(zmq.REQ) for _ in range(20)]
    gevent.socket.getaddrinfo("localhost", 80)
    threads = psutil.Process().num_threads() + 5
    waiting = [gevent.spawn(connect, sock) for sock in socks]
    gevent.sleep(1)
    start = time.monotonic()
    gevent.socket.getaddrinfo("localhost", 80)
    print(time.monotonic() - start < 2)
    print([each.get() for each in waiting] == 20 * [[]])
    with gevent.Timeout(5):
        while psutil.Process().num_threads() > threads:
            gevent.sleep(0.1)
    for sock in socks:
        sock.close()
"""
    )
    assert output.split() == ["True", "True"]


def test_an_error_is_raised_as_without_gevent(openssh: OpenSSHServer, echo: Peer) -> None:
    output = run_program(
        """
from tunneledzmq.green import TunneledContext
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    try:
        sock.connect(addr, ssh=options)
    except UnknownHostKeyError as exc:
        print(type(exc).__name__, sock.tunnels)
""",
        options=arguments_for(openssh, known_hosts="/dev/null"),
        addr=echo.address,
    )
    assert output == "UnknownHostKeyError []\n"
