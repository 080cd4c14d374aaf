"""A program: what the sockets and their peers do, step by step, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Declaration:
    """A socket: one of the program's (`n0`, `n1`, ...), or a peer (`f0` at address A0, ...)."""

    name: str
    kind: str
    """Its type, such as `DEALER`; for a peer also `MUTE`, which accepts and says nothing."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """By their names in libzmq, without the prefix."""

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name} = {self.kind}({options})"


@dataclass(frozen=True)
class Step:
    """Something that one of the sockets does, or (with `who` empty) all of them."""

    who: str
    do: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        call = f"{self.do}({', '.join(map(_short, self.args))})"
        return f"{self.who}.{call}" if self.who else call


@dataclass(frozen=True)
class Program:
    """What is run on both ways."""

    seed: int
    near: tuple[Declaration, ...]
    far: tuple[Declaration, ...]
    steps: tuple[Step, ...]
    own_session: bool = False
    """Whether the tunnelled one has a `TunneledContext` with a login of its own."""

    def without(self, start: int, end: int) -> Program:
        """Return the program without some of its steps."""
        return self.with_steps(self.steps[:start] + self.steps[end:])

    def with_steps(self, steps: tuple[Step, ...]) -> Program:
        return Program(self.seed, self.near, self.far, steps, self.own_session)

    def __str__(self) -> str:
        used = {step.who for step in self.steps}
        lines = [str(declared) for declared in (*self.near, *self.far) if declared.name in used]
        lines += [f"{number:3} {step}" for number, step in enumerate(self.steps)]
        session = "a session of its own" if self.own_session else "a session shared with others"
        return f"program {self.seed}, {session}:\n" + "\n".join(f"  {line}" for line in lines)


def _short(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 40:
        return f"{value[:16]!r}... ({len(value)} bytes)"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_short, value))}]"
    return repr(value)
