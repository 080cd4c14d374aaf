"""Whatever must be typed in is asked for once, where somebody can answer, and never waited for."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import paramiko
import psutil
import pytest
import zmq
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL

from tests.accounts import Account, may_make_accounts, temporary_account
from tests.asking import AskingServer, Round
from tests.hostile import Obliging, Script, hostile_server
from tests.logins import arguments_for, options_for
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.programs import run_program, start_program
from tests.sshd import OpenSSHServer, generate_key, public_key
from tunneledzmq import SSHAuthenticationError, SSHOptions, TunneledContext, TunnelError
from tunneledzmq.gateway.auth.passwords import Passwords
from tunneledzmq.gateway.auth.userauth import InfoRequest
from tunneledzmq.gateway.login import Learned, Login
from tunneledzmq.gateway.questions import Questions

NO_TEXT = "gr\udcfcn"
"""A word in Latin-1, as Python reads it where text is UTF-8."""

CODE = Round([("Verification code: ", True)], ["123456"])
PASSWORD = Round([("Password: ", False)], ["s3cret"])


class User:
    """Somebody who answers.

    Args:
        answers: what to say to each question in turn, an exception to raise it; the last one
            is given again.

    """

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, bool]] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, text: str, echo: bool) -> str:
        self.asked.append((text, echo))
        self.threads.add(threading.current_thread())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]


def asking(server: Any, prompt: Callable[[str, bool], str], **fields: Any) -> SSHOptions:
    return options_for(server, **{"keyfile": None, "prompt": prompt, **fields})


def assert_lets_in(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> None:
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=options)
        round_trip(sock)


def assert_refused(ctx: TunneledContext, options: SSHOptions, echo: Peer) -> str:
    with ctx.socket(zmq.REQ) as sock:
        with pytest.raises(SSHAuthenticationError) as caught:
            sock.connect(echo.address, ssh=options)
        assert sock.tunnels == []
    return str(caught.value)


@pytest.fixture(scope="module")
def account(need_sshd: None) -> Iterator[Account]:
    """A Unix account with a password."""
    if not may_make_accounts():
        pytest.skip("only root can make an account")
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def sshd(account: Account) -> Iterator[OpenSSHServer]:
    """OpenSSH's server, where the account logs in with its password."""
    with OpenSSHServer(PasswordAuthentication="yes", AllowUsers=account.user) as server:
        server.user = account.user
        yield server


# Passwords


def test_a_password_is_asked_for(
    any_ctx: TunneledContext, sshd: OpenSSHServer, account: Account, echo: Peer
) -> None:
    user = User(account.password)
    assert_lets_in(any_ctx, asking(sshd, user), echo)
    assert user.asked == [(f"{account.user}@127.0.0.1's password: ", False)]
    assert user.threads == {threading.main_thread()}


def test_a_mistyped_password_may_be_typed_again(
    ctx: TunneledContext, sshd: OpenSSHServer, account: Account, echo: Peer
) -> None:
    user = User("wr0ng", "wr0ng", account.password)
    assert_lets_in(ctx, asking(sshd, user), echo)
    assert len(user.asked) == 3


def test_a_password_that_is_wrong_three_times_is_an_error(
    ctx: TunneledContext, sshd: OpenSSHServer, echo: Peer, tmp_path: Path, backend: str
) -> None:
    user = User("wr0ng")
    key = str(generate_key(tmp_path / "stranger"))
    message = assert_refused(ctx, asking(sshd, user, keyfile=key), echo)
    first, *others = [text for text, _ in user.asked]
    assert others == [f"Permission denied, please try again.\n{first}"] * 2
    assert "the password" in message and "authorized_keys" not in message
    assert sshd.server in message and "password" in message and "wr0ng" not in message


def test_a_password_that_was_given_is_not_asked_for(
    ctx: TunneledContext, sshd: OpenSSHServer, account: Account, echo: Peer
) -> None:
    user = User("unused")
    assert_lets_in(ctx, asking(sshd, user, password=account.password), echo)
    assert_refused(ctx, asking(sshd, user, password="wr0ng"), echo)
    assert user.asked == []


class Listening(Obliging):
    """Lets in with whatever password, which it notes."""

    heard: ClassVar[list[str | bytes]] = []

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(AUTH_FAILED)

    def check_auth_password(self, username: str, password: str | bytes) -> int:
        self.heard.append(password)
        return int(AUTH_SUCCESSFUL)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("way", ["given", "asked for", "typed"])
