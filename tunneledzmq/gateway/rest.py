"""How long a gateway goes on without tunnels (ssh_config(5): ControlPersist)."""

from __future__ import annotations

__all__ = ["Rest"]

_NEVER = float("inf")

# Seconds for which the first tunnel is waited for: the connect that started the gateway may have
# been interrupted.
_FIRST = 60.0


class Rest:
    """When it may end. No clock and no I/O: it is told the time.

    ==================================================  ==========================================
    the first of these that holds                       verdict
    ==================================================  ==========================================
    it has tunnels, or some wait for the session        go on
    the program has ended                               end
    it has had none yet, and runs for less than 60 s    go on until then
    it has had none yet                                 end
    there is no session that could be kept              end
    it has had none for less than `persist` seconds     go on until then
    otherwise                                           end
    ==================================================  ==========================================

    Args:
        persist: seconds.
    """

    def __init__(self, persist: float) -> None:
        self._persist = persist
        self._since: float | None = None

    def look(
        self, now: float, *, tunnels: int, used: bool, session: bool, orphaned: bool
    ) -> float | None:
        """Say whether to go on.

        Args:
            now: the time (seconds, time.monotonic).
            tunnels: how many there are, those that wait for the session included.
            used: whether there has been one.
            session: whether there is an SSH session.
            orphaned: whether the program has ended.

        Returns:
            When to look again; `None`: it ends.
        """
        if tunnels:
            self._since = None
            return _NEVER
        if orphaned:
            return None
        if used and not session:
            return None
        if self._since is None:
            self._since = now
        until = self._since + (self._persist if used else _FIRST)
        return until if now < until else None
