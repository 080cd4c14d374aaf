"""See the package."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers import ROOT
from tests.polling import wait_until
from tests.sshd import OpenSSHServer
from tests.unchanged.differences import DIFFERENT
from tests.unchanged.subjects import SUBJECTS, Results, Subject

# This checkout, and none that the environment has.
RUN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from tunneledzmq.__main__ import main;"
    "sys.exit(main())"
)


class Trial:
    """One subject, in an environment of its own.

    Args:
        subject: what is run.
        server: what it runs through.
        directory: an empty one.

    """

    def __init__(self, subject: Subject, server: OpenSSHServer, directory: Path) -> None:
        self.subject = subject
        self._server = server
        self._directory = directory
        self.run_directory = directory / "run"
        self.run_directory.mkdir(mode=0o700)
        venv.create(directory / "venv", symlinks=True, with_pip=True)
        self._python = directory / "venv" / "bin" / "python"
        [packages] = (directory / "venv").glob("lib/python*/site-packages")
        # What this environment has need not be installed once more.
        packages.joinpath("ours.pth").write_text(
            "\n".join(p for p in sys.path if "site-packages" in p)
        )
        install = [str(self._python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, *subject.packages], check=True)
        (directory / "source").mkdir()
        self._where = subject.prepare(self._python, directory / "source")

    def run(self, *, tunnelled: bool, only: Sequence[str] = ()) -> tuple[Results, str]:
        """Run it; return how its parts ended, and what `run` said at the end."""
        results = self._directory / "results"
        results.unlink(missing_ok=True)
        log = self._directory / f"log-{'tunnelled' if tunnelled else 'plain'}"
        command = self.subject.command(self._python, results, only)
        if tunnelled:
            login = ("--ssh", self._server.server, "-i", self._server.keyfile, "-F", "none")
            known = ("--known-hosts", self._server.known_hosts)
            run = [
                str(self._python),
                "-c",
                RUN,
                str(ROOT),
                "run",
                *login,
                *known,
                *self.subject.options,
            ]
            run += ["-v", "--"]
            command = [*run, *command]
        home = self._directory / "home"
        home.mkdir(exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "HOME": str(home),
            "PATH": f"{self._python.parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.run_directory),
            "XDG_RUNTIME_DIR": str(self.run_directory),
        }
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._where,
                env=environment,
                start_new_session=True,
            )
            try:
                process.wait(self.subject.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
        text = log.read_text(errors="replace")
        found = self.subject.read(results)
        if not found:
            print(text[-5000:])
            raise RuntimeError(f"{self.subject.name}: nothing has run")
        return found, "\n".join(re.findall(r"^tunneledzmq run: .*", text, re.MULTILINE))


def differing(plain: Results, tunnelled: Results) -> list[str]:
    """Return what ends well, or is skipped, with plain pyzmq only."""
    return [name for name, end in plain.items() if end != "failed" and tunnelled.get(name) != end]


def try_out(subject: Subject, server: OpenSSHServer, directory: Path) -> bool:
    """Run a subject both ways and tell what differs; return whether nothing unexpected does."""
    start = time.monotonic()
    trial = Trial(subject, server, directory)
    installed = time.monotonic()
    plain, _ = trial.run(tunnelled=False)
    middle = time.monotonic()
    tunnelled, said = trial.run(tunnelled=True)
    end = time.monotonic()
    names = differing(plain, tunnelled)
    if names:
        # Once more, both ways: many of these tests are races on a busy machine.
        again, _ = trial.run(tunnelled=True)
        names = [name for name in names if name in differing(plain, again)]
    if names:
        once_more, _ = trial.run(tunnelled=False)
        names = [name for name in names if once_more.get(name) != "failed"]
    known = DIFFERENT.get(subject.name, {})
    wait_until(lambda: not list(trial.run_directory.glob("tunneledzmq-*")), 20, "all is gone")
    through = len(re.findall(r" through ", said))
    same = sum(tunnelled.get(name) == end for name, end in plain.items())
    failed = list(plain.values()).count("failed")
    print(
        f"{subject.name}: {same} of {len(plain)} end as with plain pyzmq, where {failed} fail; "
        f"{through} addresses through the server; "
        f"{installed - start:.0f} s to install, {middle - installed:.0f} s with plain pyzmq, "
        f"{end - middle:.0f} s through the server"
    )
    for name in names:
        print(f"  differs: {name}: {known.get(name, 'NOBODY KNOWS WHY')}")
    if not through:
        print(f"  nothing went through the server: {said}")
    return bool(through) and set(names) <= set(known)


def main(arguments: Sequence[str]) -> int:
    """Run what is named, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.unchanged")
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[[], *SUBJECTS], default=[])
    names = parser.parse_args(arguments).names or list(SUBJECTS)
    well = True
    with OpenSSHServer() as server:
        for name in names:
            with TemporaryDirectory(prefix="tz-") as directory:
                try:
                    well = try_out(SUBJECTS[name], server, Path(directory)) and well
                except (RuntimeError, subprocess.CalledProcessError) as exc:
                    well = False
                    print(exc)
            sys.stdout.flush()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
