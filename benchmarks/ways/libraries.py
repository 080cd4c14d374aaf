"""Ways that are called in the program itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import zmq

from .base import LOGIN_TIMEOUT, Way, accepts, host_port

if TYPE_CHECKING:
    from multiprocessing import Process

    from sshtunnel import SSHTunnelForwarder


class AskedForPassword(Exception):
    """The way wants a password from a terminal."""


class Direct(Way):
    """No tunnel at all."""

    name = "direct TCP"

    def open(self, addr: str) -> None:
        self.addr = self.local = addr


class Tunneledzmq(Way):
    name = "tunneledzmq"
    backend: ClassVar[str] = "sshtunnel"

    @classmethod
    def missing(cls, **variant: Any) -> str | None:
        from tunneledzmq import SSHOptions

        try:
            SSHOptions("localhost", backend=cls.backend, **variant)
        except NotImplementedError as exc:
            return str(exc)
        return None

    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        from tunneledzmq import SSHOptions, TunneledContext

        options = SSHOptions(
            self.login.server, keyfile=self.login.keyfile, backend=self.backend, **self.variant
        )
        return TunneledContext(ssh=options)

    def open(self, addr: str) -> None:
        self.addr = addr  # the tunnel comes with the socket's connect

    def connect(self, sock: zmq.Socket[bytes]) -> None:
        sock.connect(self.addr)
        self.local = str(sock.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")


class TunneledzmqOpenSSH(Tunneledzmq):
    name = 'tunneledzmq (backend="openssh")'
    backend = "openssh"


class ZmqSSH(Way):
    name = "zmq.ssh (ssh)"
    needs = ("pexpect",)
    takes_tries = True
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
        return all(accepts(self.local, within=0.2) for _ in range(2))


class ZmqSSHParamiko(ZmqSSH):
    name = "zmq.ssh (paramiko)"
    needs = ("paramiko",)
    takes_tries = False
    paramiko = True
    tunnel: Process

    def is_up(self) -> bool:
        return accepts(self.local, within=LOGIN_TIMEOUT)

    def close(self) -> None:
        self.tunnel.terminate()


class SSHTunnelByHand(Way):
    """Its `stop()` waits for open connections; `with` ends in `stop(force=True)`."""

    name = "sshtunnel by hand"
    needs = ("sshtunnel",)
    forwarder: SSHTunnelForwarder

    def open(self, addr: str) -> None:
        from sshtunnel import SSHTunnelForwarder

        self.addr = addr
        self.forwarder = SSHTunnelForwarder(
            (self.login.host, self.login.port),
            ssh_username=self.login.user,
            ssh_pkey=self.login.keyfile,
            remote_bind_address=host_port(addr),
        )
        self.forwarder.start()
        self.local = f"tcp://127.0.0.1:{self.forwarder.local_bind_port}"

    def close(self) -> None:
        self.forwarder.stop(**self.variant)
