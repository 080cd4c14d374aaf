"""However a program ends, or multiplies, nothing of the tunnel stays without it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests import logins
from tests.faults.injection import time_until_nothing_is_left, wait_until_blocked
from tests.leaks import gateways
from tests.logins import arguments_for
from tests.peers import Peer
from tests.polling import wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer
from tests.strangers import SilentPort
from tunneledzmq import SSHOptions

pytestmark = pytest.mark.usefixtures("backend")

Figures = Callable[[str], None]

CONNECT = """
import os
ctx = TunneledContext(isolate=isolate)
sock = ctx.socket(zmq.REQ)
sock.rcvtimeo = 10_000
sock.connect(addr, ssh=options)
def round_trip(sock=sock):
    sock.send(b"hello")
    assert sock.recv() == b"hello"
round_trip()
"""

# Without isolation nobody is left to remove a directory when the program ends from one moment to
# the next; the next program that connects does.
both_homes = pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "threads"])


@contextmanager
def running(source: str, **given: object) -> Iterator[subprocess.Popen[str]]:
    """A program that says when it is ready (see `start_program`)."""
    with start_program(source, **given) as program:
        assert program.stdout
        line = program.stdout.readline()
        if line != "ready\n":
            program.kill()
            raise AssertionError(line + program.communicate()[1])
        yield program


@both_homes
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_blocked_in_recv(
    ending: signal.Signals, isolate: bool, openssh: OpenSSHServer, echo: Peer, figures: Figures
) -> None:
    source = CONNECT + "print('ready', flush=True); ctx.socket(zmq.PULL).recv()"
    with running(
        source, options=arguments_for(openssh), addr=echo.address, isolate=isolate
    ) as program:
        wait_until_blocked(program)
        program.send_signal(ending)
        _, errors = program.communicate(timeout=5)
        figures(
            f"nothing left after {time_until_nothing_is_left(openssh, swept=not isolate):.2f} s"
        )
    assert program.returncode == -ending
    assert ("KeyboardInterrupt" in errors) == (ending == signal.SIGINT)
    assert errors.count("Traceback") <= 1


@both_homes
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_blocked_in_connect(
    ending: signal.Signals, isolate: bool, echo: Peer, figures: Figures
) -> None:
    with SilentPort() as silent:
        source = """
            ctx = TunneledContext(isolate=isolate)
            sock = ctx.socket(zmq.REQ)
            print("ready", flush=True)
            options = SSHOptions(server, config_file=None, connect_timeout=30, backend=backend)
            sock.connect(addr, ssh=options)
            """
        with running(
            source,
            server=f"me@127.0.0.1:{silent.port}",
            backend=logins.defaults["backend"],
            addr=echo.address,
            isolate=isolate,
        ) as program:
            if isolate:
                wait_until(gateways)
            wait_until(lambda: psutil.Process(program.pid).num_threads() > 3 or isolate)
            wait_until_blocked(program)
            program.send_signal(ending)
            _, errors = program.communicate(timeout=5)
            figures(f"nothing left after {time_until_nothing_is_left(swept=not isolate):.2f} s")
    assert program.returncode == -ending
    assert ("KeyboardInterrupt" in errors) == (ending == signal.SIGINT)


def test_ctrl_c_reaches_the_program_only(openssh: OpenSSHServer, echo: Peer) -> None:
    source = (
        CONNECT
        + """
# An interrupt inside ctx.socket() would leave a socket that destroy() does not know of.
silent = ctx.socket(zmq.PULL)
try:
    print("ready", flush=True)
    silent.recv()
except KeyboardInterrupt:
    round_trip()
    print(sock.tunnels[0].state, sock.tunnels[0].reconnects)
    ctx.destroy()
"""
    )
    with running(
        source, options=arguments_for(openssh), addr=echo.address, isolate=True
    ) as program:
        os.killpg(program.pid, signal.SIGINT)
        output, errors = program.communicate(timeout=10)
    assert output == "up 0\n", errors
    time_until_nothing_is_left(openssh)


@both_homes
@pytest.mark.parametrize("how", ["_exit", "exit", "signal"])
def test_a_forked_child_that_ends_leaves_the_parents_tunnel_alone(
    how: str, isolate: bool, openssh: OpenSSHServer, echo: Peer
) -> None:
    output = run_program(
        CONNECT
        + """
