"""When to look at each of many things, by more than one clock."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Look", "Looks"]

Item = TypeVar("Item")

_NEVER = float("inf")


class Look(NamedTuple):
    """When to look at something again, if nothing happens to it before: when the first is due."""

    at: float = _NEVER
    """Our time (time.monotonic)."""

    program_at: float = _NEVER
    """Of the program's clock."""


class Looks(Generic[Item]):
    """What is looked at when something happens to it, or when its time has come. No clock, no I/O.

    ==========================  ===============================================================
    on                          it is looked at
    ==========================  ===============================================================
    something happens to it     in the next round
    a look is arranged          in the round in which the first of its times has come; at times
                                that were arranged before no more
    it is forgotten             no more
    ==========================  ===============================================================

    What happens to it while it is looked at is not lost: it is looked at again in the next round.
    """

    def __init__(self) -> None:
        self._named: set[Item] = set()
        self._by_time = _Calendar[Item]()
        self._by_program = _Calendar[Item]()

    def __bool__(self) -> bool:
        return bool(self._named or self._by_time or self._by_program)

    def name(self, item: Item) -> None:
        """Look at it in the next round: something has happened to it."""
        self._named.add(item)

    def arrange(self, item: Item, look: Look) -> None:
        """Look at it again at these times, and at no others that were arranged before."""
        self._by_time.put(item, look.at)
        self._by_program.put(item, look.program_at)

    def forget(self, item: Item) -> None:
        """Look at it no more."""
        self._named.discard(item)
        self.arrange(item, Look())

    def round(self, now: float, program_clock: float) -> set[Item]:
        """Begin a round: return what is to be looked at, for each of which a look is arranged."""
        items, self._named = self._named, set()
        items.update(self._by_time.due(now), self._by_program.due(program_clock))
        return items

    @property
    def next_round(self) -> float:
        """When the next one is (time.monotonic), unless something happens or the program runs."""
        return -_NEVER if self._named else self._by_time.first


class _Calendar(Generic[Item]):
    """Which items have a time, and which of them is the first."""

    def __init__(self) -> None:
        self._times: dict[Item, float] = {}
        # Entries of another time than the item has now are out of date.
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._times)

    def put(self, item: Item, time: float) -> None:
        """Give an item another time; none if that is infinity."""
        if time == _NEVER:
            self._times.pop(item, None)
        elif self._times.get(item) != time:
            self._times[item] = time
            heappush(self._heap, (time, next(self._numbers), item))
            if len(self._heap) > 2 * len(self._times) + 64:
                self._heap = [(at, next(self._numbers), item) for item, at in self._times.items()]
                heapify(self._heap)

    @property
    def first(self) -> float:
        """The first time of all."""
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else _NEVER

    def due(self, time: float) -> Iterator[Item]:
        """Take those away whose time has come."""
        while self.first <= time < _NEVER:
            item = heappop(self._heap)[2]
            del self._times[item]
            yield item
