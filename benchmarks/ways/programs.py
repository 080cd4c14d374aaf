"""Ways that are programs of their own beside the program."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from abc import abstractmethod
from typing import Any, ClassVar

from .base import LOGIN_TIMEOUT, Way, accepts, free_port, host_port


class SSHExited(Exception):
    """The `ssh` program ended; its message is what it wrote to its standard error."""


class ChildProcess(Way):
    """A tunnel that is a program of its own, up as soon as it listens."""

    process: subprocess.Popen[str]

    @abstractmethod
    def command(self, addr: str) -> list[str]:
        """Set `local`, and return the command line."""

    def open(self, addr: str) -> None:
        self.addr = addr
        self.process = subprocess.Popen(
            self.command(addr), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + LOGIN_TIMEOUT
        while not accepts(self.local, within=0.05):
            if self.process.poll() is not None:
                assert self.process.stderr
                raise SSHExited(self.process.stderr.read())
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not listen")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


class SSHProgram(ChildProcess):
    name = "`ssh -N -L`"
    options: ClassVar[tuple[str, ...]] = ()

    def listens_on(self) -> str:
        """Choose the local end, set `local` to it, and return it in ssh's words."""
        port = free_port()
        self.local = f"tcp://127.0.0.1:{port}"
        return f"127.0.0.1:{port}"

    def command(self, addr: str) -> list[str]:
        forward = f"{self.listens_on()}:{addr.removeprefix('tcp://')}"
        login = f"{self.login.user}@{self.login.host}"
        command = ["ssh", "-N", "-L", forward, "-o", "ExitOnForwardFailure=yes", *self.options]
        return [*command, "-i", self.login.keyfile, "-p", str(self.login.port), login]


class SSHProgramGCM(SSHProgram):
    name = "`ssh -N -L`, aes128-gcm"
    options = ("-c", "aes128-gcm@openssh.com")


class SSHProgramBest(SSHProgramGCM):
    """The fastest cipher that it has, and a Unix socket in place of loopback TCP."""

    name = "`ssh -L` at its best"

    def listens_on(self) -> str:
        self._directory = tempfile.mkdtemp(prefix="ssh-")
        self.local = f"ipc://{self._directory}/s"
        return f"{self._directory}/s"

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._directory, ignore_errors=True)


class Autossh(SSHProgram):
    """`ssh -N -L`, started again whenever it ends; ssh itself finds out when the server is gone."""

    name = "`autossh`"
    options = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")

    @classmethod
    def missing(cls, **variant: Any) -> str | None:
        return None if shutil.which("autossh") else "autossh not installed"

    def command(self, addr: str) -> list[str]:
        # It would not look for ssh in $PATH.
        path = f"AUTOSSH_PATH={shutil.which('ssh')}"
        return ["env", path, "autossh", "-M", "0", *super().command(addr)[1:]]


ASYNCSSH = """
import asyncio, sys
import asyncssh

async def run(user, host, port, keyfile, local_port, remote_host, remote_port):
    async with asyncssh.connect(
        host, int(port), username=user, client_keys=[keyfile], agent_path=None
    ) as connection:
        listener = await connection.forward_local_port(
            "127.0.0.1", int(local_port), remote_host, int(remote_port)
        )
        await listener.wait_closed()

asyncio.run(run(*sys.argv[1:]))
"""


class AsyncSSH(ChildProcess):
    """As its documentation has it, a program around an event loop; so it has a GIL of its own."""

    name = "asyncssh"
    needs = ("asyncssh",)

    def command(self, addr: str) -> list[str]:
        port = free_port()
        self.local = f"tcp://127.0.0.1:{port}"
        login = [self.login.user, self.login.host, str(self.login.port), self.login.keyfile]
        host, remote_port = host_port(addr)
        return [sys.executable, "-c", ASYNCSSH, *login, str(port), host, str(remote_port)]
