"""The command line."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests import soak
from tests.soak.faults import FAULTS
from tests.soak.run import Soak


def shown(seconds: float, stack: ExitStack) -> Callable[[str], None]:
    """Return what shows the progress: a bar on a terminal, else lines."""
    start = time.monotonic()
    if not sys.stdout.isatty():
        return lambda what: print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)
    from rich.progress import Progress

    progress = stack.enter_context(Progress(transient=True))
    task = progress.add_task("soak", total=seconds)
    return lambda what: progress.update(task, description=what, completed=time.monotonic() - start)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=soak.__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="the faults' order (default: a new one)")
    parser.add_argument("--backend", choices=("sshtunnel", "openssh"), default="sshtunnel")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=FAULTS, metavar="FAULT")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="tz-"))
    (directory / "run").mkdir(mode=0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "run")
    run = Soak(arguments.minutes, seed, arguments.backend, arguments.only)
    try:
        with ExitStack() as stack:
            run.run(shown(run.seconds, stack))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(run.summary())
    for complaint in run.complaints:
        print(f"FAILED: {complaint}")
    return 1 if run.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
