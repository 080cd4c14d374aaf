"""What the two sides do with each other, and what may be lost of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import zmq

from tests.soak.ledger import size_of

IN_FLIGHT = 8_000_000
"""What a session may have taken when it is killed, in bytes: windows, and the kernels' buffers."""


@dataclass(frozen=True)
class Pattern:
    """A socket of the program, and its peer."""

    name: str
    server: str
    """Between them: `openssh`, or `closing`, which closes channels first."""
    near: int
    near_manner: str
    far: int
    far_manner: str
    hwm: int = 100
    naps: float = 0
    pace: tuple[float, float] = (0.008, 0.008)
    alone: bool = False
    """Whether it has a session of its own."""
    busy: bool = True
    """Whether something arrives all the time, so that a heal shows soon."""
    lossy: frozenset[str] = frozenset()
    """Ways of which ZeroMQ drops by itself: PUB for who is away, REQ an answer it has given up."""
    whole: bool = True
    """Whether what is lost with a session is one piece of each way."""

    @property
    def beating(self) -> str:
        """The side on which arrivals are counted."""
        return "far" if self.near == zmq.PUSH else "near"


PATTERNS = [
    Pattern("PUSH/PULL", "openssh", zmq.PUSH, "send", zmq.PULL, "receive"),
    Pattern("PULL/PUSH", "openssh", zmq.PULL, "receive", zmq.PUSH, "send"),
    Pattern(
        "SUB/PUB",
        "openssh",
        zmq.SUB,
        "receive",
        zmq.PUB,
        "send",
        lossy=frozenset({"back"}),
        whole=False,
    ),
    Pattern(
        "REQ/REP",
        "openssh",
        zmq.REQ,
        "ask",
        zmq.REP,
        "answer",
        lossy=frozenset({"back"}),
        whole=False,
    ),
    # A ROUTER may still have questions of a lost connection, whose answers it drops.
    Pattern("DEALER/ROUTER", "openssh", zmq.DEALER, "ask_ahead", zmq.ROUTER, "answer", whole=False),
    Pattern(
        "idle",
        "openssh",
        zmq.DEALER,
        "ask_ahead",
        zmq.ROUTER,
        "answer",
        pace=(3, 20),
        busy=False,
        whole=False,
    ),
    Pattern(
        "idle alone",
        "openssh",
        zmq.DEALER,
        "ask_ahead",
        zmq.ROUTER,
        "answer",
        pace=(3, 20),
        alone=True,
        busy=False,
        whole=False,
    ),
    *(
        Pattern(
            f"sleeper {hwm}",
            "openssh" if hwm % 2 else "closing",
            zmq.PULL,
            "receive",
            zmq.PUSH,
            "send",
            hwm=hwm,
            naps=3,
            pace=(0.01, 0.05),
            busy=False,
        )
        for hwm in range(1, 6)
    ),
    Pattern("PUSH/PULL closing", "closing", zmq.PUSH, "send", zmq.PULL, "receive"),
    Pattern(
        "idle closing",
        "closing",
        zmq.DEALER,
        "ask_ahead",
        zmq.ROUTER,
        "answer",
        pace=(3, 20),
        busy=False,
        whole=False,
    ),
]


@dataclass
class Way:
    """One direction of a pattern, as both sides report it in the end."""

    pattern: Pattern
    direction: str
    """`there` or `back`."""
    sent: int
    received: int
    lost: int
    lost_bytes: int
    holes: int
    faults: dict[str, int] = field(default_factory=dict)
    """What there must be none of: `twice`, `disordered`, `damaged`."""

    @property
    def name(self) -> str:
        return f"{self.pattern.name} {self.direction}"

    def complaints(self, breaks: int, holes: int) -> list[str]:
        """Say what is wrong.

        Args:
            breaks: how many sessions were lost, so that what they had taken may be missing.
            holes: in how many pieces that may be.

        """
        found = [f"{count} {fault}" for fault, count in self.faults.items() if count]
        if not self.received:
            found.append("nothing arrived")
        if self.direction not in self.pattern.lossy:
            if self.lost_bytes > breaks * IN_FLIGHT:
                found.append(
                    f"{self.lost} lost ({self.lost_bytes / 1e6:.1f} MB), which is more than "
                    f"{breaks} sessions can have taken"
                )
            if self.pattern.whole and self.holes > holes:
                found.append(f"{self.lost} lost in {self.holes} pieces, though {holes} may be")
        return [f"{self.name}: {what}" for what in found]


def ways(near: dict[str, Any], far: dict[str, Any]) -> list[Way]:
    """Put together what the two sides report of each pattern."""
    found = []
    for pattern in PATTERNS:
        for direction, sender, taker in (("there", near, far), ("back", far, near)):
            sent, ledger = sender[pattern.name]["sent"], taker[pattern.name]
            if not sent:
                continue
            tail = range(ledger["last"] + 1, sent)
            found.append(
                Way(
                    pattern,
                    direction,
                    sent,
                    ledger["received"],
                    ledger["lost"] + len(tail),
                    ledger["lost_bytes"] + sum(map(size_of, tail)),
                    ledger["holes"] + bool(tail),
                    {fault: ledger[fault] for fault in ("twice", "disordered", "damaged")},
                )
            )
    return found
