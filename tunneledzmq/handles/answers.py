"""What a gateway asks of the program while it logs in: the way over a hop, a secret."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from typing import Protocol

from ..endpoints import RemoteEndpoint
from ..exceptions import SSHAuthenticationError, SSHConnectionError, TunnelError
from ..shared.control import ControlChannel, How, Message
from ..shared.system.leg import whose
from ..tunnel import GivenUp, Handle, Tunnel
from .prompt import CannotAsk, EndOfInput, ask_user
from .records import settle
from .reply import Call, Interrupted, Reply

__all__ = ["Answers", "Hops"]


class Hops(Protocol):
    """Where the way over a hop is had: the gateways of the program."""

    def finish(self, tunnel: Tunnel, *, isolate: bool) -> None:
        """Have the gateway for its options take a tunnel, and wait until it is up.

        Raises:
            TunnelError: there is no way.
            GivenUp: the tunnel was closed meanwhile.
        """
        ...


class Answers:
    """Answers to one gateway, whichever process it lives in.

    A thread that waits in ``connect`` gives them: the user is asked for a password on the thread
    where Ctrl-C is heard. When nobody waits, as for a session that was lost, a thread of its own
    does.

    Args:
        handle: that of the gateway.
        hops: where the way over a hop is had.
        isolate: whether the hop's gateway gets a process of its own.
        waiting: who waits for the gateway to log in.
    """

    def __init__(
        self, handle: Handle, hops: Hops, waiting: dict[int, Reply], *, isolate: bool
    ) -> None:
        self._handle = handle
        self._options = handle.options
        self._hops = hops
        self._isolate = isolate
        self._waiting = waiting

        # What is asked at the moment, by serial.
        self._asked: set[int] = set()
        # The way over the hop.
        self._hop: Tunnel | None = None

    @property
    def pending(self) -> bool:
        """Whether the gateway waits for the program."""
        return bool(self._asked)

    def on_ask(self, message: Message, control: ControlChannel) -> None:
        """Have a question answered over `control`."""
        self._asked.add(message["serial"])
        self.hand_out(_Question(self, message, control))

    def hand_out(self, call: Call) -> None:
        """Give a call to a thread that waits, or to one of its own."""
        calls = [call]
        for reply in list(self._waiting.values()):
            calls = [left for call in calls for left in reply.ask(call)]
        for call in calls:
            try:
                threading.Thread(target=call, name="tunneledzmq-answer", daemon=True).start()
            except RuntimeError as exc:  # there are none left
                call.refuse(f"cannot start a thread to log in: {exc}")

    def explain(self, error: TunnelError, *, ask: bool = False) -> TunnelError:
        """Say what the hop said, where that is why there is no session.

        Args:
            error: what the gateway said.
            ask: whether to wait for what the hop's gateway had to say by then.
        """
        hop = self._hop
        if hop is None or not isinstance(error, SSHConnectionError):
            return error
        if ask:
            hop.stats()  # with the answer, all that was said before has come
        if hop.last_error is None:
            return error
        text = f"{self._handle.server}: hop {hop.last_error}"
        return SSHConnectionError(errno.EHOSTUNREACH, text)

    def close(self) -> None:
        """Give up the way over the hop: the gateway has ended."""
        hop, self._hop = self._hop, None
        if hop is not None:
            hop._close(*(0, How.CUT) if hop.state == "connecting" else (-1, How.CLOSED))

    def answer(self, message: Message, control: ControlChannel) -> None:
        """Answer a question of the gateway's."""
        answer = {"type": "answer", "serial": message["serial"]}
        try:
            if message["what"] == "hop":
                answer["value"] = self._way_over_hop(message)
            else:
                answer["value"] = self._ask_user(message["text"], message["echo"])
        except TunnelError as exc:
            answer["error"] = _describe(exc)
        except EndOfInput:
            answer["declined"] = True
        except CannotAsk as exc:
            answer["hindrance"] = str(exc)
        except GivenUp:
            pass  # the gateway that asked has ended
        except Interrupted:
            # The context of this thread terminates. Another one may wait, too.
            self.hand_out(_Question(self, message, control))
            return
        except Exception as exc:
            text = f"{self._handle.server}: prompt= failed: {type(exc).__name__}: {exc}"
            answer["error"] = _describe(SSHAuthenticationError(errno.ECANCELED, text))
        except BaseException:
            # Ctrl-C was pressed: there is no value.
            self._send(answer, control)
            raise
        self._send(answer, control)

    def refuse(self, message: Message, control: ControlChannel, why: str) -> None:
        """Say that there is no answer; the gateway may try again."""
        error = SSHConnectionError(errno.EAGAIN, f"{self._handle.server}: {why}")
        answer = {"type": "answer", "serial": message["serial"], "error": _describe(error)}
        self._send(answer, control)

    def _send(self, answer: Message, control: ControlChannel) -> None:
        self._asked.discard(answer["serial"])
        control.send(answer)

    def _ask_user(self, text: str, echo: bool) -> str | None:
        settle()  # the banner comes first
        if self._options.prompt is not None:
            answer = self._options.prompt(text, echo)
            if not isinstance(answer, str):
                raise TypeError(f"it returned no str but {type(answer).__name__}")
            return answer
        # Without anybody waiting in connect, the terminal is the program's.
        return ask_user(text, echo) if self._waiting else None

    def _way_over_hop(self, message: Message) -> str:
        """Return the local endpoint that leads over the hop to the server."""
        hop = self._hop
        # Where a program waits, a hop that does not let us in is asked once more.
        # One that a gateway had which died may not be for this one.
        others = hop is not None and hop._process != whose(self._handle.pid)
        if hop is None or hop.state in ("closing", "closed") or self._waiting or others:
            jump = message["jump"]
            options = self._options.through(jump) if jump else self._options.hop
            assert options is not None
            remote = RemoteEndpoint(message["host"], message["port"])
            self.close()
            hop = self._hop = Tunnel(str(remote), options, user=self._handle)
            if self._handle.ended:
                self.close()
            try:
                self._hops.finish(hop, isolate=self._isolate)
            except BaseException:
                self._hop = None
                raise
        return hop.local


@dataclass(frozen=True)
class _Question:
    """What a gateway asks, and over which pipe it is answered."""

    answers: Answers
    message: Message
    control: ControlChannel

    def __call__(self) -> None:
        self.answers.answer(self.message, self.control)

    def refuse(self, why: str) -> None:
        self.answers.refuse(self.message, self.control, why)


def _describe(error: TunnelError) -> Message:
    return {"kind": type(error).__name__, "errno": error.errno, "message": error.strerror}
