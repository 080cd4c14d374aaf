"""zmq.ssh's functions, with the same names and arguments, on this package's tunnels.

Each takes the fields of :class:`tunneledzmq.SSHOptions` as further keywords. :func:`install` puts
them in place of zmq.ssh's, for programs that were written for those.
"""

from __future__ import annotations

import errno
import importlib
import socket as _socket
import weakref
from contextlib import ExitStack
from typing import Any

import zmq

from .endpoints import RemoteEndpoint, parse_remote
from .exceptions import SSHAuthenticationError
from .handles.pool import shared_pool
from .mixing import adopt
from .options import Paths, SSHOptions
from .shared.control import How
from .shared.pace import Pace
from .socket import original
from .tunnel import Tunnel

__all__ = [
    "OwnTunnel",
    "install",
    "open_tunnel",
    "openssh_tunnel",
    "paramiko_tunnel",
    "select_random_ports",
    "ssh_tunnel",
    "try_passwordless_ssh",
    "tunnel_connection",
]

MODULES = ("zmq.ssh", "zmq.ssh.tunnel", "jupyter_client.ssh", "jupyter_client.ssh.tunnel")
"""Where `install` replaces functions."""

FUNCTIONS = (
    "open_tunnel",
    "openssh_tunnel",
    "paramiko_tunnel",
    "select_random_ports",
    "ssh_tunnel",
    "try_passwordless_ssh",
    "tunnel_connection",
)
"""What it replaces, where they have it."""

# How whoever uses a tunnel connects, as far as we know: as libzmq does by default.
_PACE = Pace(reconnect_ivl=0.1, reconnect_ivl_max=0.0, heartbeat=True)


class OwnTunnel(Tunnel):
    """A `Tunnel` that whoever opened it may end.

    Nobody need hold it: it lasts until it is ended, its socket is closed (of
    :func:`tunnel_connection`), or the program ends.
    """

    # The socket that was connected, of tunnel_connection().
    _socket: weakref.ref[zmq.Socket[Any]] | None = None

    def close(self) -> None:
        """End it when the sockets that use it are through with it.

        It goes when they have closed their connections, or when nothing has moved for 10 s. The
        socket of :func:`tunnel_connection` is disconnected, so call this on the socket's thread.
        """
        if self._closing is not None:
            return
        sock = None if self._socket is None else self._socket()
        if sock is not None and not sock.closed:
            sock.disconnect(self.local)
        else:
            self._close(-1, How.CLOSED)

    def terminate(self) -> None:
        """End it now: connections are cut when what they have sent so far is on its way."""
        self.close()
        self._cut()


def tunnel_connection(
    socket: zmq.Socket[Any],
    addr: str,
    server: str,
    keyfile: Paths | None = None,
    password: str | bool | None = None,
    paramiko: bool | None = None,
    timeout: float = 60,
    **options: Any,
) -> OwnTunnel:
    """Connect a socket to an address through an SSH server.

    Args:
        socket: any :class:`zmq.Socket`, also of :mod:`zmq.asyncio`. The tunnel goes with it. Its
            class becomes a subclass of what it was, to see its end.
        addr: the peer's endpoint as the server sees it, ``tcp://HOST:PORT``.
        server: ``[user@]host[:port]``.
        keyfile: as in :class:`SSHOptions`.
        password: `None` or `False` for none. Without one the user is asked if the server wants it.
        paramiko: for zmq.ssh's callers, without effect: ``backend=`` is the choice.
        timeout: for zmq.ssh's callers, without effect: a tunnel that is not used yet stays.
        **options: further fields of :class:`SSHOptions`.

    Returns:
        The tunnel, over a Unix socket that is private to the user.

    Raises:
        TunnelError: no SSH session could be set up; the socket is not connected.
        ValueError: an argument is malformed.
        TypeError: an argument is of another type.
    """
    ssh = _options(server, keyfile, password, options)
    parse_remote(addr)
    owner = adopt(original(socket))
    way = owner._tunnel_way(addr, ssh, None)
    assert way is not None
    tunnel = OwnTunnel(str(way.remote), ssh, way.local or "", pace=way.pace)
    tunnel._socket = weakref.ref(owner)
    try:
        owner._open_tunnel(tunnel)
        owner._connect_tunnel(tunnel, addr)
    except BaseException:
        tunnel._cut_if_open()  # Ctrl-C in between
        raise
    return tunnel