def test_a_password_that_is_no_text_goes_as_it_is(
    way: str, ctx: TunneledContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Listening, "heard", [])
    ways: dict[str, dict[str, Any]] = {
        "given": {"password": NO_TEXT},
        "asked for": {"prompt": lambda *_: NO_TEXT},
        "typed": {},
    }
    script = Script(interface=Listening, options=ways[way])
    with hostile_server(script, tmp_path) as options:
        if way == "typed":
            type_password(options)
        else:
            with ctx.socket(zmq.REQ) as sock:
                sock.connect("tcp://127.0.0.1:1", ssh=options)
    assert Listening.heard == [os.fsencode(NO_TEXT)]


def type_password(options: SSHOptions) -> None:
    names = ("server", "keyfile", "known_hosts", "config_file", "agent", "backend")
    with (
        Terminal() as terminal,
        start_program(
            """
            import os
            os.open(tty, os.O_RDWR)
            with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
                sock.connect("tcp://127.0.0.1:1", ssh=options)
            """,
            tty=terminal.name,
            options={name: getattr(options, name) for name in names},
        ) as program,
    ):
        terminal.wait_for("'s password: ")
        wait_until(lambda: not terminal.echoes)
        terminal.type(f"{NO_TEXT}\n")
        assert finish(program) == ""


def test_a_key_and_a_password_where_the_server_wants_both(
    ctx: TunneledContext, account: Account, echo: Peer, tmp_path: Path
) -> None:
    keyfile = generate_key(tmp_path / "key")
    account.authorized_keys.write_text(public_key(keyfile))
    with OpenSSHServer(
        PasswordAuthentication="yes",
        AuthenticationMethods="publickey,password",
        AuthorizedKeysFile=str(account.authorized_keys),
    ) as server:
        server.user = account.user
        user = User(account.password)
        assert_lets_in(ctx, asking(server, user, keyfile=str(keyfile)), echo)
        assert len(user.asked) == 1
        given = options_for(server, keyfile=str(keyfile), password=account.password)
        assert_lets_in(ctx, given, echo)
        message = assert_refused(ctx, options_for(server, password=account.password), echo)
        assert "publickey" in message
        message = assert_refused(ctx, asking(server, User("no"), keyfile=str(keyfile)), echo)
        assert "it accepts password" in message


@pytest.mark.skipif(not Path("/etc/pam.d/sshd").exists(), reason="sshd is without PAM here")
def test_a_key_and_the_questions_of_pam(
    ctx: TunneledContext, account: Account, echo: Peer, tmp_path: Path
) -> None:
    keyfile = generate_key(tmp_path / "key")
    account.authorized_keys.write_text(public_key(keyfile))
    with OpenSSHServer(
        UsePAM="yes",
        KbdInteractiveAuthentication="yes",
        AuthenticationMethods="publickey,keyboard-interactive",
        AuthorizedKeysFile=str(account.authorized_keys),
    ) as server:
        server.user = account.user
        user = User("wr0ng", account.password)
        assert_lets_in(ctx, asking(server, user, keyfile=str(keyfile)), echo)
        question = f"({account.user}@127.0.0.1) Password: "
        again = f"Permission denied, please try again.\n{question}"
        assert user.asked == [(question, False), (again, False)]
        given = options_for(server, keyfile=str(keyfile), password=account.password)
        assert_lets_in(ctx, given, echo)


