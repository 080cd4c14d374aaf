"""`python -m tests.windows PYTHON [ARGUMENT ...]`: run pytest by Windows's Python, on Linux.

Args:
    PYTHON: the command that runs it.
    ARGUMENT: pytest's; by default, all tests that have no Unix in them.

"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.peers import ROOT
from tests.windows import console
from tests.windows.chosen import FILES
from tests.windows.far import WHERE, serve

IN_OUR_OWN = "TUNNELEDZMQ_OWN_NETWORK"
"""The variable that tells that we are in a network of our own."""


def main(python: str, *arguments: str) -> int:
    """Run the tests; return pytest's exit status."""
    console.PYTHON = python
    with serve() as where:
        environment = {**os.environ, WHERE: where}
        command = [python, "-u", "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rs"]
        command += ["--timeout=240", "--durations=10"]  # Wine takes its time
        # Neither a file nor a terminal is what Windows's Python can have of Wine.
        with subprocess.Popen(
            [*command, *(arguments or FILES)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            try:
                while shown := process.stdout.read1():
                    sys.stdout.buffer.write(shown.replace(b"\r", b""))
                    sys.stdout.buffer.flush()
                return process.wait()
            finally:
                process.kill()


def leave_the_network() -> None:
    """Have a network for ourselves, as far as this account may, and none but loopback.

    To tell whose a connection is, Wine looks through all that there are, for each of them.
    """
    if os.geteuid() != 0 or IN_OUR_OWN in os.environ:
        return
    os.environ[IN_OUR_OWN] = "1"
    up = 'ip link set lo up && exec "$0" "$@"'
    again = [sys.executable, "-m", "tests.windows", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", up, *again])


if __name__ == "__main__":
    leave_the_network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(*sys.argv[1:]))
