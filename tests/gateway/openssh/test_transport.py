"""What the session of a master tells of its end."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from queue import SimpleQueue

from tests.polling import wait_until
from tunneledzmq.gateway.openssh import mux
from tunneledzmq.gateway.openssh.process import MasterProcess
from tunneledzmq.gateway.openssh.said import Said
from tunneledzmq.gateway.openssh.transport import OpenSSHTransport

MASTER = """
    import socket, sys, time
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    control, _ = listener.accept()
    control.recv(4096)
    control.sendall(bytes.fromhex(sys.argv[2]))
    time.sleep(0.1)
    control.close()
    time.sleep(0.05)
    sys.stderr.write("Connection to there closed by remote host.\\r\\n")
"""


def test_the_reason_may_come_after_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    command = [sys.executable, "-c", textwrap.dedent(MASTER), path, mux.hello().hex()]
    process = MasterProcess(command, os.environ)
    reasons: SimpleQueue[str] = SimpleQueue()
    try:
        wait_until(lambda: os.path.exists(path))
        transport = OpenSSHTransport(
            path, lambda transport, reason: reasons.put(reason), process, Said()
        )
        transport.start()
        assert "closed by remote host" in reasons.get(timeout=10)
        transport.join()
    finally:
        process.end()