child = os.fork()
if not child:
    if how == "_exit":
        os._exit(0)
    if how == "signal":
        os.kill(os.getpid(), 15)
    import gc
    del sock, round_trip
    gc.collect()
    sys.exit(0)
os.waitpid(child, 0)
for _ in range(10):
    round_trip()
print(sock.tunnels[0].state, sock.tunnels[0].reconnects)
sock.close()
ctx.term()
""",
        options=arguments_for(openssh),
        addr=echo.address,
        isolate=isolate,
        how=how,
        timeout=15,
    )
    assert output == "up 0\n"
    time_until_nothing_is_left(openssh)


@both_homes
@pytest.mark.parametrize("how", ["term", "killed"])
def test_a_forked_child_that_goes_on_keeps_nothing_of_its_parents(
    how: str, isolate: bool, openssh: OpenSSHServer, echo: Peer, figures: Figures
) -> None:
    source = (
        CONNECT
        + """
child = os.fork()
if not child:
    import time
    time.sleep(60)
    os._exit(0)
print("ready", flush=True)
print(child, flush=True)
if how == "term":
    sock.close()
    ctx.term()
    os._exit(0)
import time
time.sleep(60)
"""
    )
    with running(
        source, options=arguments_for(openssh), addr=echo.address, isolate=isolate, how=how
    ) as program:
        assert program.stdout
        child = psutil.Process(int(program.stdout.readline()))
        try:
            if how == "killed":
                program.kill()
            program.wait(5)
            figures(
                f"nothing left after {time_until_nothing_is_left(openssh, swept=not isolate):.2f} s"
            )
            assert child.is_running()
        finally:
            child.kill()


@both_homes
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forked_child_may_connect_by_itself(
    when: str, isolate: bool, openssh: OpenSSHServer, echo: Peer
) -> None:
    output = run_program(
        """
        import os
        def talk(ctx):
            with ctx, ctx.socket(zmq.REQ) as sock:
                sock.rcvtimeo = 10_000
                sock.connect(addr, ssh=options)
                for _ in range(10):
                    sock.send(b"hello")
                    assert sock.recv() == b"hello"
        ctx = TunneledContext(isolate=isolate)
        if when == "after":
            sock = ctx.socket(zmq.REQ)
            sock.connect(addr, ssh=options)
        child = os.fork()
        if not child:
            talk(TunneledContext(isolate=isolate))
            os._exit(7)
        if when == "after":
            sock.close()
        talk(ctx)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        options=arguments_for(openssh),
        addr=echo.address,
        isolate=isolate,
        when=when,
    )
    assert output == "7\n"
    time_until_nothing_is_left(openssh, swept=not isolate)


