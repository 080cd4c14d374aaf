"""The tunnels of one socket, by what they are called."""

from __future__ import annotations

from collections.abc import Iterator

from .tunnel import Tunnel

__all__ = ["AddressedTunnels"]

# As many are kept before the closed ones among them are looked for.
_FEW = 16


class AddressedTunnels:
    """The tunnels of one socket, by the addresses given to `connect`, and their local endpoints.

    A socket may have thousands. Nothing that is called for each connect looks at all of them.
    """

    def __init__(self) -> None:
        # The address and the local endpoint of each.
        self._names: dict[Tunnel, tuple[str, str]] = {}
        # The same the other way round (a dict for its order).
        self._named: dict[str, dict[Tunnel, None]] = {}
        # When there are as many, closed ones are forgotten.
        self._many = _FEW

    def __iter__(self) -> Iterator[Tunnel]:
        return iter(list(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def add(self, tunnel: Tunnel, addr: str) -> None:
        """Keep a tunnel to an address."""
        if len(self._names) >= self._many:
            self._forget_closed()
        self._names[tunnel] = addr, tunnel.local
        for name in self._names[tunnel]:
            self._named.setdefault(name, {})[tunnel] = None

    def discard(self, tunnel: Tunnel) -> None:
        """Forget a tunnel, if it is there."""
        for name in self._names.pop(tunnel, ()):
            named = self._named.get(name, {})
            named.pop(tunnel, None)
            if not named:
                self._named.pop(name, None)

    def to(self, addr: str) -> list[Tunnel]:
        """Return the open ones to an address, as it was given."""
        return [
            tunnel
            for tunnel in self.named(addr)
            if self._names[tunnel][0] == addr and tunnel.state != "closed"
        ]

    def named(self, *names: str) -> list[Tunnel]:
        """Return those to an address, or with a local endpoint, that were not given up.

        To one that has ended by itself libzmq is still connected.
        """
        found = {tunnel: None for name in names for tunnel in self._named.get(name, ())}
        return [tunnel for tunnel in found if tunnel._closing is None]

    def _forget_closed(self) -> None:
        for tunnel in self:
            if tunnel._closing is not None and tunnel.state == "closed":
                self.discard(tunnel)
        self._many = max(_FEW, 2 * len(self._names))
