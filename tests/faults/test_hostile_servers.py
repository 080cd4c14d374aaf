"""Whatever a server says: an error in time, or the session goes on where that of ssh does."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest
import zmq
from paramiko.common import (
    AUTH_FAILED,
    AUTH_PARTIALLY_SUCCESSFUL,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_NEWKEYS,
    MSG_REQUEST_SUCCESS,
    MSG_SERVICE_ACCEPT,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_INFO_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from paramiko.kex_gex import KexGexSHA256
from paramiko.kex_group14 import KexGroup14SHA256

from tests.faults.injection import always, memory_growth, the_gateway
from tests.hostile import (
    GARBAGE,
    PATIENCE,
    HostileTransport,
    Obliging,
    Script,
    hostile_server,
    message,
)
from tests.leaks import gateways
from tests.polling import wait_until
from tunneledzmq import (
    HostKeyChangedError,
    SSHConnectionError,
    Tunnel,
    TunneledContext,
    TunnelError,
)
from tunneledzmq.check.show import PlainShow
from tunneledzmq.check.steps import Check
from tunneledzmq.gateway.trust import known_hosts
from tunneledzmq.gateway.trust.known_hosts import Verdict

SECRET = "s3cret-password"

LONG = GARBAGE * 5000
"""As much as a packet holds."""

MEMORY = 80_000_000
"""Bytes of a gateway at most; one that has nothing to suffer takes half of that."""

UNKNOWN_KINDS = [9, 19, 45, 62, 70, 89, 103, 137, 191]
"""Numbers that neither an RFC nor OpenSSH gives a meaning."""


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the program is told beside the log; all of it is looked at in the end."""
    logger = logging.getLogger("tunneledzmq")
    caplog.set_level(logging.DEBUG)
    logger.setLevel(logging.DEBUG)
    words: list[str] = []
    yield words
    logger.setLevel(logging.NOTSET)
    records = [record.getMessage() for record in caplog.records]
    for text in [*words, *records]:
        assert all(c.isprintable() or c in "\n\t" for c in text), ascii(text)
        assert len(text) < 5000
        assert SECRET not in text
    assert sum(map(len, records)) < 300_000
    # A line of the log is one line: nobody forges another.
    for record in caplog.records:
        assert "\n" not in record.getMessage() or " says: " in record.getMessage()


