"""What is peculiar to Windows: the local leg, gateways' lives, consoles, pipes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

import tunneledzmq.asyncio
from tests.leaks import runtime_directories
from tests.logins import arguments_for, entry_for, options_for
from tests.peers import ROOT, Peer, free_port, round_trip
from tests.polling import wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer
from tests.windows.agents import LIST, SIGN, agent_at, pageant
from tunneledzmq import GatewayError, SSHAuthenticationError, SSHOptions, TunneledContext
from tunneledzmq.demo.openssh import find_sshd
from tunneledzmq.shared.system import polling, ports

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="it is about Windows")

Gateways = Callable[[], set[psutil.Process]]

CLIENT = """\
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.settimeout(8)
sock.sendall(b"\\xff" + bytes(8) + b"\\x7f\\x03")
try:
    print(len(sock.recv(100)))
except ConnectionError:
    print(0)
"""


def local_port(sock: zmq.Socket[bytes]) -> int:
    local = sock.tunnels[0].local  # type: ignore[attr-defined]
    assert local.startswith("tcp://127.0.0.1:")
    return int(local.rpartition(":")[2])


def test_the_local_leg_is_closed_to_other_processes(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    command = [sys.executable, "-c", CLIENT, str(local_port(sock))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.strip() == "0"
    round_trip(sock)
    # The same from this process is let in: nothing else is wrong with it.
    with socket.create_connection(("127.0.0.1", local_port(sock))) as ours:
        ours.settimeout(8)
        ours.sendall(b"\xff" + bytes(8) + b"\x7f\x03")
        assert ours.recv(100)


def test_an_endpoint_of_one_s_own_choice_is_open_to_all(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options, local="tcp://127.0.0.1:*")
    round_trip(sock)
    command = [sys.executable, "-c", CLIENT, str(local_port(sock))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(output) > 0


def test_an_endpoint_refuses_while_the_peer_is_away(
    ctx: TunneledContext, openssh_options: SSHOptions
) -> None:
    with Peer("echo") as peer:
        sock = ctx.socket(zmq.REQ)
        sock.req_relaxed = sock.req_correlate = True
        sock.connect(peer.address, ssh=openssh_options)
        round_trip(sock)
        port = peer.port
    with pytest.raises(ConnectionRefusedError):
        wait_until(lambda: socket.create_connection(("127.0.0.1", local_port(sock))).close())
    with Peer("echo", port=port):
        round_trip(sock)


def test_a_port_is_kept_though_the_peer_was_never_there(openssh_options: SSHOptions) -> None:
    """Also where the program has made the listener, and has it until the gateway has taken it."""

    async def connect() -> None:
        with tunneledzmq.asyncio.TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.linger = 0
            await sock.connect(f"tcp://127.0.0.1:{free_port()}", ssh=openssh_options)
            await asyncio.sleep(3)
            with socket.socket() as other, pytest.raises(OSError, match="WinError 10048"):
                other.bind(("127.0.0.1", local_port(sock)))

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(connect())


def test_our_ports_are_not_shared() -> None:
    """SO_REUSEADDR would let other users take connections of ours."""
    claimed = ports.claim_port(("127.0.0.1", 0))
    address = claimed.getsockname()
    claimed.listen()
    with socket.create_connection(address):
        claimed = ports.stop_listening(claimed)
    with claimed:
        assert claimed.getsockname() == address
        assert not claimed.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


KILLED = """
import os, time
sock = TunneledContext().socket(zmq.REQ)
sock.connect(addr, ssh=options)
sock.send(b"hello")
sock.recv()
print(sock.tunnels[0]._handle.pid, flush=True)
time.sleep(60)
"""


def test_nothing_is_left_of_a_program_that_was_terminated(
    openssh: OpenSSHServer, echo: Peer, gateways: Gateways
) -> None:
    with start_program(KILLED, options=arguments_for(openssh), addr=echo.address) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert {process.pid for process in gateways()} == {pid}
        program.kill()  # TerminateProcess
    wait_until(lambda: not gateways(), what="the gateway's end")
    wait_until(lambda: not runtime_directories("*"), what="the end of its directory")


def test_a_gateway_that_was_terminated_is_replaced(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, gateways: Gateways
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.req_relaxed = sock.req_correlate = True
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    before = local_port(sock)
    [gateway] = gateways()
    gateway.kill()
    wait_until(lambda: sock.tunnels[0].reconnects == 1, 30)
    sock.rcvtimeo = 20_000
    round_trip(sock)
    assert local_port(sock) == before


def test_a_socket_that_is_registered_during_a_look_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may do so, while the list for WSAPoll is made of what there is."""
    asked = polling._asked

    def register_another(events: int) -> int:
        monkeypatch.setattr(polling, "_asked", asked)
        selector.register(second, selectors.EVENT_READ)
        return int(asked(events))

    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        (first, _), (second, far) = pairs
        for sock in (*pairs[0], *pairs[1]):
            stack.enter_context(sock)
        selector = polling.make_selector()
        selector.register(first, selectors.EVENT_READ)
        monkeypatch.setattr(polling, "_asked", register_another)
        selector.select(0)
        far.send(b"x")
        assert [key.fileobj for key, _ in selector.select(5)] == [second]
        selector.close()


