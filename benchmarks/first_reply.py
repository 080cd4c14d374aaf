"""From the start of a program to the first reply through the tunnel, beside `ssh -N -L`.

Both programs are fresh processes; the one with `ssh` connects as soon as its port is open.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from tests.peers import ROOT, Peer
from tests.sshd import OpenSSHServer

OURS = """
import sys
import zmq
from tunneledzmq import SSHOptions, TunneledContext

user, host, port, keyfile, known_hosts, addr = sys.argv[1:]
options = SSHOptions(
    f"{user}@{host}:{port}", keyfile=keyfile, known_hosts=known_hosts, config_file=None, agent=False
)
with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
    sock.connect(addr, ssh=options)
    sock.send(b"hello")
    sock.recv()
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
    while True:
        try:
            socket.create_connection(("127.0.0.1", local)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.002)
    with zmq.Context() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(f"tcp://127.0.0.1:{local}")
        sock.send(b"hello")
        sock.recv()
    ssh.terminate()
"""


def run(rounds: int) -> None:
    """Measure in turns, and print the medians and their ratio."""
    seconds: dict[str, list[float]] = {"tunneledzmq": [], "ssh -N -L": []}
    with OpenSSHServer() as server, Peer("echo") as echo:
        arguments = [server.user, server.host, str(server.port), server.keyfile]
        arguments += [server.known_hosts, echo.address]
        for _ in range(rounds + 1):
            for way, source in zip(seconds, (OURS, SSH), strict=True):
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", source, *arguments], check=True, cwd=ROOT)
                seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(times[1:]) for way, times in seconds.items()}  # 1st: warm-up
    for way, median in medians.items():
        print(f"{way}: {median * 1000:.0f} ms (median of {rounds} fresh programs)")
    print(f"ratio: {medians['tunneledzmq'] / medians['ssh -N -L']:.2f}")