@pytest.fixture(params=[True, False], ids=["batches", "plain"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether packets are read in batches, or by paramiko."""
    if not request.param:
        monkeypatch.setenv("TUNNELEDZMQ_NO_BATCHES", "1")
    return bool(request.param)


@contextmanager
def little_work(gateway: psutil.Process, at_most: float = 0.4) -> Iterator[None]:
    """Check how many seconds of a processor a gateway takes."""
    before = sum(gateway.cpu_times()[:2])
    yield
    assert sum(gateway.cpu_times()[:2]) - before < at_most


# Logins that come to nothing


def asks_in_rounds(*prompts: tuple[str, bool]) -> Callable[[HostileTransport], Obliging]:
    """Make a server that asks for ever."""
    query = paramiko.InteractiveQuery(LONG.decode("latin-1")[:2000], "an instruction", *prompts)

    class Asking(Obliging):
        def get_allowed_auths(self, username: str) -> str:
            return "keyboard-interactive"

        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            return int(AUTH_FAILED)

        def check_auth_interactive(self, username: str, submethods: str) -> Any:
            return query

        def check_auth_interactive_response(self, responses: Sequence[str]) -> Any:
            return query

    return Asking


class NeverContent(Obliging):
    """Wants one more method, for ever."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,keyboard-interactive,password"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(AUTH_PARTIALLY_SUCCESSFUL)

    def check_auth_password(self, username: str, password: str) -> int:
        return int(AUTH_PARTIALLY_SUCCESSFUL)

    def check_auth_interactive(self, username: str, submethods: str) -> int:
        return int(AUTH_PARTIALLY_SUCCESSFUL)


class Refusing(Obliging):
    """Lets nobody in, and has a lot to say about it."""

    def check_auth_none(self, username: str) -> int:
        for _ in range(10):
            self.transport.say(MSG_USERAUTH_BANNER, LONG, "")
        return int(AUTH_FAILED)

    check_auth_publickey = lambda self, username, key: self.check_auth_none(username)  # noqa: E731

    def get_allowed_auths(self, username: str) -> Any:
        return LONG + b",publickey"


class Flooding(Obliging):
    """Answers what it was not asked."""

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        with suppress(EOFError, OSError):
            for _ in range(2000):
                self.transport.say(MSG_USERAUTH_FAILURE, LONG, False)
        return int(AUTH_FAILED)


class WantsNewPassword(Obliging):
    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(AUTH_FAILED)

    def check_auth_password(self, username: str, password: str) -> int:
        self.transport.say(MSG_USERAUTH_INFO_REQUEST, LONG, "")
        return int(AUTH_FAILED)


def exchange_keys_by(name: str, engine: type) -> Callable[[HostileTransport], None]:
    def prepare(transport: HostileTransport) -> None:
        transport._kex_info = {**transport._kex_info, name: engine}
        transport._preferred_kex = (name,)
        transport._modulus_pack = object()

    return prepare


class NegativeGroup(KexGexSHA256):
    """Names a group whose modulus is below zero."""

    def _parse_kexdh_gex_request(self, m: paramiko.Message) -> None:
        number = message(31)
        number.add_string(b"\x80" + bytes(255))
        number.add_string(b"\x02")
        self.transport._send_message(number)


class HugeNumber(KexGroup14SHA256):
    """Answers with an integer that fills the packet."""

    def _parse_kexdh_init(self, m: paramiko.Message) -> None:
        self.transport._send_message(message(31, b"", b"\x7f" * 250_000, b""))


class HugeKey(KexGroup14SHA256):
    """Shows a host key that fills the packet."""

    def _parse_kexdh_init(self, m: paramiko.Message) -> None:
        key = message(0, "ecdsa-sha2-nistp256", b"\x7f" * 250_000).asbytes()[1:]
        self.transport._send_message(message(31, key, b"\x02", b""))


class NonsenseKey(KexGroup14SHA256):
    """Shows a host key that has no name."""

    def _parse_kexdh_init(self, m: paramiko.Message) -> None:
        key = message(0, GARBAGE, b"").asbytes()[1:]
        self.transport._send_message(message(31, key, b"\x02", b""))


GEX = "diffie-hellman-group-exchange-sha256"
GROUP14 = "diffie-hellman-group14-sha256"


def disconnect(transport: HostileTransport) -> None:
    transport.say(MSG_DISCONNECT, 2, LONG, "")


FAILURES = {
    "another version": (Script(identification=b"SSH-9.9-" + GARBAGE[:20] + b"x" * 8000), ""),
    "no identification": (Script(before=b"hello\xff\x1b\r\n" * 1024), "1024 lines"),
    "a line without end": (Script(before=b"\x1b" * 9000), "too long"),
    "a group below zero": (Script(prepare=exchange_keys_by(GEX, NegativeGroup)), "out of range"),
    "a huge number": (Script(prepare=exchange_keys_by(GROUP14, HugeNumber)), "out of range"),
    "a huge host key": (Script(prepare=exchange_keys_by(GROUP14, HugeKey)), "too large"),
    "a host key of nonsense": (Script(prepare=exchange_keys_by(GROUP14, NonsenseKey)), ""),
    "a disconnect after the key exchange": (Script(on_keys=disconnect), ""),
    "extensions that are not there": (
        Script(on_keys=lambda transport: transport.say(MSG_EXT_INFO, 1000)),
        "cut short",
    ),
    "rounds without questions": (
        Script(interface=asks_in_rounds(), options={"password": SECRET}),
        "without end",
    ),
    "rounds with questions": (
        Script(
            interface=asks_in_rounds(("Password: ", False), (GARBAGE.decode("latin-1"), True)),
            options={"prompt": lambda text, echo: "an answer"},
        ),
        "without end",
    ),
    "a thousand questions at once": (
        Script(
            interface=asks_in_rounds(*[("?", True)] * 1000),
            options={"prompt": lambda text, echo: "an answer"},
        ),
        "without end",
    ),
    "one more method for ever": (
        Script(interface=NeverContent, options={"password": SECRET}),
        "without end",
    ),
    "a long refusal": (Script(interface=Refusing), "did not let"),
    "a disconnect in the login": (
        Script(on_service=disconnect),
        "\\033[2J",
    ),
    "a new password": (
        Script(interface=WantsNewPassword, options={"password": SECRET}),
        "expired",
    ),
    "answers without questions": (Script(interface=Flooding), ""),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_login_that_comes_to_nothing(
    name: str, ctx: TunneledContext, tmp_path: Path, told: list[str]
) -> None:
    script, said = FAILURES[name]
    peak = 0.0
    with hostile_server(script, tmp_path) as options, ctx.socket(zmq.REQ) as sock:
        start = time.monotonic()
        with pytest.raises(TunnelError) as caught:
            sock.connect("tcp://127.0.0.1:1", ssh=options)
        # An error of its own, before the time is up.
        assert time.monotonic() - start < PATIENCE + 1
        for process in gateways():
            with suppress(psutil.Error):
                peak = max(peak, process.memory_info().rss)
        assert sock.tunnels == []
    told += [str(caught.value), repr(caught.value)]
    assert options.server in str(caught.value)
    assert said in str(caught.value)
    assert "connect_timeout" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert peak < MEMORY


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("when", ["on_keys", "on_service"])
def test_a_server_that_has_no_room_is_quoted_and_may_be_asked_again(
    when: str, ctx: TunneledContext, tmp_path: Path
) -> None:
    script = Script(**{when: lambda transport: transport.say(MSG_DISCONNECT, 12, "No room", "")})
    with hostile_server(script, tmp_path) as options, ctx.socket(zmq.REQ) as sock:
        for _ in range(5):
            with pytest.raises(SSHConnectionError, match="before the login: it says 'No room'"):
                sock.connect("tcp://127.0.0.1:1", ssh=options)


# Sessions that go on


def say_all(*messages: tuple[Any, ...]) -> Callable[..., None]:
    """Say this, to a channel if it has ``None`` in the place of one, and open it."""

    def say(transport: HostileTransport, channel: int | None = None) -> None:
        for kind, *fields in messages:
            transport.say(kind, *[channel if value is None else value for value in fields])

    return say


def opened(*messages: tuple[Any, ...], size: int = 1 << 15) -> Callable[..., None]:
    """Say this to the channel after it has been opened."""
    success = (MSG_CHANNEL_OPEN_SUCCESS, None, 0, 1 << 21, size)
    return say_all(success, *messages)


def say_kinds(transport: HostileTransport) -> None:
    for kind in UNKNOWN_KINDS:
        transport.say(kind, GARBAGE)


def offer_nonsense(transport: HostileTransport) -> None:
    send = transport._send_message

    def add_algorithms(m: paramiko.Message) -> None:
        data = m.asbytes()
        if data[:1] == b"\x14":
            size = int.from_bytes(data[17:21], "big")
            names = data[21 : 21 + size] + b"," + GARBAGE
            m = message(0x14, bytearray(data[1:17]), names, bytearray(data[21 + size :]))
            transport.local_kex_init = transport._latest_kex_init = m.asbytes()
        send(m)

    transport._send_message = add_algorithms  # type: ignore[method-assign]


MANY = 0xFFFFFFFF


# ssh goes on too: the test is for both backends.
def know_no_requests(transport: HostileTransport) -> None:
    transport._handler_table[MSG_GLOBAL_REQUEST] = lambda m: transport.say(
        MSG_UNIMPLEMENTED, m.seqno
    )


SESSIONS = {
    "lines before the identification": Script(
        before=(b"caf\xe9 \x1b[2J" + b"x" * 8000 + b"\r\n") * 23 + b"\xff\n" * 1000
    ),
    "an identification that is not UTF-8": Script(identification=b"SSH-2.0-caf\xe9 \xff\x1b[2J"),
    "a later version": Script(identification=b"SSH-2.1-Later"),
    "algorithms that are no text": Script(prepare=offer_nonsense),
    "extensions without number": Script(on_keys=say_all((MSG_EXT_INFO, MANY))),
    "extensions that are no text": Script(
        on_keys=say_all((MSG_EXT_INFO, 2, "server-sig-algs", b"\xff\xfe", b"\xff", LONG))
    ),
    "unknown kinds": Script(on_open=lambda transport, channel: say_kinds(transport)),
    "debug, ignore and banner": Script(
        on_keys=say_all((MSG_DEBUG, True, LONG, GARBAGE), (MSG_IGNORE, LONG)),
        on_service=say_all(
            (MSG_SERVICE_ACCEPT, "ssh-userauth"), (MSG_USERAUTH_BANNER, LONG, GARBAGE)
        ),
    ),
    "a service without a name": Script(on_service=say_all((MSG_SERVICE_ACCEPT,))),
    "requests": Script(
        on_open=opened(
            (MSG_GLOBAL_REQUEST, GARBAGE, True, bytearray(LONG)),
            (MSG_GLOBAL_REQUEST, "hostkeys-00@openssh.com", False, GARBAGE),
            (MSG_CHANNEL_REQUEST, None, GARBAGE, True),
            (MSG_CHANNEL_OPEN, GARBAGE, MANY, MANY, MANY),
            (MSG_REQUEST_SUCCESS,),
        )
    ),
    "a refusal that is no text": Script(
        on_open=say_all((MSG_CHANNEL_OPEN_FAILURE, None, 2, LONG, GARBAGE))
    ),
    "a refusal without end": Script(
        on_open=say_all((MSG_CHANNEL_OPEN_FAILURE, None, MANY, b"no! " * 60_000, ""))
    ),
    "a channel that is not there": Script(
        on_open=opened(
            (MSG_CHANNEL_WINDOW_ADJUST, 1 << 30, 1),
            (MSG_CHANNEL_SUCCESS, 1 << 30),
            (MSG_CHANNEL_FAILURE, 1 << 30),
            (MSG_CHANNEL_REQUEST, 1 << 30, "exit-status", False, 0),
        )
    ),
    "words of the login after it": Script(
        on_open=opened(
            (MSG_USERAUTH_SUCCESS,),
            *[(MSG_USERAUTH_FAILURE, LONG, False)] * 400,
            (MSG_USERAUTH_BANNER, LONG, ""),
            *[(MSG_USERAUTH_INFO_REQUEST, GARBAGE, "", "", MANY)] * 20,
        )
    ),
    "new keys out of turn": Script(on_open=opened((MSG_NEWKEYS,))),
    "global requests are unknown": Script(prepare=know_no_requests),
    "packets of no size": Script(on_open=opened((MSG_CHANNEL_CLOSE, None), size=0)),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_goes_on(
    name: str, backend: str, ctx: TunneledContext, tmp_path: Path, told: list[str]
) -> None:
    with going_on(SESSIONS[name], ctx, tmp_path, told) as tunnel:
        if backend == "sshtunnel":
            assert tunnel._handle is not None
            assert tunnel._handle.ping(5) is not None
        if "refusal" in name:
            wait_until(lambda: tunnel.last_error is not None)
            assert len(tunnel.last_error or "") < 1000


def test_unknown_kinds_before_the_login(
    batches: bool, ctx: TunneledContext, tmp_path: Path, told: list[str]
) -> None:
    """OpenSSH goes on up to the service, and not after it."""
    with going_on(Script(on_keys=say_kinds), ctx, tmp_path, told) as tunnel:
        assert tunnel.last_error is None


@contextmanager
def going_on(
    script: Script, ctx: TunneledContext, directory: Path, told: list[str]
) -> Iterator[Tunnel]:
    """Check that a session goes on after what `script` has said."""
    done = []

    def on_open(transport: HostileTransport, channel: int) -> None:
        script.on_open(transport, channel)
        done.append(channel)

    with hostile_server(replace(script, on_open=on_open), directory) as options:
        sock = ctx.socket(zmq.STREAM)
        sock.connect("tcp://127.0.0.1:1", ssh=options)
        [tunnel] = sock.tunnels
        wait_until(lambda: bool(done), timeout=5)
        gateway = the_gateway()
        # Its start and the login take a third of that.
        assert sum(gateway.cpu_times()[:2]) < 1.5
        with memory_growth(gateway, at_most=16_000_000), little_work(gateway):
            always(lambda: tunnel.state == "up" and gateways() == {gateway}, 0.2)
        assert gateway.memory_info().rss < MEMORY
        yield tunnel
        assert tunnel.reconnects == 0
        told += [str(tunnel.last_error), repr(tunnel), repr(sock)]
        sock.close(linger=0)
    wait_until(lambda: not gateways(), timeout=5)


# Sessions that end


def bomb(transport: HostileTransport, channel: int) -> None:
    transport._send_message(message(MSG_IGNORE, bytes(40_000_000)))


ENDS = {
    "a bomb": (
        Script(
            prepare=lambda transport: transport.use_compression(True),
            on_open=bomb,
            options={"compression": True},
        ),
        "compressed",
    ),
    "a disconnect": (
        Script(on_open=lambda transport, channel: disconnect(transport)),
        "\\033[2J\\377",
    ),
    "extensions that are not there": (Script(on_open=say_all((MSG_EXT_INFO, 1000))), "cut short"),
    "a channel that is not there": (
        Script(on_open=opened((MSG_CHANNEL_DATA, 1 << 30, LONG))),
        "",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_session_ends(
    name: str, batches: bool, ctx: TunneledContext, tmp_path: Path, told: list[str]
) -> None:
    script, said = ENDS[name]
    with hostile_server(script, tmp_path) as options:
        sock = ctx.socket(zmq.STREAM)
        sock.connect("tcp://127.0.0.1:1", ssh=options)
        [tunnel] = sock.tunnels
        with memory_growth(the_gateway(), at_most=24_000_000):
            wait_until(lambda: tunnel.reconnects > 0, timeout=5)
            always(lambda: len(gateways()) == 1, 0.2)
        assert said in (tunnel.last_error or "")
        assert len(tunnel.last_error or "") < 1000
        told += [str(tunnel.last_error), repr(tunnel)]
        sock.close(linger=0)
    wait_until(lambda: not gateways(), timeout=5)


def test_a_check_shows_nothing_unprintable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # so that nothing is wrapped
    script = Script(
        before=b"\x1b[2J\r\n",
        identification=b"SSH-2.0-\x1b[2J\xff",
        on_open=say_all((MSG_CHANNEL_OPEN_FAILURE, None, 2, LONG, "")),
    )
    with hostile_server(script, tmp_path) as options:
        assert not Check("tcp://127.0.0.1:1", options, PlainShow().step).run()
    shown = capsys.readouterr().out
    assert "\\033[2J\\377" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert len(shown) < 3000
    assert shown.count("\n") == 7  # a line for each step, and one for the cause


# Whom accept-new believes


def test_two_first_logins_do_not_believe_two_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one looks, another adds the key that it was shown."""
    file = tmp_path / "accepted"

    def add_after_another(path: str, host: str, port: int, *args: Any, **kwargs: Any) -> Verdict:
        key = paramiko.ECDSAKey.generate()
        add(path, host, port, key)
        return add(path, host, port, *args, **kwargs)

    add = known_hosts.add
    monkeypatch.setattr(known_hosts, "add", add_after_another)
    with (
        hostile_server(Script(), tmp_path) as options,
        TunneledContext(isolate=False) as ctx,
        ctx.socket(zmq.STREAM) as sock,
    ):
        options = replace(
            options,
            known_hosts=str(file),
            strict_host_key_checking="accept-new",
            backend="sshtunnel",
        )
        with pytest.raises(HostKeyChangedError, match=f"{file}:1"):
            sock.connect("tcp://127.0.0.1:1", ssh=options)
    assert len(file.read_text().splitlines()) == 1


def test_a_lock_on_known_hosts_does_not_hinder_a_login(
    ctx: TunneledContext, tmp_path: Path
) -> None:
    file = tmp_path / "accepted"
    file.touch()
    with hostile_server(Script(), tmp_path) as options, file.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        sock = ctx.socket(zmq.STREAM)
        options = replace(options, known_hosts=str(file), strict_host_key_checking="accept-new")
        sock.connect("tcp://127.0.0.1:1", ssh=options)
        assert len(file.read_text().splitlines()) == 1
        sock.close(linger=0)