def test_a_forked_child_cannot_connect_with_its_parents_context(
    openssh: OpenSSHServer, echo: Peer
) -> None:
    output = run_program(
        """
        import os
        ctx = TunneledContext()
        sock = ctx.socket(zmq.REQ)
        child = os.fork()
        if not child:
            try:
                sock.connect(addr, ssh=options)
            except zmq.ZMQError as exc:
                os._exit(7)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        options=arguments_for(openssh),
        addr=echo.address,
    )
    assert output == "7\n"


@both_homes
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_multiprocessing(
    method: str, when: str, isolate: bool, openssh: OpenSSHServer, echo: Peer
) -> None:
    child = """
import zmq
from tunneledzmq import *
with TunneledContext(isolate=isolate) as ctx, ctx.socket(zmq.REQ) as sock:
    sock.rcvtimeo = 10_000
    sock.connect(addr, ssh=SSHOptions(**options))
    sock.send(b"hello")
    assert sock.recv() == b"hello"
"""
    output = run_program(
        """
        import multiprocessing
        work = dict(options=json.loads(sys.argv[1])["options"], addr=addr, isolate=isolate)
        process = multiprocessing.get_context(method).Process(target=exec, args=(child, work))
        ctx = TunneledContext(isolate=isolate)
        sock = ctx.socket(zmq.REQ)
        sock.rcvtimeo = 10_000
        if when == "before":
            process.start()
        sock.connect(addr, ssh=options)
        if when == "after":
            process.start()
        process.join()
        for _ in range(10):
            sock.send(b"hello")
            assert sock.recv() == b"hello"
        print(process.exitcode, sock.tunnels[0].reconnects)
        sock.close()
        ctx.term()
        """,
        options=arguments_for(openssh),
        addr=echo.address,
        isolate=isolate,
        method=method,
        when=when,
        child=child,
    )
    assert output == "0 0\n"
    time_until_nothing_is_left(openssh, swept=not isolate)


@both_homes
def test_exec_takes_the_tunnel_away(
    isolate: bool, openssh: OpenSSHServer, echo: Peer, figures: Figures
) -> None:
    source = (
        CONNECT
        + """
print("ready", flush=True)
os.execv(sys.executable, [sys.executable, "-c", "print('next', flush=True); import time; "
                          "time.sleep(60)"])
"""
    )
    with running(
        source, options=arguments_for(openssh), addr=echo.address, isolate=isolate
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == "next\n"
        figures(
            f"nothing left after {time_until_nothing_is_left(openssh, swept=not isolate):.2f} s"
        )
        assert program.poll() is None


@both_homes
def test_the_interpreter_may_end_with_everything_open(
    isolate: bool, openssh: OpenSSHServer, echo: Peer, figures: Figures
) -> None:
    start = time.monotonic()
    run_program(
        CONNECT
        + """
socks = [sock] + [ctx.socket(kind) for kind in (zmq.DEALER, zmq.PUSH, zmq.SUB)]
for other in socks[1:]:
    other.connect(addr, ssh=options)
# The delimiter is for the REP at the other end, which a message without one can make drop the next.
socks[1].send_multipart([b"", bytes(1_000_000)])
loop = [socks]
loop.append(loop)
""",
        timeout=15,
        options=arguments_for(openssh),
        addr=echo.address,
        isolate=isolate,
    )
    figures(
        f"ended after {time.monotonic() - start:.2f} s, "
        f"nothing left {time_until_nothing_is_left(openssh):.2f} s later"
    )


@both_homes
def test_threads_inside_connect_do_not_hold_term_up(isolate: bool, echo: Peer) -> None:
    with SilentPort() as silent:
        output = run_program(
            """
            import threading, time
            ctx = TunneledContext(isolate=isolate)
            options = SSHOptions(
                server, config_file=None, agent=False, connect_timeout=20, backend=backend
            )
            raised = []
            inside = threading.Semaphore(0)
            def connect():
                with ctx.socket(zmq.REQ) as sock:
                    inside.release()
                    try:
                        sock.connect(addr, ssh=options)
                    except zmq.ContextTerminated:
                        raised.append(True)
            threads = [threading.Thread(target=connect) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                inside.acquire()
            deadline = time.monotonic() + 5
            while len(ctx._tunnel_pool.tunnels) < 10 and time.monotonic() < deadline:
                time.sleep(0.01)
            start = time.monotonic()
            ctx.term()
            for thread in threads:
                thread.join()
            print(len(raised), time.monotonic() - start < 2)
            """,
            timeout=10,
            server=f"me@127.0.0.1:{silent.port}",
            backend=logins.defaults["backend"],
            addr=echo.address,
            isolate=isolate,
        )
        assert output == "10 True\n"
        time_until_nothing_is_left()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_exception_in_init_leaves_nothing(
    moment: str, openssh_options: SSHOptions, openssh: OpenSSHServer, echo: Peer
) -> None:
    output = run_program(
        """
        import gc

        class Context(TunneledContext):
            def __init__(self):
                if moment == "after":
                    super().__init__()
                raise RuntimeError

        class Socket(TunneledSocket):
            def __init__(self, *args, **kwargs):
                if moment == "after":
                    super().__init__(*args, **kwargs)
                    self.connect(addr, ssh=options)
                    self.linger = 0
                raise RuntimeError

        import warnings
        warnings.simplefilter("ignore", ResourceWarning)
        ctx = TunneledContext()
        for make in (Context, lambda: ctx.socket(zmq.REQ, socket_class=Socket)):
            try:
                make()
            except RuntimeError:
                print("raised")
            gc.collect()
        print(len(ctx.tunnels))
        with ctx.socket(zmq.REQ) as sock:
            sock.connect(addr, ssh=options)
            sock.send(b"hello")
            print(sock.recv())
        ctx.term()
        """,
        options=arguments_for(openssh),
        addr=echo.address,
        moment=moment,
    )
    assert output == "raised\nraised\n0\nb'hello'\n"
    time_until_nothing_is_left(openssh)
