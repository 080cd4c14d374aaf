"""What was sent and what arrived, by number."""

from __future__ import annotations

from dataclasses import dataclass, field

SIZES = (16, 200, 2_000, 20_000)


def size_of(number: int) -> int:
    """Return the size of a message in bytes, which both sides know by its number."""
    return SIZES[(number * 2654435761 >> 7) % len(SIZES)]


def message(number: int) -> bytes:
    """Return a message that starts with its number in eight bytes."""
    return number.to_bytes(8, "big").ljust(size_of(number), b".")


@dataclass
class Ledger:
    """What has arrived at one end of a way."""

    received: int = 0
    last: int = -1
    missing: set[int] = field(default_factory=set)
    """Numbers that later ones have overtaken."""
    lost_bytes: int = 0
    """Of those that are missing."""
    holes: int = 0
    """Pieces that are missing."""
    twice: int = 0
    disordered: int = 0
    damaged: int = 0

    def receive(self, data: bytes, size: int | None = None) -> None:
        """Note that a message arrived, which has the size of its number unless it is given."""
        number = int.from_bytes(data[:8], "big")
        if number in self.missing:
            self.disordered += 1
        elif number <= self.last:
            self.twice += 1
        elif number > self.last + 1:
            overtaken = range(self.last + 1, number)
            self.missing.update(overtaken)
            self.lost_bytes += sum(map(size_of, overtaken))
            self.holes += 1
        self.damaged += len(data) != (size or size_of(number))
        self.received += 1
        self.last = max(self.last, number)

    def report(self) -> dict[str, int]:
        """Return its figures."""
        return {
            "received": self.received,
            "last": self.last,
            "lost": len(self.missing),
            "lost_bytes": self.lost_bytes,
            "holes": self.holes,
            "twice": self.twice,
            "disordered": self.disordered,
            "damaged": self.damaged,
        }
