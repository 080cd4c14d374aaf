"""The demo itself: what it does in which order, and how that looks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from subprocess import CalledProcessError

import zmq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..context import TunneledContext
from ..exceptions import TunnelError
from ..options import SSHOptions
from ..socket import TunneledSocket
from ..tunnel import Tunnel
from .measure import ROUND_TRIP_SIZE, Bench, RoundTrips, Throughput, first_reply, size_name
from .openssh import OpenSSHServer, find_sshd
from .peer import Peer
from .server import EmbeddedServer
from .traffic import Rate, limit_queue

__all__ = ["Results", "run"]

_END_TIMEOUT = 5.0
"""Seconds that all that belongs to a tunnel has to disappear."""


Server = OpenSSHServer | EmbeddedServer

_NAMES = {
    OpenSSHServer: "OpenSSH's sshd on this machine",
    EmbeddedServer: "An SSH server in Python",
}

# Lines of at most 60 columns.
_LEGEND = """\
up: from here to the peer; down: from the peer to here.
All of it is on this machine: over a network, that is what
both wait for.
"""

_EMBEDDED = """\
Most of the tunnel's time is spent in this SSH server, since
it is Python. With OpenSSH's sshd installed (apt-get install
openssh-server), the demo uses that, and is several times
faster.
"""

_NEXT = """
What next? A tunnel of your own, step by step:

  {command} check tcp://HOST:PORT --ssh me@server

and in your program TunneledContext() for zmq.Context(), and
ssh="me@server" in connect(). The README has recipes."""


@dataclass
class Results:
    """All that the demo found out; times in seconds."""

    login: float
    """From the first socket's connect to its first reply, through the tunnel."""
    first_replies: tuple[float, float]
    """The same for a further socket, direct and through the tunnel (which shares the session)."""
    round_trips: tuple[RoundTrips, RoundTrips]
    """Direct and through the tunnel."""
    throughputs: list[Throughput]
    gone: dict[str, float | None] = field(default_factory=dict)
    """What belonged to the tunnel, and when after close() it was gone; None: it was not."""


def run(
    seconds: float,
    json_file: str | None = None,
    console: Console | None = None,
    *,
    embedded: bool = False,
) -> Results:
    """Run the demo and print what it finds out.

    Args:
        seconds: of measuring, for each measurement and route.
        embedded: whether the embedded server is used even where there is OpenSSH's.
        json_file: where the results are written to, too.
        console: where they are printed. Default: standard output.

    Raises:
        RuntimeError: the embedded server or the peer does not start.
        zmq.ZMQError: nothing goes through.
        OSError: `json_file` cannot be written.
    """
    console = console or Console(highlight=False)
    with ExitStack() as stack:
        context = TunneledContext()
        stack.callback(context.destroy, linger=0)
        socket = context.socket(zmq.REQ)
        limit_queue(socket, ROUND_TRIP_SIZE)
        with console.status("Starting an SSH server and a remote peer"):
            peer = stack.enter_context(Peer())
            server, login = _log_in(stack, socket, peer, console, embedded=embedded)
        console.print(
            f"{_NAMES[type(server)]} with throw-away keys, and a peer behind it.\n"
            "What you would write:\n\n"
            f'    sock.connect("{peer.echo}",\n'
            f'                 ssh="{server.server}")\n',
            markup=False,
        )
        ssh = _options(server)
        results = _measure(Bench(context, peer, ssh, seconds), login, console)
        console.print(_latencies(results), _rates(results.throughputs), _LEGEND)
        if isinstance(server, EmbeddedServer):
            console.print(_EMBEDDED)

        tunnel = socket.tunnels[0]
        gateway = tunnel._handle.pid if tunnel._handle is not None else None
        closed = time.perf_counter()
        socket.close()
        context.term()
        results.gone = _watch_end(closed, tunnel, gateway, server)
    console.print(_endings(results.gone), _NEXT.format(command=_command()))
    if json_file is not None:
        with open(json_file, "w") as file:
            json.dump(asdict(results), file, indent=2)
    return results


