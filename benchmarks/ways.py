"""The ways to take a ZeroMQ connection through SSH, behind one small interface.

Each is used as its own documentation shows it, with its defaults. What the programs read from
`$HOME` (known_hosts, the config file) is the benchmark's; nothing is imported before it is used.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import zmq

if TYPE_CHECKING:
    from multiprocessing import Process

    from sshtunnel import SSHTunnelForwarder

LOGIN_TIMEOUT = 10.0


@dataclass(frozen=True)
class Login:
    """An SSH server, and the key for it."""

    user: str
    host: str
    port: int
    keyfile: str

    @property
    def server(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


class AskedForPassword(Exception):
    """The way wants a password from a terminal."""


class SSHExited(Exception):
    """The `ssh` program ended; its message is what it wrote to its standard error."""


class Way(ABC):
    """One tunnel.

    Args:
        login: the SSH server.
        variant: what differs from the way's usual use, such as `password="..."`.

    """

    name: ClassVar[str]

    def __init__(self, login: Login, **variant: Any) -> None:
        self.login = login
        self.variant = variant
        self.addr = ""
        self.local = ""

    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        return zmq.Context()

    @abstractmethod
    def open(self, addr: str) -> None:
        """Open the tunnel to `addr`, and set `local` to its local endpoint."""

    def connect(self, sock: zmq.Socket[bytes]) -> None:
        """Connect `sock` through the tunnel."""
        sock.connect(self.local)

    def is_up(self) -> bool:
        """Whether the tunnel is there, though `open` has returned."""
        return True

    def close(self) -> None:  # noqa: B027 - not every way has something that does
        """Close the tunnel."""


class Tunneledzmq(Way):
    name = "tunneledzmq"

    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        from tunneledzmq import SSHOptions, TunneledContext

        options = SSHOptions(self.login.server, keyfile=self.login.keyfile)
        return TunneledContext(ssh=options)

    def open(self, addr: str) -> None:
        self.addr = addr  # the tunnel comes with the socket's connect

    def connect(self, sock: zmq.Socket[bytes]) -> None:
        sock.connect(self.addr)
        self.local = str(sock.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")


class ZmqSSH(Way):
    name = "zmq.ssh (ssh)"
    paramiko: ClassVar[bool] = False

    def open(self, addr: str) -> None:
        import zmq.ssh.tunnel

        def asked(prompt: str = "", stream: object = None) -> str:
            raise AskedForPassword(prompt)

        zmq.ssh.tunnel.getpass = asked  # type: ignore[attr-defined]
        self.addr = addr
        self.local, self.tunnel = zmq.ssh.tunnel.open_tunnel(
            addr,
            self.login.server,
            keyfile=self.login.keyfile,
            paramiko=self.paramiko,
            **self.variant,
        )

    def is_up(self) -> bool:
        # Its `ssh -f` is hung up on, or not, as the pseudo-terminal it was started on goes.
        return all(_accepts(self.local, within=0.2) for _ in range(2))


class ZmqSSHParamiko(ZmqSSH):
    name = "zmq.ssh (paramiko)"
    paramiko = True
    tunnel: Process

    def is_up(self) -> bool:
        return _accepts(self.local, within=LOGIN_TIMEOUT)

    def close(self) -> None:
        self.tunnel.terminate()


class SSHTunnelByHand(Way):
    """Its `stop()` waits for open connections; `with` ends in `stop(force=True)`."""

    name = "sshtunnel by hand"
    forwarder: SSHTunnelForwarder

    def open(self, addr: str) -> None:
        from sshtunnel import SSHTunnelForwarder

        self.addr = addr
        self.forwarder = SSHTunnelForwarder(
            (self.login.host, self.login.port),
            ssh_username=self.login.user,
            ssh_pkey=self.login.keyfile,
            remote_bind_address=_host_port(addr),
        )
        self.forwarder.start()
        self.local = f"tcp://127.0.0.1:{self.forwarder.local_bind_port}"

    def close(self) -> None:
        self.forwarder.stop(**self.variant)


class SSHProgram(Way):
    name = "`ssh -N -L`"
    process: subprocess.Popen[str]

    def open(self, addr: str) -> None:
        self.addr = addr
        host, port = _host_port(addr)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            local_port = probe.getsockname()[1]
        self.local = f"tcp://127.0.0.1:{local_port}"
        forward = f"127.0.0.1:{local_port}:{host}:{port}"
        login = f"{self.login.user}@{self.login.host}"
        command = ["ssh", "-N", "-L", forward, "-o", "ExitOnForwardFailure=yes"]
        command += ["-i", self.login.keyfile, "-p", str(self.login.port), login]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + LOGIN_TIMEOUT
        while not _accepts(self.local, within=0.05):
            if self.process.poll() is not None:
                assert self.process.stderr
                raise SSHExited(self.process.stderr.read())
            if time.monotonic() > deadline:
                raise TimeoutError("ssh does not listen")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def _host_port(addr: str) -> tuple[str, int]:
    host, _, port = addr.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def _accepts(endpoint: str, within: float) -> bool:
    """Whether somebody listens on the endpoint, now or within the given seconds."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(_host_port(endpoint), timeout=1).close()
            time.sleep(0.05)  # so that a second look is a later one
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


WAYS: dict[str, type[Way]] = {
    way.name: way for way in (Tunneledzmq, ZmqSSH, ZmqSSHParamiko, SSHTunnelByHand, SSHProgram)
}