def test_a_password_that_has_expired_is_told(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with AskingServer(tmp_path, password="old", change=True) as server:
        message = assert_refused(ctx, options_for(server, keyfile=None, password="old"), echo)
        assert "expired" in message and "too old" in message
        assert "\x1b" not in message


# Questions of the server


def test_one_time_codes(any_ctx: TunneledContext, echo: Peer, tmp_path: Path) -> None:
    rounds = [
        Round([("Password: ", False)], ["s3cret"], "Login", "Two steps."),
        Round([("Code 1: ", True), ("Code 2: ", False)], ["11", "22"], "", "Look at the token."),
    ]
    with AskingServer(tmp_path, rounds) as server:
        user = User("s3cret", "11", "22")
        assert_lets_in(any_ctx, asking(server, user), echo)
        assert server.heard == [["s3cret"], ["11", "22"]]
    assert user.asked == [
        ("Login\nTwo steps.\n(me@127.0.0.1) Password: ", False),
        ("Look at the token.\n(me@127.0.0.1) Code 1: ", True),
        ("(me@127.0.0.1) Code 2: ", False),
    ]


def test_the_password_that_was_given_answers_one_question_only(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with AskingServer(tmp_path, [PASSWORD, CODE]) as server:
        user = User("123456")
        assert_lets_in(ctx, asking(server, user, password="s3cret"), echo)
        assert [text for text, _ in user.asked] == ["(me@127.0.0.1) Verification code: "]
    with AskingServer(tmp_path, [CODE]) as server:
        message = assert_refused(ctx, options_for(server, keyfile=None, password="s3cret"), echo)
        assert server.heard == []
        assert "prompt=" in message
    with AskingServer(tmp_path, [PASSWORD, PASSWORD]) as server:
        assert_refused(ctx, options_for(server, keyfile=None, password="s3cret"), echo)
        assert server.heard == [["s3cret"]]


@pytest.mark.parametrize(
    "question", ["Passwort: ", "Mot de passe : ", "Contraseña: ", "パスワード: "]
)
def test_the_password_that_was_given_answers_in_any_language(
    ctx: TunneledContext, echo: Peer, tmp_path: Path, backend: str, question: str
) -> None:
    asked = Round([(question, False)], ["s3cret"])
    given = {"keyfile": None, "password": "s3cret"}
    with AskingServer(tmp_path, [asked]) as server:
        assert_lets_in(ctx, options_for(server, **given), echo)
    # Once, and nothing but the first question.
    with AskingServer(tmp_path, [asked, asked]) as server:
        user = User("no")
        assert_refused(ctx, asking(server, user, password="s3cret"), echo)
        assert server.heard[0] == ["s3cret"] and ["s3cret"] not in server.heard[1:]
    with AskingServer(tmp_path, [CODE, asked]) as server:
        assert_refused(ctx, options_for(server, **given), echo)
        # An ssh that nobody answers says nothing, but may say so before it is ended.
        assert server.heard in ([], [[""]])


@pytest.mark.parametrize(
    "lines",
    [
        "PasswordAuthentication no\nKbdInteractiveAuthentication no",
        "PreferredAuthentications publickey",
        "NumberOfPasswordPrompts 0",
    ],
    ids=["no passwords", "keys only", "no prompts"],
)
@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_the_password_that_was_given_wins_over_the_config_file(
    ctx: TunneledContext,
    config: Callable[..., Path],
    echo: Peer,
    tmp_path: Path,
    backend: str,
    method: str,
    lines: str,
) -> None:
    ways: dict[str, Any] = {"password": {"password": "s3cret"}}
    with AskingServer(tmp_path, **ways.get(method, {"rounds": [PASSWORD]})) as server:
        path = config(f"Host *\n{lines}\n")
        options = options_for(server, keyfile=None, password="s3cret", config_file=str(path))
        assert_lets_in(ctx, options, echo)


def test_a_server_that_takes_no_password_is_told(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    message = assert_refused(ctx, options_for(openssh, keyfile=None, password="s3cret"), echo)
    assert "takes no password" in message and "password=" not in message


def test_without_a_password_none_is_said_to_be_wrong(
    echo: Peer, tmp_path: Path, backend: str
) -> None:
    with AskingServer(tmp_path, [PASSWORD], password="s3cret") as server:
        output = run_program(
            """
            with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
                try:
                    sock.connect(addr, ssh=options)
                except SSHAuthenticationError as exc:
                    print(exc)
            """,
            options=arguments_for(server, keyfile=None),
            addr=echo.address,
        )
        assert server.heard == []
    assert "nobody to ask" in output and "with the password" not in output


def test_a_password_typed_in_any_language_is_known_to_the_next_session(
    echo: Peer, tmp_path: Path, ctx: TunneledContext
) -> None:
    with AskingServer(tmp_path, [Round([("Passwort: ", False)], ["s3cret"])]) as server:
        user = User("s3cret", "asked again")
        with ctx.socket(zmq.REQ) as sock:
            sock.connect(echo.address, ssh=asking(server, user))
            round_trip(sock)
            server.cut()
            wait_until(lambda: server.logins == 2)
        assert len(user.asked) == 1


def test_what_the_server_says_cannot_control_the_terminal(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    evil = "\x1b]0;pwned\x07\x9b31m\u202eabc\r\nünïcode"
    with AskingServer(tmp_path, [Round([(evil, False)], ["x"], evil, evil)]) as server:
        user = User("x")
        assert_lets_in(ctx, asking(server, user), echo)
    [(text, _)] = user.asked
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text.count("\\033]0;pwned\\007") == 3 and text.count("ünïcode") == 3


def test_nothing_typed_is_sent_to_a_server_with_a_changed_key(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    other = tmp_path / "known_hosts_of_another"
    other.write_text(f"* {public_key(generate_key(tmp_path / 'other'))}\n")
    with AskingServer(tmp_path, [PASSWORD], password="s3cret") as server:
        user = User("s3cret")
        unsafe = {"known_hosts": str(other), "strict_host_key_checking": "no"}
        message = assert_refused(ctx, asking(server, user, **unsafe), echo)
        assert "changed" in message
        assert_refused(ctx, asking(server, user, password="s3cret", **unsafe), echo)
        assert server.heard == [] and user.asked == []


# Passphrases


def test_a_passphrase_is_asked_for_three_times(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    keyfile = generate_key(tmp_path / "key", passphrase="open sesame")
    openssh.authorize(keyfile)
    user = User("wr0ng", "wr0ng", "open sesame")
    assert_lets_in(ctx, asking(openssh, user, keyfile=str(keyfile)), echo)
    question = f"Enter passphrase for key '{keyfile}': "
    again = f"Bad passphrase, please try again.\n{question}"
    assert user.asked == [(question, False), (again, False), (again, False)]
    user = User("wr0ng")
    message = assert_refused(ctx, asking(openssh, user, keyfile=str(keyfile)), echo)
    assert str(keyfile) in message and "wr0ng" not in message
    assert len(user.asked) == 3


def test_no_passphrase_is_asked_for_in_vain(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    stranger = generate_key(home / ".ssh" / "id_ed25519", passphrase="open sesame")
    keyfile = generate_key(home / ".ssh" / "id_rsa", "ssh-rsa", passphrase="open sesame")
    Path(f"{stranger}.pub").unlink()  # the private file tells the public half too
    openssh.authorize(keyfile)
    user = User("open sesame")
    assert_lets_in(ctx, asking(openssh, user), echo)
    assert user.asked == [(f"Enter passphrase for key '{keyfile}': ", False)]


def test_a_passphrase_that_was_given_opens_the_default_keys(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    openssh.authorize(generate_key(home / ".ssh" / "id_ed25519", passphrase="open sesame"))
    assert_lets_in(ctx, options_for(openssh, keyfile=None, passphrase="open sesame"), echo)


def test_no_answer_passes_a_key_over(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, home: Path
) -> None:
    openssh.authorize(generate_key(home / ".ssh" / "id_ed25519", passphrase="open sesame"))
    openssh.authorize(generate_key(home / ".ssh" / "id_rsa", "ssh-rsa"))
    user = User("")
    assert_lets_in(ctx, asking(openssh, user), echo)
    assert len(user.asked) == 1


# Who is asked, and when


def test_threads_that_connect_at_once_ask_once(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with AskingServer(tmp_path, [CODE]) as server:
        user = User("123456")
        options = asking(server, user)
        threads = [
            threading.Thread(target=assert_lets_in, args=(ctx, options, echo)) for _ in range(20)
        ]
        with ctx.socket(zmq.REQ) as keeper:
            for thread in threads:
                thread.start()
            keeper.connect(echo.address, ssh=options)
            for thread in threads:
                thread.join()
        assert len(user.asked) == 1
        assert server.logins == 1


def test_a_user_may_take_longer_than_connect_timeout(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    def slow(text: str, echo: bool) -> str:
        time.sleep(5)
        return "123456"

    with AskingServer(tmp_path, [CODE]) as server:
        assert_lets_in(ctx, asking(server, slow, connect_timeout=2), echo)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(RuntimeError("no way"), "RuntimeError: no way"), (None, "NoneType"), (b"123456", "bytes")],
)
def test_a_prompt_that_fails_is_an_error(
    any_ctx: TunneledContext, echo: Peer, tmp_path: Path, answer: object, reason: str
) -> None:
    with AskingServer(tmp_path, [CODE]) as server:
        message = assert_refused(any_ctx, asking(server, User(answer)), echo)
        assert "prompt=" in message and reason in message
        assert_lets_in(any_ctx, asking(server, User("123456")), echo)


def test_a_new_session_asks_for_nothing_that_was_typed_before(
    ctx: TunneledContext, openssh: OpenSSHServer, echo: Peer, tmp_path: Path
) -> None:
    keyfile = generate_key(tmp_path / "key", passphrase="open sesame")
    openssh.authorize(keyfile)
    user = User("open sesame")
    with AskingServer(tmp_path, [PASSWORD]) as server, ctx.socket(zmq.REQ) as sock:
        typed = User("s3cret")
        sock.connect(echo.address, ssh=asking(server, typed))
        [tunnel] = sock.tunnels
        round_trip(sock)
        server.cut()
        wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up")
        round_trip(sock)
        assert len(typed.asked) == 1
    with ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address, ssh=asking(openssh, user, keyfile=str(keyfile)))
        [tunnel] = sock.tunnels
        round_trip(sock)
        openssh.kill_sessions()
        wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up")
        round_trip(sock)
        assert len(user.asked) == 1


def test_a_new_session_asks_for_a_new_code(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with AskingServer(tmp_path, [CODE]) as server, ctx.socket(zmq.REQ) as sock:
        user = User("123456")
        sock.connect(echo.address, ssh=asking(server, user))
        [tunnel] = sock.tunnels
        round_trip(sock)
        server.cut()
        wait_until(lambda: tunnel.reconnects == 1 and tunnel.state == "up")
        assert len(user.asked) == 2
        assert len(user.threads) == 2  # nobody waits in connect any more
        round_trip(sock)


def test_without_a_user_the_session_stays_down_until_the_next_connect(
    ctx: TunneledContext, echo: Peer, tmp_path: Path
) -> None:
    with AskingServer(tmp_path, [CODE]) as server, ctx.socket(zmq.REQ) as sock:
        user = User("123456", RuntimeError("gone"), "123456")
        options = asking(server, user)
        sock.connect(echo.address, ssh=options)
        [tunnel] = sock.tunnels
        round_trip(sock)
        server.cut()
        wait_until(lambda: "gone" in (tunnel.last_error or ""))
        assert tunnel.state == "down"
        assert_lets_in(ctx, options, echo)
        wait_until(lambda: tunnel.state == "up")
        round_trip(sock)
        assert len(user.asked) == 3


def test_a_program_without_a_terminal_is_told_what_is_missing(echo: Peer, tmp_path: Path) -> None:
    program = """
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            try:
                sock.connect(addr, ssh=options)
            except SSHAuthenticationError as exc:
                print(exc)
            assert not sock.tunnels
        """
    with AskingServer(tmp_path, [CODE], password="s3cret") as server:
        options = arguments_for(server, keyfile=None)
        output = run_program(program, options=options, addr=echo.address)
        assert "password= or prompt=" in output and server.server in output
        assert server.heard == []


def test_a_context_that_terminates_waits_for_no_answer(echo: Peer, tmp_path: Path) -> None:
    asked, answered = threading.Event(), threading.Event()

    def stuck(text: str, echo: bool) -> str:
        asked.set()
        answered.wait(20)
        return "123456"

    with AskingServer(tmp_path, [CODE]) as server:
        ctx = TunneledContext(isolate=False)
        failures: list[BaseException] = []

        def connect() -> None:
            with ctx.socket(zmq.REQ) as sock:
                try:
                    sock.connect(echo.address, ssh=asking(server, stuck))
                except (zmq.ZMQError, TunnelError) as exc:
                    failures.append(exc)

        thread = threading.Thread(target=connect)
        thread.start()
        assert asked.wait(10)
        closer = threading.Thread(target=ctx.term)
        closer.start()
        answered.set()
        thread.join(10)
        closer.join(10)
        assert not thread.is_alive() and not closer.is_alive()
        assert failures


# The terminal


class Terminal:
    """A pseudo-terminal, and who sits before it."""

    def __init__(self) -> None:
        self._user, self._tty = os.openpty()
        self.name = os.ttyname(self._tty)
        self.shown = ""

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._tty)[3] & termios.ECHO)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until `text` is shown, or that often."""

        def look() -> bool:
            if select.select([self._user], [], [], 0)[0]:
                self.shown += os.read(self._user, 4096).decode()
            return self.shown.count(text) >= times

        wait_until(look, timeout=30, what=f"{text!r} is shown")

    def show_what_is_typed(self) -> None:
        """Do what a shell does when a job of its own stops."""
        settings = termios.tcgetattr(self._tty)
        settings[3] |= termios.ECHO
        termios.tcsetattr(self._tty, termios.TCSADRAIN, settings)

    def type(self, text: str) -> None:
        os.write(self._user, os.fsencode(text))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._user)
        os.close(self._tty)


# The first terminal that a session's leader opens is its own.
ON_TERMINAL = """
    import os
    os.open(tty, os.O_RDWR)
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        try:
            sock.connect(addr, ssh=options)
            sock.send(b"hello")
            print(sock.recv().decode())
        except KeyboardInterrupt:
            print("interrupted")
        except SSHAuthenticationError as exc:
            print(exc)
        assert sock.tunnels == [] or sock.tunnels[0].state == "up"
    """

ASYNCIO_ON_TERMINAL = """
    import asyncio, os
    import tunneledzmq.asyncio
    os.open(tty, os.O_RDWR)
    async def main():
        with tunneledzmq.asyncio.TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            await sock.connect(addr, ssh=options)
            await sock.send(b"hello")
            print((await sock.recv()).decode())
    asyncio.run(main())
    """

IN_BACKGROUND = """
    import os
    os.open(tty, os.O_RDWR)
    if not os.fork():
        os.setpgid(0, 0)
        with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
            try:
                sock.connect(addr, ssh=options)
            except SSHAuthenticationError as exc:
                print(exc, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
    """


def finish(program: subprocess.Popen[str]) -> str:
    """Wait for the end of a program, and return what it printed."""
    output, errors = program.communicate(timeout=30)
    assert program.returncode == 0 and not errors, errors
    return output


def test_the_terminal_is_asked_and_does_not_show_secrets(echo: Peer, tmp_path: Path) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, [PASSWORD, CODE]) as server:
        options = arguments_for(server, keyfile=None)
        with start_program(
            ON_TERMINAL, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            terminal.wait_for("(me@127.0.0.1) Password: ")
            wait_until(lambda: not terminal.echoes)
            terminal.type("s3cret\n")
            terminal.wait_for("(me@127.0.0.1) Verification code: ")
            wait_until(lambda: terminal.echoes)
            terminal.type("123456\n")
            assert finish(program) == "hello\n"
            terminal.wait_for("123456")
            assert "s3cret" not in terminal.shown


def suspend_and_continue(program: subprocess.Popen[str], terminal: Terminal) -> None:
    """Do what Ctrl-Z and ``fg`` do; SIGTSTP would not stop a leader of a session."""
    os.kill(program.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED)
    terminal.show_what_is_typed()
    # Once it is shown, it is there to be read: it is for the shell, and no part of an answer.
    seen = terminal.shown.count("fg")
    terminal.type("fg")
    terminal.wait_for("fg", seen + 1)
    os.kill(program.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("source", "backend"),
    [(ON_TERMINAL, "sshtunnel"), (ON_TERMINAL, "openssh"), (ASYNCIO_ON_TERMINAL, "sshtunnel")],
    ids=["sshtunnel", "openssh", "asyncio"],
)
def test_a_secret_is_hidden_and_asked_for_again_after_ctrl_z(
    echo: Peer, tmp_path: Path, source: str, backend: str
) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, [PASSWORD]) as server:
        options = arguments_for(server, keyfile=None, backend=backend)
        with start_program(
            source, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            for times in (1, 2):
                terminal.wait_for("(me@127.0.0.1) Password: ", times)
                wait_until(lambda: not terminal.echoes)
                suspend_and_continue(program, terminal)
            terminal.wait_for("(me@127.0.0.1) Password: ", 3)
            assert not terminal.echoes
            terminal.type("s3cret\n")
            assert finish(program) == "hello\n"
            terminal.wait_for("\r\n")
            assert terminal.echoes
            assert "s3cret" not in terminal.shown
            assert server.heard == [["s3cret"]]


@pytest.mark.parametrize(("key", "outcome"), [("\x03", "interrupted"), ("\x04", "gave no answer")])
def test_the_terminal_is_left_as_it_was_after_ctrl_z(
    echo: Peer, tmp_path: Path, key: str, outcome: str
) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, [PASSWORD]) as server:
        options = arguments_for(server, keyfile=None)
        with start_program(
            ON_TERMINAL, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            terminal.wait_for("(me@127.0.0.1) Password: ")
            suspend_and_continue(program, terminal)
            terminal.wait_for("(me@127.0.0.1) Password: ", 2)
            terminal.type(key)
            assert outcome in finish(program)
            assert terminal.echoes


@pytest.mark.parametrize("question", [PASSWORD, CODE], ids=["hidden", "shown"])
def test_ctrl_c_at_the_prompt_interrupts_connect(
    echo: Peer, tmp_path: Path, question: Round
) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, [question]) as server:
        options = arguments_for(server, keyfile=None)
        with start_program(
            ON_TERMINAL, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            terminal.wait_for(question.questions[0][0])
            wait_until(lambda: terminal.echoes == question.questions[0][1])
            terminal.type("\x03")
            assert finish(program) == "interrupted\n"
            assert terminal.echoes
            assert server.logins == 0


@pytest.mark.parametrize("question", [PASSWORD, CODE], ids=["hidden", "shown"])
def test_the_end_of_input_is_no_answer(echo: Peer, tmp_path: Path, question: Round) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, [question]) as server:
        options = arguments_for(server, keyfile=None)
        with start_program(
            ON_TERMINAL, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            terminal.wait_for(question.questions[0][0])
            wait_until(lambda: terminal.echoes == question.questions[0][1])
            terminal.type("\x04")
            message = finish(program)
            assert f"gave no answer when asked for '{question.questions[0][0][:-2]}'" in message
            assert "nobody to ask" not in message and "password=" not in message
            assert "did not let" not in message
            assert terminal.echoes and server.heard == []


@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
def test_a_passphrase_that_the_user_does_not_give_is_called_that(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, backend: str
) -> None:
    key = generate_key(tmp_path / "locked", passphrase="secret")
    openssh.authorize(str(key))
    with Terminal() as terminal:
        options = arguments_for(openssh, keyfile=str(key), backend=backend)
        with start_program(
            ON_TERMINAL, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            terminal.wait_for(f"Enter passphrase for key '{key}': ")
            wait_until(lambda: not terminal.echoes)
            terminal.type("\x04")
            message = finish(program)
            assert f"The key file {key} is encrypted: the user gave no passphrase for it" in message
            terminal.wait_for(f"Enter passphrase for key '{key}': \r\n")


CHECK_ON_TERMINAL = """
    import os
    os.open(tty, os.O_RDWR)
    from tunneledzmq.check import main
    sys.exit(main(words))
    """


@pytest.mark.parametrize(
    ("asks", "question"),
    [
        ({"rounds": [PASSWORD]}, "(me@127.0.0.1) Password: "),
        ({"password": "s3cret"}, "me@127.0.0.1's password: "),
    ],
    ids=["keyboard-interactive", "password"],
)
@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
def test_who_was_asked_at_a_terminal_is_not_sent_to_one(
    echo: Peer, tmp_path: Path, home: Path, backend: str, asks: dict[str, Any], question: str
) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, **asks) as server:
        words = [echo.address, "--ssh", server.server, "--known-hosts", server.known_hosts]
        words += ["-F", "none", "--backend", backend]
        with start_program(
            CHECK_ON_TERMINAL,
            prefix=["env", "-u", "SSH_AUTH_SOCK", "COLUMNS=1000"],
            tty=terminal.name,
            words=words,
        ) as program:
            terminal.wait_for(question)
            terminal.type("\x04")
            output, _ = program.communicate(timeout=30)
    assert program.returncode == 1
    assert "user gave no answer when asked for" in output
    assert "at a terminal" not in output and "SSH_ASKPASS" not in output


def test_a_program_in_the_background_does_not_take_the_terminal(echo: Peer, tmp_path: Path) -> None:
    with Terminal() as terminal, AskingServer(tmp_path, [PASSWORD]) as server:
        options = arguments_for(server, keyfile=None)
        with start_program(
            IN_BACKGROUND, tty=terminal.name, options=options, addr=echo.address
        ) as program:
            assert "nobody to ask" in finish(program)
            assert server.heard == []


# Where there is no terminal


ASK_WINDOW = """#!/bin/sh
echo "$1" >> {log}
{action}
"""


def window(tmp_path: Path, action: str = "echo s3cret") -> Path:
    """Write the program that SSH_ASKPASS names."""
    path = tmp_path / "ask pass"
    path.write_text(ASK_WINDOW.format(log=tmp_path / "log", action=action))
    path.chmod(0o700)
    return path


ASKED = """
    with TunneledContext() as ctx, ctx.socket(zmq.REQ) as sock:
        try:
            sock.connect(addr, ssh=options)
            print("let in")
        except SSHAuthenticationError as exc:
            print(exc)
    """


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        (["DISPLAY=:7"], True),
        (["WAYLAND_DISPLAY=w"], True),
        (["SSH_ASKPASS_REQUIRE=force"], True),
        (["DISPLAY=:7", "SSH_ASKPASS_REQUIRE=never"], False),
        (["SSH_ASKPASS_REQUIRE=prefer"], False),
        ([], False),
    ],
    ids=["X", "Wayland", "force", "never", "prefer", "neither"],
)
def test_without_a_terminal_a_window_asks_where_it_would_for_ssh(
    echo: Peer, tmp_path: Path, environment: list[str], asked: bool
) -> None:
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS_REQUIRE")
    prefix = ["env", *(f"-u{name}" for name in names), f"SSH_ASKPASS={window(tmp_path)}"]
    with AskingServer(tmp_path, [PASSWORD]) as server:
        output = run_program(
            ASKED,
            prefix=[*prefix, *environment],
            options=arguments_for(server, keyfile=None),
            addr=echo.address,
        )
    if asked:
        assert output == "let in\n"
        assert (tmp_path / "log").read_text() == "(me@127.0.0.1) Password: \n"
    else:
        assert "nobody to ask" in output and not (tmp_path / "log").exists()


def test_a_window_that_is_closed_is_no_answer(echo: Peer, tmp_path: Path) -> None:
    prefix = ["env", "SSH_ASKPASS_REQUIRE=force", f"SSH_ASKPASS={window(tmp_path, 'exit 1')}"]
    with AskingServer(tmp_path, [PASSWORD]) as server:
        options = arguments_for(server, keyfile=None)
        output = run_program(ASKED, prefix=prefix, options=options, addr=echo.address)
        assert server.heard == []
    assert "gave no answer when asked" in output


@pytest.mark.parametrize("backend", ["sshtunnel", "openssh"])
@pytest.mark.parametrize(
    ("mode", "why"),
    [(None, errno.ENOENT), (0o600, errno.EACCES)],
    ids=["missing", "not executable"],
)
def test_a_window_that_cannot_be_opened_is_told(
    echo: Peer, tmp_path: Path, backend: str, mode: int | None, why: int
) -> None:
    path = tmp_path / "ask\n pass"
    if mode is not None:
        path.touch(mode)
    prefix = ["env", "SSH_ASKPASS_REQUIRE=force", f"SSH_ASKPASS={path}"]
    with AskingServer(tmp_path, [PASSWORD]) as server:
        options = arguments_for(server, keyfile=None, backend=backend)
        output = run_program(ASKED, prefix=prefix, options=options, addr=echo.address)
        assert server.heard == []
    program = str(path).replace("\n", "\\012")
    assert f"SSH_ASKPASS={program} cannot be run: {os.strerror(why)}" in output
    assert "prompt=" not in output and "password=" not in output


def test_a_key_that_no_window_opens_is_passed_over(
    openssh: OpenSSHServer, echo: Peer, tmp_path: Path, home: Path
) -> None:
    openssh.authorize(generate_key(home / ".ssh" / "id_ed25519", passphrase="open sesame"))
    openssh.authorize(generate_key(home / ".ssh" / "id_rsa", "ssh-rsa"))
    prefix = ["env", "SSH_ASKPASS_REQUIRE=force", f"SSH_ASKPASS={tmp_path / 'missing'}"]
    options = arguments_for(openssh, keyfile=None)
    first = "import logging, sys; logging.basicConfig(stream=sys.stdout)\n"
    output = run_program(ASKED, first=first, prefix=prefix, options=options, addr=echo.address)
    assert f"is encrypted: SSH_ASKPASS={tmp_path / 'missing'} cannot be run" in output
    assert output.endswith("let in\n")


@pytest.mark.parametrize("require", ["force", "prefer"])
def test_a_window_may_be_preferred_to_the_terminal(
    echo: Peer, tmp_path: Path, require: str
) -> None:
    prefix = ["env", "DISPLAY=:7", f"SSH_ASKPASS_REQUIRE={require}"]
    with (
        Terminal() as terminal,
        AskingServer(tmp_path, [PASSWORD]) as server,
        start_program(
            ON_TERMINAL,
            prefix=[*prefix, f"SSH_ASKPASS={window(tmp_path)}"],
            tty=terminal.name,
            options=arguments_for(server, keyfile=None),
            addr=echo.address,
        ) as program,
    ):
        assert finish(program) == "hello\n"
    assert (tmp_path / "log").exists()


# What only the config file says


def nobody() -> Questions:
    questions = Questions(lambda message: None, count(1))
    questions.give_up()
    return questions


def test_batch_mode_asks_nobody() -> None:
    asked: list[Any] = []
    questions = Questions(asked.append, count(1))
    login = Login("me@host:22", "host", 22, "me", batch_mode=True)
    passwords = Passwords(login, Learned(), questions)
    assert list(passwords) == []
    assert passwords.respond(InfoRequest("", "", (("Code: ", True),))) is None
    assert asked == []
    assert "BatchMode" in passwords.problems[0]


def test_no_password_prompts_means_none() -> None:
    login = Login("me@host:22", "host", 22, "me", number_of_password_prompts=0)
    passwords = Passwords(login, Learned(), nobody())
    assert list(passwords) == [] and passwords.tries == 0
    login = replace(login, password="s3cret")
    assert list(Passwords(login, Learned(), nobody())) == ["s3cret"]


@pytest.mark.parametrize(
    "text",
    [
        *["One-time password: ", "New password: ", "OTP Password: ", "Retype new password: "],
        *["Einmalpasswort: ", "Neues Passwort: ", "Nouveau mot de passe : ", "PIN: ", "Código: "],
    ],
)
def test_the_password_is_not_told_to_other_questions(text: str) -> None:
    login = Login("me@host:22", "host", 22, "me", password="s3cret")
    passwords = Passwords(login, Learned(), nobody())
    assert passwords.respond(InfoRequest("", "", ((text, False),))) is None
    assert passwords.respond(InfoRequest("", "", (("Password: ", True),))) is None
    assert passwords.respond(InfoRequest("", "", (("me's Password: ", False),))) == ["s3cret"]