def _options(server: Server) -> SSHOptions:
    return SSHOptions(
        server.server,
        keyfile=server.keyfile,
        known_hosts=server.known_hosts,
        config_file=None,
        agent=False,
    )


def _log_in(
    stack: ExitStack, socket: TunneledSocket, peer: Peer, console: Console, *, embedded: bool
) -> tuple[Server, float]:
    """Start OpenSSH's server where there is one that lets us in, else the embedded one."""
    sshd = None if embedded else find_sshd()
    if sshd is not None:
        try:
            with ExitStack() as attempt:
                server = attempt.enter_context(OpenSSHServer(sshd))
                login = first_reply(socket, peer.echo, _options(server))
                stack.push(attempt.pop_all())
                return server, login
        except (RuntimeError, OSError, CalledProcessError, TunnelError) as exc:
            console.print(f"{sshd} cannot be used here: {exc}\n", markup=False)
    other = stack.enter_context(EmbeddedServer())
    return other, first_reply(socket, peer.echo, _options(other))


def _measure(bench: Bench, login: float, console: Console) -> Results:
    columns = BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("connecting", total=bench.turns + 1)

        def announce(text: str) -> None:
            progress.update(task, advance=1, description=text)

        return Results(
            login,
            bench.first_replies(),
            bench.round_trips(announce),
            list(bench.throughputs(announce)),
        )


def _watch_end(
    closed: float, tunnel: Tunnel, gateway: int | None, server: Server
) -> dict[str, float | None]:
    """Wait until nothing of the tunnel is left, and tell when each part was gone."""
    checks: dict[str, Callable[[], bool]] = {
        "the tunnel (its state is closed)": lambda: tunnel.state == "closed",
        "the SSH connection, as the server sees it": lambda: server.status().connections == 0,
    }
    if gateway is not None and sys.platform != "win32":  # There, os.kill() does what its name says.
        checks[f"the gateway process ({gateway})"] = lambda: not _is_running(gateway)
    gone: dict[str, float | None] = dict.fromkeys(checks)
    while None in gone.values() and time.perf_counter() < closed + _END_TIMEOUT:
        for what, check in checks.items():
            if gone[what] is None and check():
                gone[what] = time.perf_counter() - closed
        time.sleep(0.002)
    return gone


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _latencies(results: Results) -> Table:
    table = _table("Latency in milliseconds", "", "direct TCP", "tunnel")
    direct, tunnel = results.first_replies
    direct_trips, tunnel_trips = results.round_trips
    for name, *seconds in (
        ("first socket: connect, log in, first reply", None, results.login),
        ("another socket: connect, first reply", direct, tunnel),
        ("round trip of 1 KiB: the median", direct_trips.p50, tunnel_trips.p50),
        ("round trip of 1 KiB: 99 % are faster", direct_trips.p99, tunnel_trips.p99),
    ):
        table.add_row(name, *("" if s is None else f"{s * 1e3:.2f}" for s in seconds))
    return table


def _rates(throughputs: list[Throughput]) -> Table:
    heads = "direct: messages/s", "MB/s", "tunnel: messages/s", "MB/s"
    table = _table("Throughput, counted at the receiver", "messages", *heads)
    for one in throughputs:
        way = "up" if one.upwards else "down"
        cells = [cell for rate in (one.direct, one.tunnel) for cell in _rate_cells(rate)]
        table.add_row(f"{size_name(one.size)} {way}", *cells, end_section=not one.upwards)
    return table


def _rate_cells(rate: Rate) -> tuple[str, str]:
    return f"{rate.messages_per_second:,.0f}", f"{rate.megabytes_per_second:,.0f}"


def _command() -> str:
    """Return how our command line is called in this shell."""
    if shutil.which("tunneledzmq") is not None:
        return "tunneledzmq"
    python = sys.orig_argv[0]
    script = shutil.which("tunneledzmq", path=os.path.dirname(python) or os.curdir)
    return f"{python} -m tunneledzmq" if script is None else script


def _endings(gone: dict[str, float | None]) -> Table:
    table = _table("After close() and term()", "", "gone after")
    for what, seconds in gone.items():
        table.add_row(what, "STILL THERE" if seconds is None else f"{seconds * 1e3:.0f} ms")
    return table
