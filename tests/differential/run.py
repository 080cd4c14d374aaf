"""Carries a program out on one way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from errno import errorcode
from typing import Any

import zmq

from tests.differential.ends import PROBE, End, set_options
from tests.differential.far import Far
from tests.differential.near import Near
from tests.differential.program import Program, Step
from tests.differential.seen import Events, Seen
from tests.differential.ways import Way, own_host

STILL = 0.03
"""Seconds for which a state must last to be one."""

ENOUGH = 3.0
"""Seconds in which plain TCP reaches what it reaches."""

_ERRNOS = {**errorcode, **{number.value: number.name for number in zmq.Errno}}

CONFLATED = 0.3
"""Seconds in which the last message comes, whatever happened to those before."""

END = 4.0
"""Seconds that the end of a context may take, whatever was seen before."""

PATIENCE = 6.0
"""Seconds for which a second run waits for what the first one has seen."""


class Run:
    """One run of a program.

    Args:
        program: what to do.
        way: how its sockets connect.
        first: what was seen on another way. This run waits until it has seen the same, since only
            the time that it takes may differ.
        tempo: how much more time to take for everything.
        patience: seconds for which a second run waits for what the first one has seen.
    """

    def __init__(
        self,
        program: Program,
        way: Way,
        first: Seen | None = None,
        *,
        tempo: float = 1,
        patience: float = PATIENCE,
    ) -> None:
        self._program = program
        self._way = way
        self._first = first
        self._tempo = tempo
        self._patience = patience
        self._host = own_host()
        self._far_ctx = zmq.Context()
        self._declared = {declared.name: declared for declared in program.near}
        self._near: dict[str, Near] = {}
        self._far = {far.name: Far(far, self._far_ctx, self._host) for far in program.far}
        self._markers = 0
        self._seen = Seen()

    def run(self) -> Seen:
        """Run the program to its end, and return what it saw."""
        start = time.monotonic()
        for number, step in enumerate(self._program.steps):
            self._number = number
            self._state = ""
            self._seen.results.append(self._do(step))
            self._seen.states.append(self._state)
            self._watch()
            self._seen.counts.append(self._count())
        self._seen.seconds = time.monotonic() - start
        self._finish()
        return self._seen

    def _do(self, step: Step) -> str:
        end = self._end(step.who)
        if step.who and end is None and step.do != "open":
            return "no socket"
        if isinstance(end, Far) and not end.up and step.do not in ("bind", "drain"):
            return "not up"
        target: list[Any] = [step.who] if step.do == "open" else [end] if end else []
        try:
            result = getattr(self, f"_{step.do}")(*target, *step.args)
        except Exception as exc:
            return error(exc)
        return "ok" if result is None else str(result)

    def _end(self, name: str) -> End | None:
        return self._near.get(name) or self._far.get(name)

    # What the program's sockets do.

    def _open(self, name: str) -> None:
        self._near[name] = Near(self._declared[name], self._way)

    def _connect(self, near: Near, peer: str) -> None:
        near.connect(peer, self._far[peer].address)

    def _connect_as(self, near: Near, peer: str, routing_id: bytes) -> None:
        near.open.setsockopt(zmq.CONNECT_ROUTING_ID, routing_id)
        near.connect(peer, self._far[peer].address)

    def _connect_to(self, near: Near, addr: str) -> None:
        """Connect to an address that is malformed."""
        # libzmq looks at it after what has waited for a call into the socket.
        near.open.getsockopt(zmq.EVENTS)
        self._way.connect(near.open, addr)

    def _disconnect(self, near: Near, peer: str) -> None:
        near.disconnect(peer, self._far[peer].address)

    def _disconnect_from(self, near: Near, addr: str) -> None:
        """Disconnect from an address that was never connected."""
        near.open.disconnect(addr)

    def _set(self, near: Near, name: str, value: Any) -> None:
        set_options(near.open, {name: value})

    def _fill(self, near: Near, message: bytes) -> int:
        """Send until it takes no more; return how many it took."""
        for taken in range(1000):
            try:
                near.open.send(message, zmq.DONTWAIT)
            except zmq.Again:
                return taken
        return 1000

    def _recv(self, near: Near) -> str:
        if not near.open.poll(self._wait_for("a message")):
            pass  # it says itself what it is that there is not
        return near.receive()

    def _close(self, end: End, linger: int | None = None) -> None:
        if isinstance(end, Far):
            end.close()
        elif isinstance(end, Near):
            end.close(linger)

    def _wait_for(self, what: str) -> int:
        """Return how many milliseconds to wait for something to be received."""
        if self._first is not None and not self._first.results[self._number].startswith("Again"):
            return int(self._patience * 1000)
        return int(300 * self._tempo)

    # What both do.

    def _send(self, end: End, to: str | None, parts: tuple[bytes, ...]) -> None:
        waits = self._first is not None and self._first.results[self._number] == "ok"
        # A look is a call into the socket, which takes a message in advance: so both runs look.
        end.open.poll(int(self._patience * 1000) if waits else 0, zmq.POLLOUT)
        end.send(to, parts)

    def _subscribe(self, end: End, topic: bytes) -> None:
        if isinstance(end, Far):
            end.subscribed.add(topic)
        end.subscribe(topic)

    def _unsubscribe(self, end: End, topic: bytes) -> None:
        if isinstance(end, Far):
            end.subscribed.discard(topic)
        end.unsubscribe(topic)

    def _drain(self, end: End, quiet: float = 0.06) -> None:
        self._take_all([end], quiet, answer=False)

    def _serve(self, end: End, quiet: float = 0.06) -> None:
        """Receive, and answer each message."""
        self._take_all([end], quiet, answer=True)

    def _take_all(self, ends: Sequence[End], quiet: float, answer: bool) -> None:
        ends = [end for end in ends if end.sock is not None and not end.sock.closed]
        wanted = None if self._first is None else self._first.counts[self._number]
        if any(end.conflates for end in ends):
            # How many there are is by chance, and the last one is what counts.
            wanted, quiet = None, CONFLATED
        start = last = time.monotonic()
        while ends:
            if sum(end.take(answer) for end in ends):
                last = time.monotonic()
                continue
            now = time.monotonic()
            if wanted is not None and self._count() < wanted:
                if now - start > self._patience:
                    self._lose_patience()
                    return
            elif now - last > (quiet * self._tempo if wanted is None else STILL):
                return
            time.sleep(0.003)
            self._watch()

    def _lose_patience(self) -> None:
        """Wait less for all that is to come: that they differ is known by now."""
        if self._first is not None:
            self._patience = min(self._patience, 1)

    def _watch(self) -> None:
        """Read the monitors often enough to know when it was that something happened."""
        for near in self._near.values():
            near.monitor.read()

    def _count(self) -> int:
        """Return how many messages all of them have received so far."""
        return sum(end.count for end in (*self._near.values(), *self._far.values()))

    # What the peers do.

    def _bind(self, far: Far) -> None:
        far.bind()

    def _restart(self, far: Far) -> None:
        far.close()
        far.bind()

    # What happens to all of them.

    def _drain_all(self, names: tuple[str, ...], quiet: float = 0.06) -> None:
        found = [self._end(name) for name in names]
        self._take_all([end for end in found if end is not None], quiet, answer=False)

    def _idle(self, seconds: float) -> None:
        end = time.monotonic() + seconds * self._tempo
        while time.monotonic() < end:
            time.sleep(0.005)
            self._watch()

    def _settle(self) -> None:
        """Wait until all connections are made that can be made."""
        start = time.monotonic()
        state, since = "", start
        while True:
            for near in self._near.values():
                near.look()
            for far in self._far.values():
                far.look()
            now = time.monotonic()
            if (new := self._connections()) != state:
                state, since = new, now
            if self._first is None:
                settled, patience = self._all_connected(), ENOUGH * self._tempo
            else:
                settled, patience = state == self._first.states[self._number], self._patience
            if settled and self._mute_reached() and now - since > STILL * self._tempo:
                break
            if now - start > patience:
                self._lose_patience()
                break
            time.sleep(0.005)
        self._state = state

    def _mute_reached(self) -> bool:
        """Tell whether the peers have all connections that accept them and say nothing."""
        return all(
            near.monitor.reaches(far.name)
            for near in self._near.values()
            for far in self._far.values()
            if far.kind == "MUTE" and far.up and not near.open.closed and near.connects[far.name]
        )

    def _connections(self) -> str:
        near = {
            f"{near.name}-{peer}": live
            for near in self._near.values()
            for peer, live in sorted(near.monitor.live().items())
            if peer not in near.resumed and not near.open.closed
        }
        far = {far.name: far.live for far in self._far.values() if far.live}
        topics = {
            far.name: {topic[:8]: count for topic, count in sorted((+far.topics).items())}
            for far in self._far.values()
            if far.up
        }
        asked = {name: found for name, found in topics.items() if found}
        return f"{near} {far} {asked}" if asked else f"{near} {far}"

    def _all_connected(self) -> bool:
        sockets = [near for near in self._near.values() if not near.open.closed]
        for far in self._far.values():
            told = [near for near in sockets if far.name not in near.resumed]
            live = [near.monitor.live()[far.name] for near in told]
            if far.kind == "MUTE":
                continue
            if not far.up:
                if any(live):
                    return False
                continue
            if live != [near.expects(far.name) for near in told]:
                return False
            if far.live != sum(near.expects(far.name) for near in sockets):
                return False
        return True

    def _heard(self, near: Near) -> None:
        """Wait until each SUB's subscriptions have come to a PUB, by what it publishes."""
        self._markers += 1
        marker = PROBE + b"%d" % self._markers
        waiting = {
            far
            for far in self._far.values()
            if far.kind == "SUB" and far.sock is not None and near.connects[far.name]
        }
        for far in waiting:
            far.open.setsockopt(zmq.SUBSCRIBE, marker)
        first = self._first.results[self._number] if self._first is not None else ""
        patience = self._patience if first == "ok" else ENOUGH * self._tempo
        deadline = time.monotonic() + patience
        asked = list(waiting)
        while waiting and time.monotonic() < deadline:
            near.open.send(marker, zmq.DONTWAIT)
            time.sleep(0.01)
            waiting = {far for far in waiting if not _takes(far, marker)}
        for far in asked:
            far.open.setsockopt(zmq.UNSUBSCRIBE, marker)
        if waiting:
            raise TimeoutError

    def _end_with(self, how: str, linger: int | None, late: tuple[str, ...] = ()) -> str:
        """End the context; peers that come late come when it waits already."""
        for near in self._near.values():
            self._listen_to_the_end(near)
        ended = threading.Thread(target=self._end_context, args=(how, linger), daemon=True)
        ended.start()
        ended.join(0.3 * self._tempo if late else max(self._patience, END))
        was_waiting = ended.is_alive()
        for name in late:
            if not self._far[name].up:
                self._far[name].bind()
        if was_waiting:
            ended.join(max(self._patience, END))
        self._seen.hung = ended.is_alive()
        return ("waited, " if was_waiting else "") + ("hangs" if self._seen.hung else "ended")

    def _end_context(self, how: str, linger: int | None) -> None:
        if how == "destroy":
            self._way.ctx.destroy(linger)
        else:
            for near in self._near.values():
                near.open.close(linger)
            # Not before: libzmq's own thread would stand still at the next event.
            for near in self._near.values():
                near.monitor.close()
            self._way.ctx.term()

    def _listen_to_the_end(self, near: Near) -> None:
        """Hear what the monitor of a closed socket still says."""
        if not near.open.closed:
            return
        heard = self._first is not None and any(
            events.stopped
            for name, events in self._first.events.items()
            if name.startswith(f"{near.name}-")
        )
        _wait(lambda: near.monitor.stopped, near.monitor.read, self._patience if heard else 0.3)

    def _finish(self) -> None:
        for end in (*self._near.values(), *self._far.values()):
            self._seen.received[end.name] = end.by_sender()
        for near in self._near.values():
            for peer, log in near.monitor.logs.items():
                self._seen.events[f"{near.name}-{peer}"] = Events(
                    log.order.replace("FD", "D"),
                    log.retries,
                    log.down,
                    peer in near.resumed or (peer in self._far and self._far[peer].kind == "MUTE"),
                    near.monitor.stopped,
                )
            self._seen.repeated |= {f"{near.name}-{peer}" for peer in near.repeated | near.resumed}
        for far in self._far.values():
            far.close()
        self._far_ctx.destroy(linger=0)
        if not self._way.ctx.closed and not self._seen.hung:
            self._way.ctx.destroy(linger=0)


def error(exc: BaseException) -> str:
    """Return what a program can catch: the nearest class of pyzmq or Python, and the errno."""
    if not isinstance(exc, zmq.ZMQError):
        return type(exc).__name__
    name = next(cls.__name__ for cls in type(exc).__mro__ if cls.__module__.startswith("zmq."))
    return f"{name}({_ERRNOS.get(exc.errno or 0, exc.errno)})"


def _takes(far: Far, marker: bytes) -> bool:
    """Take what a peer has received, and tell whether the marker was in it."""
    found = False
    while True:
        try:
            frames = far.open.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return found
        found = found or frames == [marker]
        far._note(frames)


def _wait(condition: Callable[[], bool], look: Callable[[], None], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
        look()
