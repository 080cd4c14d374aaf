"""An SSH server that asks questions (keyboard-interactive), such as for one-time codes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

USER = "me"


@dataclass(frozen=True)
class Round:
    """Questions that are asked at once; each with whether its answer may be seen."""

    questions: Sequence[tuple[str, bool]]
    answers: Sequence[str]
    name: str = ""
    instruction: str = ""


class AskingServer:
    """A server that lets in whoever answers all rounds rightly.

    Args:
        directory: where it writes its `known_hosts`.
        rounds: the rounds.
        password: lets in by the method `password`, if there is one.
        change: asks for another password instead.

    """

    user = USER
    host = "127.0.0.1"
    keyfile = ""
    authorized_keys = ""

    def __init__(
        self,
        directory: Path,
        rounds: Sequence[Round] = (),
        *,
        password: str | None = None,
        change: bool = False,
    ) -> None:
        self.rounds = rounds
        self.password = password
        self.change = change
        # What it was told, and how often somebody began to be asked.
        self.heard: list[list[str]] = []
        self.attempts = 0
        self.logins = 0
        self.port = 0
        self.known_hosts = str(directory / "known_hosts")
        self._loop = asyncio.SelectorEventLoop()  # it tells what it has
        self._connections: list[asyncssh.SSHServerConnection] = []
        self._started = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(20)

    @property
    def server(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"

    def cut(self) -> None:
        """Cut all its connections."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        while self._connections:
            self._connections.pop().abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        acceptor = await asyncssh.listen(
            self.host,
            0,
            server_factory=lambda: _Session(self),
            server_host_keys=[key],
            gss_host=None,
        )
        self.port = acceptor.get_port()
        line = f"[{self.host}]:{self.port} {key.export_public_key().decode()}"
        Path(self.known_hosts).write_text(line)
        self._started.set()
        await self._ended.wait()
        acceptor.close()
        self._cut()
        await acceptor.wait_closed()
        # What was aborted closes in the next turns of the loop; somebody may just have come.
        for _ in range(10):
            self._cut()
            await asyncio.sleep(0.01)
        # Somebody may just be connecting to a peer for one that has gone.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Nobody else knows of the connections that such a one had just made.
        for transport in list(self._loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        await asyncio.sleep(0.01)

    def __enter__(self) -> AskingServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


class _Session(asyncssh.SSHServer):
    def __init__(self, server: AskingServer) -> None:
        self._server = server
        self._round = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._server._connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def auth_completed(self) -> None:
        self._server.logins += 1

    def password_auth_supported(self) -> bool:
        return self._server.password is not None

    def validate_password(self, username: str, password: str) -> bool:
        self._server.heard.append([password])
        if self._server.change:
            raise asyncssh.PasswordChangeRequired("It is \x1b[2Jtoo old.")
        return password == self._server.password

    def kbdint_auth_supported(self) -> bool:
        return bool(self._server.rounds)

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        self._server.attempts += 1
        self._round = 0
        return self._challenge()

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
        self._server.heard.append(list(responses))
        if list(responses) != list(self._server.rounds[self._round].answers):
            return False
        self._round += 1
        return self._round == len(self._server.rounds) or self._challenge()

    def _challenge(self) -> tuple[str, str, str, Sequence[tuple[str, bool]]]:
        asked = self._server.rounds[self._round]
        return asked.name, asked.instruction, "", asked.questions

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True
