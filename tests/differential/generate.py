"""Draws a program from a seed.

What is drawn is what plain TCP decides: a message is sent to a peer that is known to be there or
known not to be there, not to one that is just coming or going.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.differential.program import Declaration, Program, Step

PAIRS: dict[str, tuple[str, ...]] = {
    "PUSH": ("PULL",),
    "PULL": ("PUSH",),
    "REQ": ("REP", "ROUTER"),
    "REP": ("REQ", "DEALER"),
    "DEALER": ("ROUTER", "REP", "DEALER"),
    "ROUTER": ("DEALER", "ROUTER"),
    "SUB": ("XPUB",),
    "XSUB": ("XPUB",),
    "PUB": ("SUB",),
    "XPUB": ("SUB",),
    "PAIR": ("PAIR",),
    "STREAM": ("STREAM",),
}

WEIGHTS = {"SUB": 3, "XSUB": 2, "DEALER": 2, "STREAM": 2}

SENDS = {"PUSH", "DEALER", "ROUTER", "PUB", "XPUB", "PAIR", "STREAM", "XSUB"}
"""Those that may send at any time."""

RECEIVES = {"PULL", "DEALER", "ROUTER", "SUB", "XSUB", "PAIR", "STREAM", "XPUB"}

TOPICS = (b"", b"a", b"ab", b"b", b"long-topic-" + b"x" * 300)

SIZES = (0, 1, 20, 200, 300, 3_000, 100_000)

BAD_ADDRESSES = (
    "",
    "tcp://",
    "tcp://127.0.0.1",
    "tcp://127.0.0.1:",
    "tcp://127.0.0.1:-1",
    "tcp://127.0.0.1:port",
    "tcp:/127.0.0.1:7000",
    "udp//127.0.0.1:7000",
    "nonsense://127.0.0.1:7000",
    "tcp://*:7000",
    "tcp://127.0.0.1:*",
)


def generate(seed: int) -> Program:
    """Return the program of a seed."""
    return _Draft(seed).draw()


class _Draft:
    """A program that is being drawn, and what will be so at the point that is reached."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        kinds = list(PAIRS)
        self._kind = self._random.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])[0]
        self._steps: list[Step] = []
        self._numbers: dict[str, int] = {}
        alone = self._kind in ("PAIR", "REP")
        self._far_names = [
            f"f{n}" for n in range(1 if alone else self._random.choice((1, 1, 2, 3)))
        ]
        self._near: list[Declaration] = []
        self._most = 1 if alone else 2
        # The state at this point: what is open, how often it is connected, who is up.
        self._open: list[str] = []
        self._connects: dict[tuple[str, str], int] = {}
        self._up: set[str] = set()
        # Peers for which libzmq may still have something of connections that were given up.
        self._owed: set[str] = set()
        self._settled = True
        self._topics: dict[str, list[bytes]] = {}

        self._far_kind = self._random.choice(PAIRS[self._kind])
        self._far = [
            Declaration(name, self._far_kind, self._far_options(name)) for name in self._far_names
        ]
        if not alone and self._kind != "STREAM" and self._chance(0.07):
            self._far.append(Declaration(f"f{len(self._far)}", "MUTE"))

    def draw(self) -> Program:
        for name in self._far_names:
            if self._chance(0.55):
                self._bind(name)
        self._open_one()
        moves: list[tuple[float, Callable[[], None]]] = [
            (4, self._traffic),
            (2, self._connect),
            (1, self._disconnect),
            (1.5, self._come_or_go),
            (1, self._restart),
            (1.5, self._subscriptions),
            (0.7, self._idle),
            (0.5, self._bad_call),
            (0.4, self._set_option),
            (0.4, self._close_one),
            (0.5, self._open_one),
            (0.5, self._fill),
        ]
        for _ in range(self._random.randint(4, 14)):
            self._random.choices([move for _, move in moves], [weight for weight, _ in moves])[0]()
        self._end()
        used = {step.who for step in self._steps}
        return Program(
            self._seed,
            tuple(declared for declared in self._near if declared.name in used),
            tuple(self._far),
            tuple(self._steps),
            own_session=self._chance(0.15),
        )

    # Moves.

    def _open_one(self) -> None:
        if len(self._open) >= self._most:
            return
        name = f"n{len(self._near)}"
        self._near.append(Declaration(name, self._kind, self._near_options(name)))
        self._open.append(name)
        self._step(name, "open")
        if self._kind in ("SUB", "XSUB") and self._chance(0.7):
            self._subscribe(name)
        first = self._random.sample(self._far, self._random.randint(1, len(self._far)))
        for far in first:
            self._connect_pair(name, far.name)

    def _connect(self) -> None:
        if not self._open:
            return
        name = self._any(self._open)
        far = self._any([declared.name for declared in self._far])
        if self._kind == "PAIR" and self._connected(name):
            return
        if self._kind in ("STREAM", "ROUTER") and self._connects.get((name, far)):
            return  # the routing ID is taken
        self._connect_pair(name, far)

    def _connect_pair(self, name: str, far: str) -> None:
        alike = self._far_kind == "ROUTER" and self._option(name, "ROUTING_ID")
        if (alike or self._kind == "PAIR") and far in self._owed:
            return  # which of two is first at a peer that comes, time decides
        if self._kind == "STREAM" or (self._kind == "ROUTER" and self._chance(0.3)):
            if (name, far) in self._connects:
                return  # the routing ID is taken, perhaps still so after a disconnect
            self._step(name, "connect_as", far, f"{far}".encode())
        else:
            self._step(name, "connect", far)
        self._connects[name, far] = self._connects.get((name, far), 0) + 1
        self._settled = False
        if far not in self._far_names and self._chance(0.5) and far not in self._up:
            self._bind(far)  # the one that is mute

    def _disconnect(self) -> None:
        connected = [pair for pair, count in self._connects.items() if count]
        if not connected:
            return
        name, far = self._any(connected)
        if self._kind == "REQ" and far in self._up:
            return  # an answer that it does not read keeps libzmq's connection, for how long ever
        if self._chance(0.6):
            self._drain_all()
        self._settle()
        self._step(name, "disconnect", far)
        self._connects[name, far] = 0
        if far not in self._up:
            self._owed.add(far)
        self._settled = False
        if self._chance(0.2):
            self._step(name, "disconnect", far)
        self._settle()

    def _come_or_go(self) -> None:
        far = self._any([declared.name for declared in self._far])
        if far in self._up:
            self._drain_all()
            self._step(far, "close")
            self._up.discard(far)
            self._settled = False
            self._settle()
        else:
            self._bind(far)

    def _restart(self) -> None:
        if not self._up:
            return
        far = self._any(sorted(self._up))
        if far not in self._far_names:
            return
        self._drain_all()
        self._settle()
        self._step(far, "restart")
        self._settled = False
        self._settle()

    def _idle(self) -> None:
        self._step("", "idle", self._any((0.01, 0.05, 0.2, 0.5)))

    def _bad_call(self) -> None:
        if not self._open:
            return
        name = self._any(self._open)
        kind = self._random.randrange(4)
        if kind == 0:
            self._step(name, "connect_to", self._any(BAD_ADDRESSES))
        elif kind == 1:
            self._step(name, "disconnect_from", self._any((*BAD_ADDRESSES, "tcp://127.9.9.9:7000")))
        elif kind == 2 and self._kind in ("PULL", "SUB"):
            self._step(name, "send", None, (b"never",))
        elif kind == 3 and self._kind in ("PUSH", "PUB"):
            self._step(name, "recv")

    def _set_option(self) -> None:
        if not self._open:
            return
        option = self._any((("RECONNECT_IVL", 10), ("RECONNECT_IVL", 60), ("LINGER", 2000)))
        self._step(self._any(self._open), "set", *option)

    def _close_one(self) -> None:
        if not self._open:
            return
        name = self._any(self._open)
        self._settle()
        if self._chance(0.5):
            self._drain_all()
        # Whether what was sent is gone before a LINGER of 0 is by chance.
        linger = self._any((0, 1500, -1, None) if not self._chance(0.5) else (1500, -1))
        if linger == 0 or linger is None:
            self._drain_all()
        self._step(name, "close", linger)
        self._gone(name)
        if self._chance(0.5):
            self._step(name, *self._any((("recv",), ("connect", "f0"), ("disconnect", "f0"))))
        if self._up:
            self._step("", "drain_all", tuple(sorted(self._up)), 0.2)
        self._settle()

    def _fill(self) -> None:
        """Send until it blocks, where nobody takes anything."""
        for name in self._open:
            if (
                self._kind in ("PUSH", "DEALER", "PAIR")
                and not any(self._connects.get((name, far)) for far in self._up)
                and self._option(name, "SNDHWM")
            ):
                self._settle()
                self._step(name, "fill", self._payload(name, 20))
                return

    # Messages.

    def _traffic(self) -> None:
        if not self._open:
            return
        self._settle()
        name = self._any(self._open)
        if self._kind == "REQ":
            self._request(name)
        elif self._kind == "REP":
            self._requested(name)
        elif self._kind in ("PUB", "XPUB"):
            self._step(name, "heard")
            self._send_some(name)
            self._drain_all()
        elif self._chance(0.5) and self._kind in SENDS:
            self._send_some(name)
            if self._chance(0.8):
                self._serve_all()
                self._drain_all()
        else:
            self._sent_to(name)

    def _request(self, name: str) -> None:
        if not self._connected(name):
            return  # a tunnel that was disconnected does not last for as long as that would take
        self._step(name, "send", None, self._parts(name))
        if self._chance(0.9):
            self._serve_all()
        if self._chance(0.9):
            self._step(name, "recv")
        if self._chance(0.1):
            self._step(name, "recv")

    def _requested(self, name: str) -> None:
        for far in sorted(self._up):
            parts = self._parts(far)
            self._step(far, "send", None, (b"", *parts) if self._far_kind == "DEALER" else parts)
        self._step(name, "serve")
        self._drain_all()

    def _send_some(self, name: str) -> None:
        for _ in range(self._random.choice((1, 1, 3, 10, 40))):
            to = None
            if self._kind in ("ROUTER", "STREAM"):
                to = self._any(self._far_names)
            parts = self._parts(name)
            if self._far_kind == "REP" and self._chance(0.95):
                parts = (b"", *parts)  # or it is no request
            if self._kind == "STREAM" and to in self._owed:
                continue  # whether it is refused depends on how far libzmq is
            self._step(name, "send", to, parts)

    def _sent_to(self, name: str) -> None:
        """Let a peer send."""
        ups = [
            far
            for far in self._far_names
            if far in self._up
            and (self._chance(0.1) or any(self._connects.get((near, far)) for near in self._open))
        ]
        if not ups or self._kind == "REP":
            return
        far = self._any(ups)
        for _ in range(self._random.choice((1, 3, 20))):
            to = name if self._far_kind in ("ROUTER",) else None
            if self._far_kind in ("SUB", "REP", "PULL"):
                return
            if (
                self._far_kind == "STREAM"
                and sum(self._connects.get((near, far), 0) > 0 for near in self._open) != 1
            ):
                return  # to the one that it has heard of last: of several, time decides which
            self._step(far, "send", to, self._parts(far))
        if self._chance(0.8):
            self._step(name, "drain")

    def _parts(self, sender: str) -> tuple[bytes, ...]:
        conflate = any(near.options.get("CONFLATE") for near in self._near)
        single = conflate or self._kind == "STREAM" or self._chance(0.7)
        size = self._any(SIZES)
        payload = self._payload(sender, size)
        if single:
            return (payload,)
        parts = [self._any((b"", b"part", b"p" * 300)) for _ in range(self._random.randint(1, 3))]
        if self._kind in ("SUB", "XSUB", "PUB", "XPUB"):
            return (payload, *parts)
        return (*parts, payload)

    def _payload(self, sender: str, size: int) -> bytes:
        number = self._numbers[sender] = self._numbers.get(sender, -1) + 1
        topic = b""
        if self._kind in ("SUB", "XSUB", "PUB", "XPUB"):
            # Upstream of an XPUB, what starts with 0 or 1 would be a subscription.
            topic = self._any((b"a|", b"abc|", b"b|", b"c|", TOPICS[-1] + b"|"))
        return topic + f"{sender}:{number}|".encode() + b"." * size

    # Subscriptions.

    def _subscriptions(self) -> None:
        if self._kind in ("SUB", "XSUB") and self._open:
            name = self._any(self._open)
            for _ in range(self._random.choice((1, 1, 2, 5))):
                self._subscribe(name)
        elif self._kind in ("PUB", "XPUB"):
            ups = sorted(self._up & set(self._far_names))
            if ups:
                self._subscribe(self._any(ups))

    def _subscribe(self, name: str) -> None:
        if name in self._topics and self._option(name, "CONFLATE"):
            return  # it keeps one message upstream as well: which of several comes, time decides
        topics = self._topics.setdefault(name, [])
        if topics and self._chance(0.35):
            topic = self._any(topics)
            topics.remove(topic)
            self._step(name, "unsubscribe", topic)
        else:
            # A topic once, since XSUB passes on all and SUB counts.
            fresh = [topic for topic in TOPICS if topic not in topics]
            if fresh:
                topic = self._any(fresh)
                topics.append(topic)
                self._step(name, "subscribe", topic)
        self._settled = False

    # The end.

    def _end(self) -> None:
        late = tuple(far for far in self._far_names if far not in self._up and self._chance(0.5))
        for far in self._far_names:
            if far not in self._up and far not in late:
                self._bind(far)
        self._settle()
        self._serve_all()
        self._drain_all()
        for name in list(self._open):
            if self._chance(0.5):
                self._step(name, "close", self._any((1500, -1)))
                self._gone(name)
        how = self._any(("term", "destroy"))
        self._step("", "end_with", how, 1500, late)
        if self._far_kind == "REP":
            # Without an answer it would take the first question only: whose that is, time decides.
            for far in self._far_names:
                self._step(far, "serve", 0.4)
        else:
            self._step("", "drain_all", tuple(self._far_names), 0.4)

    # What moves are made of.

    def _bind(self, far: str) -> None:
        self._step(far, "bind")
        self._up.add(far)
        if far in self._owed:
            # No wait for connections sees those: what they bring is to come before the next step.
            self._owed.discard(far)
            self._step("", "idle", 0.5)
        self._settled = False
        if self._kind in ("PUB", "XPUB") and self._chance(0.7) and far in self._far_names:
            self._subscribe(far)

    def _settle(self) -> None:
        if not self._settled:
            self._step("", "settle")
            self._settled = True

    def _serve_all(self) -> None:
        for far in self._far_names:
            if far in self._up and self._far_kind in ("REP", "ROUTER", "DEALER", "PAIR", "STREAM"):
                answer = self._far_kind == "REP" or self._kind == "REQ" or self._chance(0.5)
                if self._kind in ("ROUTER", "STREAM") and self._far_kind != "REP":
                    answer = False
                self._step(far, "serve" if answer else "drain")

    def _drain_all(self) -> None:
        self._settle()
        names = [] if self._far_kind == "REP" else sorted(self._up & set(self._far_names))
        if self._kind in RECEIVES:
            names += self._open
        if names:
            self._step("", "drain_all", tuple(names))

    def _gone(self, name: str) -> None:
        self._open.remove(name)
        self._settled = False
        for pair in [pair for pair in self._connects if pair[0] == name]:
            if self._connects.pop(pair) and pair[1] not in self._up:
                self._owed.add(pair[1])

    def _connected(self, name: str) -> bool:
        return any(count for (near, _), count in self._connects.items() if near == name)

    def _option(self, name: str, option: str) -> Any:
        ends = {declared.name: declared for declared in (*self._near, *self._far)}
        return ends[name].options.get(option)

    def _near_options(self, name: str) -> dict[str, Any]:
        options: dict[str, Any] = {}
        may: list[tuple[float, str, Any]] = [
            (0.6, "RECONNECT_IVL", self._any((10, 20, 50))),
            (0.2, "RECONNECT_IVL_MAX", self._any((100, 200))),
            (0.2, "SNDHWM", self._any((1, 5, 100))),
            (0.1, "RCVHWM", self._any((1, 5, 100))),
            (0.1, "HANDSHAKE_IVL", 150),
            (0.1, "HEARTBEAT_IVL", 100),
            (0.1, "LINGER", 1500),
            (0.1, "TCP_KEEPALIVE", 1),
            (0.1, "SNDTIMEO", self._any((0, 50))),
        ]
        if self._kind in ("PUSH", "DEALER", "REQ"):
            may.append((0.2, "IMMEDIATE", 1))
        if self._kind in ("SUB", "PULL"):
            may.append((0.1, "CONFLATE", 1))
        if self._kind == "REQ":
            may += [(0.4, "REQ_RELAXED", 1), (0.4, "REQ_CORRELATE", 1)]
        if self._kind in ("DEALER", "ROUTER", "REQ", "REP"):
            may.append((0.7 if self._kind != "REQ" else 0.3, "ROUTING_ID", name.encode()))
        if self._kind in ("DEALER", "ROUTER") and self._far_kind == "ROUTER":
            may.append((0.3, "PROBE_ROUTER", 1))
        if self._kind == "ROUTER":
            may.append((0.5, "ROUTER_MANDATORY", 1))
        for chance, option, value in may:
            if self._chance(chance):
                options[option] = value
        if self._kind in ("PUB", "XPUB", "XSUB", "ROUTER"):
            options.pop("SNDHWM", None)  # they drop what exceeds it, which is a matter of time
        if self._far_kind == "XPUB" and "RCVHWM" in options:
            del options["RCVHWM"]
        return options

    def _far_options(self, name: str) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self._kind == "ROUTER":
            options["ROUTING_ID"] = name.encode()
        if self._far_kind == "ROUTER" and self._chance(0.3):
            options["ROUTER_MANDATORY"] = 1
        if self._far_kind in ("PULL", "DEALER") and self._chance(0.1):
            options["RCVHWM"] = 1
        return options

    def _step(self, who: str, do: str, *args: Any) -> None:
        self._steps.append(Step(who, do, args))

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _any(self, choices: Any) -> Any:
        return self._random.choice(choices)