def test_a_wait_may_be_over_since_ever() -> None:
    selector = polling.make_selector()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        selector.register(sock, selectors.EVENT_READ)
        assert selector.select(float("-inf")) == []
        sock.sendto(b"x", sock.getsockname())
        assert len(selector.select(float("inf"))) == 1
    selector.close()


@pytest.mark.timeout(480)
def test_300_tunnels_at_once(
    ctx: TunneledContext, openssh_options: SSHOptions, remote: Callable[..., Peer]
) -> None:
    router = remote("router")
    sockets = []
    for _ in range(300):
        sock = ctx.socket(zmq.DEALER)
        sock.rcvtimeo = 180_000  # Wine's table of them takes its time
        sock.connect(router.address, ssh=openssh_options)
        sockets.append(sock)
    for sock in sockets:
        sock.send(b"hello")
    assert [sock.recv() for sock in sockets] == [b"hello"] * 300


def test_a_way_over_two_hops(ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer) -> None:
    hops = [options_for(openssh, server_alive_count_max=n) for n in (4, 5)]
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=[*hops, options_for(openssh)])
    round_trip(sock)


def test_a_gateway_behind_a_hop_that_was_terminated_is_replaced(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    sock.req_relaxed = sock.req_correlate = True
    hop = options_for(openssh, server_alive_count_max=4)
    sock.connect(echo.address, ssh=[hop, options_for(openssh)])
    round_trip(sock)
    # The way over the hop was that one's alone; the next one gets another.
    psutil.Process(sock.tunnels[0]._handle.pid).kill()
    wait_until(lambda: sock.tunnels[0].reconnects == 1, 30)
    sock.rcvtimeo = 20_000
    round_trip(sock)


@pytest.mark.parametrize("loop", ["ProactorEventLoop", "SelectorEventLoop"])
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
def test_asyncio_on_both_event_loops(loop: str, openssh_options: SSHOptions, echo: Peer) -> None:
    async def talk() -> None:
        with tunneledzmq.asyncio.TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.linger = 0
            await sock.connect(echo.address, ssh=openssh_options)
            for number in range(10):
                await sock.send(b"%d" % number)
                assert await asyncio.wait_for(sock.recv(), 10) == b"%d" % number

    with asyncio.Runner(loop_factory=getattr(asyncio, loop)) as runner:
        runner.run(talk())


def test_what_was_sent_before_the_login_arrives(openssh_options: SSHOptions) -> None:
    async def send(addr: str) -> None:
        with tunneledzmq.asyncio.TunneledContext() as ctx, ctx.socket(zmq.PUSH) as sock:
            sock.connect(addr, ssh=openssh_options)
            for number in range(100):
                await sock.send(number.to_bytes(8, "big"))

    with Peer("collector") as collector:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(send(collector.address))
        assert collector.wait_for(messages=100, timeout=30)["gaps"] == 0


def test_the_openssh_backend_says_that_it_cannot_be_had(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer
) -> None:
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(GatewayError, match=r"Unix sockets.*backend='sshtunnel'"):
        sock.connect(echo.address, ssh=options_for(openssh, backend="openssh"))


def test_unix_sockets_are_refused_by_name(
    ctx: TunneledContext, openssh_options: SSHOptions
) -> None:
    sock = ctx.socket(zmq.REQ)
    with pytest.raises(ValueError, match="no Unix sockets"):
        sock.connect("tcp://127.0.0.1:1", ssh=openssh_options, local="ipc:///C:/x")


def test_the_config_files_of_windows_are_read(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    keyfile = openssh.keyfile.replace("/", "\\")  # as one writes it there
    entry = entry_for("lab", openssh).replace(openssh.keyfile, keyfile)
    (home / ".ssh" / "config").write_text(entry)
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh="lab")
    round_trip(sock)


def test_the_system_s_config_file_is_read_after_the_user_s(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    system = Path(os.environ["PROGRAMDATA"], "ssh", "ssh_config")
    system.parent.mkdir(exist_ok=True)
    system.write_text(entry_for("machine", openssh))
    try:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh="machine")
        round_trip(sock)
    finally:
        system.unlink()


def test_keys_are_added_to_known_hosts(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    new = options_for(openssh, known_hosts=None, strict_host_key_checking="accept-new")
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=new)
    round_trip(sock)
    known = (home / ".ssh" / "known_hosts").read_text().split()
    assert known == Path(openssh.known_hosts).read_text().split()


def test_a_proxy_command_is_the_way_and_goes_with_it(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        textwrap.dedent("""\
            import os, socket, sys, threading
            sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
            def pull():
                while data := sock.recv(65536):
                    os.write(1, data)
                os._exit(0)
            threading.Thread(target=pull, daemon=True).start()
            while data := os.read(0, 65536):
                sock.sendall(data)
        """)
    )
    config = tmp_path / "config"
    command = f'"{sys.executable}" "{relay}" %h %p'
    config.write_text(entry_for("lab", openssh, f"ProxyCommand {command}"))
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.linger = 0
        sock.rcvtimeo = 20_000
        sock.connect(echo.address, ssh=SSHOptions("lab", config_file=config))
        round_trip(sock)
        assert relays(relay)
    wait_until(lambda: not relays(relay))


def relays(relay: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if str(relay) in process.cmdline() and process.pid != os.getpid():
                found.append(process.pid)
    return found


def test_a_prompt_is_asked_for_a_password(ctx: TunneledContext, asyncssh: Any, echo: Peer) -> None:
    from tunneledzmq.demo.server import EmbeddedServer

    asked = []

    def prompt(text: str, echo: bool) -> str:
        asked.append((text, echo))
        return "secret"

    with EmbeddedServer(password="secret") as server:
        options = options_for(server, keyfile=None, prompt=prompt, config_file=None)
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
    [(text, shown)] = asked
    assert "assword" in text and not shown


def test_nobody_is_asked_without_a_console(asyncssh: Any, echo: Peer) -> None:
    output = run_program(
        """
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            try:
                sock.connect(addr, ssh=options)
            except SSHAuthenticationError as exc:
                print(exc)
        """,
        options=arguments_for(asyncssh, keyfile=None),
        addr=echo.address,
    )
    assert "no key and no password" in output


# asyncio may let go of a pipe that is still being closed (IocpProactor.close).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("pipe", "named"),
    [(r"\\.\pipe\tunneledzmq-agent", True), (r"\\.\pipe\openssh-ssh-agent", False)],
    ids=["SSH_AUTH_SOCK", "that of Windows"],
)
def test_the_agent_s_named_pipe_is_found(
    pipe: str,
    named: bool,
    ctx: TunneledContext,
    openssh: OpenSSHServer,
    echo: Peer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if named:
        monkeypatch.setenv("SSH_AUTH_SOCK", pipe)
    with agent_at(pipe, openssh.keyfile) as asked:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=None, agent=True))
        round_trip(sock)
    assert asked == [LIST, SIGN]


