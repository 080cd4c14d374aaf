"""From the start of a program to the first reply through the tunnel, beside `ssh -N -L`.

Both programs are fresh processes; the one with `ssh` connects as soon as its port is open.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.ways.libraries import Tunneledzmq, TunneledzmqOpenSSH
from benchmarks.ways.programs import SSHProgram
from tests.peers import ROOT, Peer
from tests.sshd import OpenSSHServer

OURS = """
import sys
import zmq
from tunneledzmq import SSHOptions, TunneledContext

user, host, port, keyfile, known_hosts, addr, backend = sys.argv[1:]
options = SSHOptions(
    f"{user}@{host}:{port}",
    keyfile=keyfile,
    known_hosts=known_hosts,
    config_file=None,
    agent=False,
    backend=backend,
)
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.linger, sock.rcvtimeo = 0, 20_000
    sock.connect(addr, ssh=options)
    sock.send(b"hello")
    sock.recv()
    print("replied", flush=True)
"""

SSH = """
import socket, subprocess, sys, time
import zmq

user, host, port, keyfile, known_hosts, addr = sys.argv[1:]
with socket.create_server(("127.0.0.1", 0)) as probe:
    local = probe.getsockname()[1]
command = ["ssh", "-N", "-F", "none", "-i", keyfile, "-o", "IdentitiesOnly=yes", "-p", port]
command += ["-o", f"UserKnownHostsFile={known_hosts}", "-l", user, host]
command += ["-L", f"127.0.0.1:{local}:" + addr.removeprefix("tcp://")]
with subprocess.Popen(command) as ssh:
    try:
        while ssh.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", local)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.002)
        with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
            sock.linger, sock.rcvtimeo = 0, 20_000
            sock.connect(f"tcp://127.0.0.1:{local}")
            sock.send(b"hello")
            sock.recv()
            print("replied", flush=True)
    finally:
        ssh.terminate()
"""

PATIENCE = 20.0

PROGRAMS: dict[str, tuple[str, list[str]]] = {
    Tunneledzmq.name: (OURS, ["sshtunnel"]),
    TunneledzmqOpenSSH.name: (OURS, ["openssh"]),
    SSHProgram.name: (SSH, []),
}


def measure(way: str, server: OpenSSHServer) -> float:
    """Run one fresh program to its end, and return the seconds to the reply."""
    source, further = PROGRAMS[way]
    with Peer("echo") as echo:
        arguments = [server.user, server.host, str(server.port), server.keyfile]
        arguments += [server.known_hosts, echo.address, *further]
        with tempfile.TemporaryFile("w+") as errors:
            start = time.perf_counter()
            program = subprocess.Popen(
                [sys.executable, "-c", source, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            try:
                return _seconds_to_reply(program, start)
            except RuntimeError as exc:
                errors.seek(0)
                raise RuntimeError(f"{exc}: {errors.read()}") from None
            finally:
                _end(program)


def _seconds_to_reply(program: subprocess.Popen[bytes], start: float) -> float:
    assert program.stdout
    readable, _, _ = select.select([program.stdout], [], [], PATIENCE)
    if not readable:
        raise RuntimeError(f"no reply within {PATIENCE} s")
    if not program.stdout.readline():
        raise RuntimeError("the program ended")
    return time.perf_counter() - start


def _end(program: subprocess.Popen[bytes]) -> None:
    """Let the program come to its end; what is left then is its `ssh`, if something failed."""
    try:
        program.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        assert program.stdout
        program.stdout.close()


def run(rounds: int) -> None:
    """Measure in turns, and print the medians and their ratio."""
    seconds: dict[str, list[float]] = {Tunneledzmq.name: [], SSHProgram.name: []}
    with OpenSSHServer() as server:
        for _ in range(rounds + 1):
            for way, times in seconds.items():
                times.append(measure(way, server))
    medians = [statistics.median(times[1:]) for times in seconds.values()]  # 1st: warm-up
    for way, median in zip(seconds, medians, strict=True):
        print(f"{way}: {median * 1000:.0f} ms (median of {rounds} fresh programs)")
    print(f"ratio: {medians[0] / medians[1]:.2f}")
