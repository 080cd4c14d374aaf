"""Nobody is let in, nothing secret is told, and a hostile server is an error and no more."""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest
import zmq
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
)

from tests.faults.injection import always, hostile_port, memory_growth, the_gateway
from tests.leaks import gateways, runtime_directories
from tests.logins import options_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.sshd import OpenSSHServer, generate_key
from tunneledzmq import SSHOptions, TunneledContext, TunnelError
from tunneledzmq.demo.server import EmbeddedServer

Figures = Callable[[str], None]

TRIES = int(os.environ.get("TUNNELEDZMQ_REPEAT", "1"))
"""How much longer what adds up slowly is tried."""

NOBODY = 65534

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becoming another user needs root"
)

HANDSHAKE_TIMEOUT = 5
"""Seconds after which paramiko's timer is gone, whatever has become of a handshake."""


# Other users


def run_as_nobody(source: str, *arguments: str) -> str:
    """Run Python source as another user, and return what it printed."""
    become = f"import os, socket, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    command = [sys.executable, "-c", become + source, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout


@as_root
def test_another_user_cannot_connect_to_the_local_leg(
    any_ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    sock = any_ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    round_trip(sock)
    leg = sock.tunnels[0].local.removeprefix("ipc://")
    source = """
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
    except PermissionError:
        print("no entry")
try:
    os.listdir(os.path.dirname(sys.argv[1]))
except PermissionError:
    print("no entry")
"""
    # The parents let everybody pass: what keeps others out is the gateway's own directory.
    opened = [parent for parent in Path(leg).parents[1:] if os.stat(parent).st_mode & 0o005 != 5]
    modes = [(parent, stat.S_IMODE(parent.stat().st_mode)) for parent in opened]
    try:
        for parent in opened:
            parent.chmod(0o755)
        assert run_as_nobody(source, leg) == "no entry\nno entry\n"
    finally:
        for parent, mode in modes:
            parent.chmod(mode)


def test_the_directory_is_private(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer
) -> None:
    before = os.umask(0)
    try:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=openssh_options)
        [directory] = runtime_directories()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.stat().st_uid == os.getuid()
        for file in directory.iterdir():
            assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file
    finally:
        os.umask(before)


@as_root
def test_the_runtime_directory_of_another_user_is_not_used(
    ctx: TunneledContext,
    openssh_options: SSHOptions,
    echo: Peer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o777)
    os.chown(foreign, NOBODY, NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(foreign))
    sock = ctx.socket(zmq.REQ)
    sock.connect(echo.address, ssh=openssh_options)
    assert not list(foreign.iterdir())


@as_root
def test_what_looks_like_a_stale_directory_of_another_user_is_not_touched(
    ctx: TunneledContext, openssh_options: SSHOptions, echo: Peer, tmp_path: Path
) -> None:
    base = Path(os.environ["XDG_RUNTIME_DIR"])
    theirs = base / "tunneledzmq-gateway-theirs"
    link = base / "tunneledzmq-gateway-link"
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    link.symlink_to(tmp_path / "kept")
    try:
        sock = ctx.socket(zmq.REQ)
        sock.connect(echo.address, ssh=openssh_options)
        assert theirs.exists()
        assert (tmp_path / "kept" / "file").exists()
    finally:
        theirs.rmdir()
        link.unlink()