def open_tunnel(
    addr: str,
    server: str,
    keyfile: Paths | None = None,
    password: str | bool | None = None,
    paramiko: bool | None = None,
    timeout: float = 60,
    **options: Any,
) -> tuple[str, OwnTunnel]:
    """Open a tunnel to an address, for whoever connects to it.

    Args:
        addr: the peer's endpoint as the server sees it, ``tcp://HOST:PORT``.
        server: as for :func:`tunnel_connection`, and so are the rest.
        keyfile: see there.
        password: see there.
        paramiko: see there.
        timeout: see there.
        **options: see there.

    Returns:
        ``tcp://127.0.0.1:PORT``, which other users of the machine can reach as well, and the
        tunnel.

    Raises:
        TunnelError: no SSH session could be set up.
        ValueError: an argument is malformed.
        TypeError: an argument is of another type.
    """
    ssh = _options(server, keyfile, password, options)
    tunnel = OwnTunnel(str(parse_remote(addr)), ssh, "tcp://127.0.0.1:*", pace=_PACE)
    shared_pool().open(tunnel)
    return tunnel.local, tunnel


def ssh_tunnel(
    lport: int,
    rport: int,
    server: str,
    remoteip: str = "127.0.0.1",
    keyfile: Paths | None = None,
    password: str | bool | None = None,
    timeout: float = 60,
    **options: Any,
) -> OwnTunnel:
    """Open a tunnel from a port of this machine, as ``ssh -L lport:remoteip:rport`` does.

    Args:
        lport: the port on 127.0.0.1, which other users of the machine can reach as well.
        rport: the peer's port.
        server: as for :func:`tunnel_connection`.
        remoteip: the peer's address or name, as the server sees it.
        keyfile: as for :func:`tunnel_connection`, and so are the rest.
        password: see there.
        timeout: see there.
        **options: see there.

    Raises:
        TunnelError: no SSH session could be set up, or the port is taken.
        ValueError: an argument is malformed.
        TypeError: an argument is of another type.
    """
    ssh = _options(server, keyfile, password, options)
    remote = parse_remote(f"tcp://{_bracketed(remoteip)}:{rport}")
    tunnel = OwnTunnel(str(remote), ssh, f"tcp://127.0.0.1:{_port(lport)}", pace=_PACE)
    shared_pool().open(tunnel)
    return tunnel


# The same here: both of zmq.ssh's ways are this one.
openssh_tunnel = paramiko_tunnel = ssh_tunnel


def try_passwordless_ssh(
    server: str, keyfile: Paths | None, paramiko: bool | None = None, **options: Any
) -> bool:
    """Tell whether the server lets us in without asking for a password or a passphrase.

    Args:
        server: ``[user@]host[:port]``.
        keyfile: as in :class:`SSHOptions`.
        paramiko: for zmq.ssh's callers, without effect.
        **options: further fields of :class:`SSHOptions`.

    Raises:
        TunnelError: no password would help: the server cannot be reached, or is not believed.
        ValueError: an argument is malformed.
        TypeError: an argument is of another type.
    """
    ssh = _options(server, keyfile, None, {"prompt": _ask_nobody, **options})
    try:
        # The address does not matter, as nobody connects.
        tunnel = OwnTunnel(str(RemoteEndpoint("127.0.0.1", 22)), ssh)
        shared_pool().open(tunnel)
    except SSHAuthenticationError as exc:
        if exc.errno in (errno.EACCES, errno.ECANCELED):
            return False
        raise
    tunnel.terminate()
    return True


def select_random_ports(n: int) -> list[int]:
    """Return `n` TCP ports of this machine on which nobody listens at the moment."""
    with ExitStack() as sockets:
        probes = [sockets.enter_context(_socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def install() -> None:
    """Put these functions in place of those of zmq.ssh and jupyter_client.ssh.

    Programs that call them through their modules (ipyparallel's ``sshserver=``, ``jupyter console
    --ssh``) then get these. What is not installed is left out. May be called more than once, and
    must be called before ``from zmq.ssh.tunnel import tunnel_connection`` and the like.
    """
    for module_name in MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        for name in FUNCTIONS:
            if hasattr(module, name):
                setattr(module, name, globals()[name])


def _options(
    server: str,
    keyfile: Paths | None,
    password: str | bool | None,
    options: dict[str, Any],
) -> SSHOptions:
    # Callers of zmq.ssh pass "" for no key, and False for no password.
    secret = None if password is False else password
    return SSHOptions(server, keyfile=keyfile or None, password=secret, **options)  # type: ignore[arg-type]


def _bracketed(remoteip: str) -> str:
    if not isinstance(remoteip, str):
        raise TypeError(f"remoteip must be a str, not {type(remoteip).__name__}")
    return f"[{remoteip}]" if ":" in remoteip and not remoteip.startswith("[") else remoteip


def _port(lport: int) -> int:
    if isinstance(lport, bool) or not isinstance(lport, int):
        raise TypeError(f"lport must be an int, not {type(lport).__name__}")
    if not 0 < lport < 65536:
        raise ValueError(f"lport must be from 1 to 65535, not {lport}")
    return lport


def _ask_nobody(text: str, echo: bool) -> str:
    if "passphrase" in text:
        return ""  # without this key, then: there may be another one
    raise EOFError(f"asked for {text!r}")
