"""What a program saw on one way."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Events:
    """What a monitor told of one address."""

    order: str
    """A letter for each event, see `monitors.TOKENS`."""
    retries: int
    down: float
    """Seconds without a connection that is to be."""
    uncounted: bool
    """Whether how often there was a connection is not to be compared: the peer says nothing, so
    that libzmq tries as often as there is time; or what it still does for a connection that was
    given up mingles with the next one (see `Near.resumed`)."""
    stopped: bool
    """Whether the monitor was heard to its end."""


@dataclass
class Seen:
    """What a program saw; and when it had seen it, for the other run to wait for the same."""

    results: list[str] = field(default_factory=list)
    """What each step returned or raised."""
    counts: list[int] = field(default_factory=list)
    """How many messages had been received after each step."""
    states: list[str] = field(default_factory=list)
    """Connections and topics, as they were when a step had waited for them."""
    received: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By receiver and sender."""
    repeated: set[str] = field(default_factory=set)
    """Pairs with several connections at once, whose messages and events mingle by chance."""
    events: dict[str, Events] = field(default_factory=dict)
    """By socket and peer."""
    hung: bool = False
    """Whether it did not come to its end."""
    seconds: float = 0