def test_a_new_known_hosts_file_is_private(
    any_ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        known_hosts = tmp_path / "known_hosts"
        sock = any_ctx.socket(zmq.REQ)
        sock.connect(
            echo.address,
            ssh=options_for(
                openssh, known_hosts=str(known_hosts), strict_host_key_checking="accept-new"
            ),
        )
        assert stat.S_IMODE(known_hosts.stat().st_mode) == 0o600
        assert known_hosts.read_text().count("\n") == 1
    finally:
        os.umask(before)


# Secrets


@pytest.fixture(scope="module")
def with_password() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(password="s3cret-password") as server:
        yield server


def told_by_processes() -> str:
    """Return what everybody may see of this process and its gateways."""
    told = []
    for process in [psutil.Process(), *gateways()]:
        for file in ("cmdline", "environ", "comm"):
            told.append(Path(f"/proc/{process.pid}/{file}").read_bytes().decode(errors="replace"))
    for directory in runtime_directories():
        for path in directory.rglob("*"):
            told.append(str(path))
            if path.is_file():
                told.append(path.read_text())
    return "\n".join(told)


@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_secrets_are_told_nobody(
    right: bool,
    any_ctx: TunneledContext,
    with_password: EmbeddedServer,
    echo: Peer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("tunneledzmq").setLevel(logging.DEBUG)
    key = generate_key(tmp_path / "key", passphrase="s3cret-passphrase")
    options = options_for(
        with_password,
        keyfile=str(key),
        passphrase="s3cret-passphrase",
        password="s3cret-password" if right else "s3cret-and-wrong",
    )
    sock = any_ctx.socket(zmq.REQ)
    told = [repr(options), str(options), repr(sock)]
    try:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)
        told += [repr(sock.tunnels), repr(any_ctx), told_by_processes()]
        assert right
    except TunnelError as exc:
        assert not right
        seen: BaseException | None = exc
        while seen is not None:
            told += traceback.TracebackException.from_exception(seen, capture_locals=True).format()
            told += [repr(seen), repr(vars(seen))]
            seen = seen.__cause__ or seen.__context__
    finally:
        logging.getLogger("tunneledzmq").setLevel(logging.NOTSET)
    assert "tunneledzmq" in caplog.text
    assert "s3cret" not in caplog.text
    assert "s3cret" not in "\n".join(told)


# Hostile servers, before the login

PATIENCE = 1.0
"""The connect_timeout of what follows, in seconds."""


def endlessly(sock: socket.socket, data: bytes) -> None:
    while True:
        sock.sendall(data)


def banner_then(data: bytes, *, again: bool = False) -> Callable[[socket.socket], None]:
    def behave(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-OpenSSH_9.9\r\n" + data)
        if again:
            endlessly(sock, data)
        with suppress(OSError):
            sock.settimeout(10)
            while sock.recv(4096):
                pass

    return behave


def slowly(sock: socket.socket) -> None:
    for _ in range(1000):
        sock.sendall(b"x")
        time.sleep(0.05)


def cut_after(size: int) -> Callable[[socket.socket], None]:
    """Relay an SSH server's words, and hang up after `size` bytes of them."""

    def behave(sock: socket.socket) -> None:
        transport_end, our_end = socket.socketpair()
        with our_end:
            transport = paramiko.Transport(transport_end)
            transport.handshake_timeout = HANDSHAKE_TIMEOUT
            transport.add_server_key(paramiko.ECDSAKey.generate())
            transport.handshake_timeout = 1  # how long its timer lives on
            transport.start_server(threading.Event(), Obliging())
            try:
                left = size
                for end in (sock, our_end):
                    end.settimeout(0.02)
                while left > 0:
                    with suppress(TimeoutError):
                        data = our_end.recv(left)
                        left -= len(data)
                        sock.sendall(data)
                    with suppress(TimeoutError):
                        our_end.sendall(sock.recv(4096))
            finally:
                transport.close()
                transport.join(5)

    return behave


class Obliging(paramiko.ServerInterface):
    """Lets everybody in, and opens every channel."""

    def check_auth_none(self, username: str) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_direct_tcpip_request(self, *args: Any) -> int:
        return int(paramiko.OPEN_SUCCEEDED)


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda sock: endlessly(sock, b"x" * 65536), id="endless banner, no newline"),
        pytest.param(lambda sock: endlessly(sock, b"Hello!\r\n" * 999), id="endless lines"),
        pytest.param(slowly, id="a byte now and then"),
        pytest.param(banner_then(b"\xff" * 64), id="huge packet"),
        pytest.param(
            banner_then(b"\x7f\xff\xff\xf0" * 65536, again=True), id="endless huge packet"
        ),
        pytest.param(banner_then(b"\0\0\0\0" * 64), id="empty packets"),
        pytest.param(banner_then(os.urandom(65536), again=True), id="endless garbage"),
        pytest.param(banner_then(struct.pack(">IB", 12, 255) + bytes(64)), id="padding beyond"),
        pytest.param(
            banner_then(struct.pack(">IBB", 12, 10, 2) + bytes(10), again=True),
            id="endless ignores",
        ),
        pytest.param(banner_then(b""), id="nothing after the banner"),
        pytest.param(cut_after(200), id="hangs up in the key exchange"),
        pytest.param(cut_after(1500), id="hangs up later"),
    ],
)
def test_a_hostile_server_before_the_login(
    behave: Callable[[socket.socket], None],
    ctx: TunneledContext,
    echo: Peer,
    openssh_options: SSHOptions,
    figures: Figures,
) -> None:
    other = ctx.socket(zmq.REQ)
    other.connect(echo.address, ssh=openssh_options)
    [good] = gateways()
    peak = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.05):
            for process in gateways() - {good}:
                with suppress(psutil.Error):
                    peak = max(peak, process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        with hostile_port(behave) as port, ctx.socket(zmq.REQ) as sock:
            options = SSHOptions(
                f"me@127.0.0.1:{port}",
                config_file=None,
                agent=False,
                keyfile=openssh_options.keyfile,
                connect_timeout=PATIENCE,
            )
            start = time.monotonic()
            with pytest.raises(TunnelError) as caught:
                sock.connect(echo.address, ssh=options)
            taken = time.monotonic() - start
            assert not sock.tunnels
            assert str(port) in str(caught.value)
            assert taken < PATIENCE + 1.5
    finally:
        done.set()
        sampler.join()
    figures(
        f"{type(caught.value).__name__} after {taken:.2f} s, gateway at most {peak / 1e6:.0f} MB"
    )
    assert peak < 80_000_000
    round_trip(other)


# Hostile servers, after the login


class HostileServer:
    """Logs everybody in, and does something else for each channel that is opened."""

    def __init__(
        self, misbehave: Callable[[paramiko.Transport, int], None], directory: Path
    ) -> None:
        self._misbehave = misbehave
        self.host_key = paramiko.RSAKey.generate(2048)
        self.logins = 0
        self._directory = directory

    @contextmanager
    def running(self) -> Iterator[SSHOptions]:
        with hostile_port(self._serve) as port:
            known_hosts = self._directory / "known_hosts"
            key = f"{self.host_key.get_name()} {self.host_key.get_base64()}"
            known_hosts.write_text(f"[127.0.0.1]:{port} {key}\n")
            yield SSHOptions(
                f"me@127.0.0.1:{port}",
                keyfile=str(generate_key(self._directory / "id")),
                known_hosts=str(known_hosts),
                config_file=None,
                agent=False,
                connect_timeout=PATIENCE,
            )

    def _serve(self, sock: socket.socket) -> None:
        transport = paramiko.Transport(sock)
        transport.handshake_timeout = HANDSHAKE_TIMEOUT
        transport.add_server_key(self.host_key)
        try:
            transport.start_server(threading.Event(), Obliging())
            while transport.is_active():
                channel = transport.accept(0.1)
                if channel is not None:
                    self.logins += 1
                    with suppress(OSError, EOFError, paramiko.SSHException):
                        self._misbehave(transport, channel.remote_chanid)
        finally:
            transport.close()
            transport.join(5)


def message(kind: int, *fields: Any) -> paramiko.Message:
    made = paramiko.Message()
    made.add_byte(bytes([kind]))
    for field in fields:
        if isinstance(field, bool):
            made.add_boolean(field)
        elif isinstance(field, int):
            made.add_int(field)
        else:
            made.add_string(field)
    return made


def overflow_the_window(transport: paramiko.Transport, channel: int) -> None:
    for _ in range(2000):
        transport._send_user_message(message(MSG_CHANNEL_DATA, channel, bytes(32_000)))


def send_to_an_unknown_channel(transport: paramiko.Transport, channel: int) -> None:
    transport._send_user_message(message(MSG_CHANNEL_DATA, channel + 1000, b"hello"))


def send_a_length_beyond_the_packet(transport: paramiko.Transport, channel: int) -> None:
    transport._send_user_message(message(MSG_CHANNEL_DATA, channel, 0x7FFFFFFF, b"hello"))


def send_after_the_end(transport: paramiko.Transport, channel: int) -> None:
    with transport.clear_to_send_lock:  # before it can answer when we close the channel
        transport._send_message(message(MSG_CHANNEL_EOF, channel))
        transport._send_message(message(MSG_CHANNEL_DATA, channel, b"hello"))


def open_the_window_beyond_its_limit(transport: paramiko.Transport, channel: int) -> None:
    for _ in range(3):
        transport._send_user_message(message(MSG_CHANNEL_WINDOW_ADJUST, channel, 0xFFFFFFFF))


def send_a_truncated_message(transport: paramiko.Transport, channel: int) -> None:
    transport._send_user_message(message(MSG_CHANNEL_WINDOW_ADJUST))


def show_another_host_key(transport: paramiko.Transport, channel: int) -> None:
    transport.add_server_key(paramiko.RSAKey.generate(2048))
    transport.renegotiate_keys()


def open_channels_to_us(transport: paramiko.Transport, channel: int) -> None:
    for number in range(100):
        for kind in ("session", "forwarded-tcpip", "x11", "auth-agent@openssh.com"):
            transport._send_user_message(
                message(MSG_CHANNEL_OPEN, kind, number, 1 << 21, 1 << 15, "127.0.0.1", 1, "", 1)
            )


def ask_and_ask(transport: paramiko.Transport, channel: int) -> None:
    for _ in range(20_000):
        transport._send_user_message(message(MSG_GLOBAL_REQUEST, "no-such-request", True))


@pytest.fixture
def stream(ctx: TunneledContext) -> zmq.Socket[bytes]:
    """A socket that takes any bytes, and that nobody reads from."""
    sock: zmq.Socket[bytes] = ctx.socket(zmq.STREAM)
    sock.rcvhwm = 1
    return sock


@pytest.mark.parametrize(
    ("misbehave", "said"),
    [
        (overflow_the_window, "window"),
        (send_to_an_unknown_channel, "channel-data for channel 100"),
        (send_a_length_beyond_the_packet, ""),
        (open_the_window_beyond_its_limit, "window"),
        (send_a_truncated_message, ""),
        (show_another_host_key, "host key"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_a_hostile_server_after_the_login_loses_its_session(
    misbehave: Callable[[paramiko.Transport, int], None],
    said: str,
    ctx: TunneledContext,
    stream: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    figures: Figures,
) -> None:
    server = HostileServer(misbehave, tmp_path)
    with server.running() as options:
        stream.connect("tcp://127.0.0.1:1", ssh=options)
        [tunnel] = stream.tunnels
        gateway = the_gateway()
        with memory_growth(gateway, at_most=16_000_000) as growth:
            start = time.monotonic()
            wait_until(lambda: tunnel.reconnects >= 1, timeout=5)
            taken = time.monotonic() - start
            assert said in (tunnel.last_error or "")
            always(lambda: gateways() == {gateway}, 0.5)
        figures(
            f"{tunnel.last_error} after {taken:.2f} s; {server.logins} sessions in "
            f"{taken + 0.5:.1f} s, "
            f"gateway {growth.bytes / 1e6:.1f} MB larger"
        )
        stream.close(linger=0)
    wait_until(lambda: not gateways(), timeout=3)
    assert "Traceback" not in "".join(
        record.getMessage() for record in caplog.records if record.name == "tunneledzmq"
    )


@pytest.mark.parametrize(
    "misbehave",
    [open_channels_to_us, ask_and_ask, send_after_the_end],
    ids=lambda value: value.__name__.replace("_", " "),
)
def test_what_a_server_must_not_ask_for_is_refused(
    misbehave: Callable[[paramiko.Transport, int], None],
    ctx: TunneledContext,
    stream: Any,
    tmp_path: Path,
    figures: Figures,
) -> None:
    asked = threading.Event()

    def ask(transport: paramiko.Transport, channel: int) -> None:
        misbehave(transport, channel)
        asked.set()

    with HostileServer(ask, tmp_path).running() as options:
        stream.connect("tcp://127.0.0.1:1", ssh=options)
        [tunnel] = stream.tunnels
        gateway = the_gateway()
        before = gateway.num_fds()
        with memory_growth(gateway, at_most=16_000_000) as growth:
            assert asked.wait(15)
            always(lambda: tunnel.state == "up" and gateways() == {gateway}, 0.5)
        figures(f"gateway {growth.bytes / 1e6:.1f} MB larger")
        assert gateway.num_fds() <= before + 1
        assert tunnel.reconnects == 0
        stream.close(linger=0)
    wait_until(lambda: not gateways(), timeout=3)


@pytest.mark.timeout(60 + 3 * TRIES)
def test_a_server_that_asks_and_does_not_listen_costs_no_memory(
    ctx: TunneledContext, stream: Any, tmp_path: Path, figures: Figures
) -> None:
    seconds = 3 * TRIES

    def ask_without_listening(transport: paramiko.Transport, channel: int) -> None:
        reading = threading.Event()
        transport.packetizer.read_message = lambda: reading.wait(seconds) and None  # type: ignore
        deadline = time.monotonic() + seconds
        request = message(MSG_GLOBAL_REQUEST, "no-such-request", True)
        while time.monotonic() < deadline:
            transport.packetizer.send_message(request)

    with HostileServer(ask_without_listening, tmp_path).running() as options:
        stream.connect("tcp://127.0.0.1:1", ssh=options)
        with memory_growth(the_gateway(), at_most=16_000_000) as growth:
            always(lambda: True, seconds)
        figures(f"gateway {growth.bytes / 1e6:.1f} MB larger after {seconds} s")
        stream.close(linger=0)
    wait_until(lambda: not gateways(), timeout=4)