def test_pageant_is_asked(ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer) -> None:
    with pageant(openssh.keyfile) as asked:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=options_for(openssh, keyfile=None, agent=True))
        round_trip(sock)
    assert asked == [LIST, SIGN]


def test_a_pageant_that_knows_no_answer_is_passed_over(
    ctx: TunneledContext, openssh: OpenSSHServer
) -> None:
    sock = ctx.socket(zmq.REQ)
    with pageant(None) as asked, pytest.raises(SSHAuthenticationError):
        sock.connect("tcp://127.0.0.1:1", ssh=options_for(openssh, keyfile=None, agent=True))
    assert asked == [LIST]


def test_check_says_what_it_finds(openssh: OpenSSHServer, echo: Peer) -> None:
    command = [
        *(sys.executable, "-m", "tunneledzmq", "check", echo.address, "--ssh", openssh.server),
        *("-i", openssh.keyfile, "--known-hosts", openssh.known_hosts, "-F", "none", "--json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["ok"], found
    assert all(step["ok"] for step in found["steps"])


def test_the_demo_runs_to_its_end(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "tunneledzmq", "demo"]
    done = subprocess.run(
        [*command, "--seconds", "0.2", "--json", str(results)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert None not in json.loads(results.read_text())["gone"].values()


def test_the_demo_takes_no_sshd_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sshd.exe", "ssh-keygen.exe"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("sshd") and find_sshd() is None


def test_gateways_have_no_window_and_hear_no_ctrl_c(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    import ctypes

    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    processes = (ctypes.c_uint32 * 64)()
    count = ctypes.windll.kernel32.GetConsoleProcessList(processes, 64)
    assert sock.tunnels[0]._handle.pid not in list(processes[:count])
