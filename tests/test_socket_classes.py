"""A context's default is never skipped, whatever class its sockets have."""

from __future__ import annotations

import asyncio
import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
import zmq.asyncio

import tunneledzmq.asyncio
from tests.peers import Peer, round_trip
from tests.polling import wait_until
from tests.programs import run_program
from tunneledzmq import SSHOptions, TunneledContext, TunneledSocket


class Counting(zmq.Socket[bytes]):
    """A program's own sockets, which know nothing of tunnels."""

    sent = 0
    connected: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connected = []

    def connect(self, addr: str) -> Any:  # type: ignore[override]
        self.connected.append(addr)
        return super().connect(addr)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        self.sent += 1
        return super().send(*args, **kwargs)


class Naming(zmq.Socket[bytes]):
    """Calls pyzmq's method by its name."""

    def connect(self, addr: str) -> Any:  # type: ignore[override]
        return zmq.Socket.connect(self, addr)


class Stateful(zmq.Socket[bytes]):
    """Has names for what it keeps that come to mind easily."""

    _connected = _open = _failed = _started = False
    _pool = None

    def connect(self, addr: str) -> Any:  # type: ignore[override]
        connecting = super().connect(addr)
        self._connected = self._open = True
        return connecting


class Slotted(zmq.Socket[bytes]):
    """Has a place of its own for what it keeps."""

    __slots__ = ("kept",)


class Final(zmq.Socket[bytes]):
    """No class can be derived from it."""

    def __init_subclass__(cls) -> None:
        raise TypeError("no class is derived from Final")


class OwnContext(TunneledContext):
    _socket_class = Counting


class MakingContext(TunneledContext):
    def socket(self, socket_type: int, *args: Any, **kwargs: Any) -> Any:
        return Counting(self, socket_type)


shadow = zmq.Context.shadow

WAYS: dict[str, tuple[type[TunneledContext], Callable[[Any], Any]]] = {
    "asked for": (TunneledContext, lambda ctx: ctx.socket(zmq.REQ, socket_class=zmq.Socket)),
    "of its own": (TunneledContext, lambda ctx: ctx.socket(zmq.REQ, socket_class=Counting)),
    "with a state": (TunneledContext, lambda ctx: ctx.socket(zmq.REQ, socket_class=Stateful)),
    "with slots": (TunneledContext, lambda ctx: ctx.socket(zmq.REQ, socket_class=Slotted)),
    "made": (
        TunneledContext,
        lambda ctx: ctx.socket(zmq.REQ, socket_class=lambda *a: Counting(*a)),
    ),
    "the context's": (OwnContext, lambda ctx: ctx.socket(zmq.REQ)),
    "by the context": (MakingContext, lambda ctx: ctx.socket(zmq.REQ)),
    "by hand": (TunneledContext, lambda ctx: zmq.Socket(ctx, zmq.REQ)),
    "of its own, by hand": (TunneledContext, lambda ctx: Counting(ctx, zmq.REQ)),
    "that names pyzmq's": (TunneledContext, lambda ctx: ctx.socket(zmq.REQ, socket_class=Naming)),
    "that names it, by hand": (TunneledContext, lambda ctx: Naming(ctx, zmq.REQ)),
    "of a shadow": (TunneledContext, lambda ctx: zmq.Context(ctx).socket(zmq.REQ)),
    "of an address": (TunneledContext, lambda ctx: shadow(ctx.underlying).socket(zmq.REQ)),
}


@pytest.fixture(params=list(WAYS))
def made(request: pytest.FixtureRequest, openssh_options: SSHOptions) -> Iterator[Any]:
    """A socket of a context with a default, in each of the ways to make one."""
    kind, make = WAYS[request.param]
    with kind(ssh=openssh_options) as ctx:
        sock = make(ctx)
        sock.rcvtimeo = sock.sndtimeo = 10_000
        yield sock
        sock.close()


def test_a_socket_of_any_class_connects_through_the_default(made: Any, echo: Peer) -> None:
    made.connect(echo.address)
    round_trip(made)
    assert [tunnel.remote for tunnel in made.tunnels] == [echo.address]
    made.disconnect(echo.address)
    assert made.tunnels == []


def test_a_socket_of_any_class_connects_directly_when_it_is_told_to(made: Any, echo: Peer) -> None:
    zmq.Socket.connect(made, echo.address, ssh=None)  # type: ignore[call-arg]
    round_trip(made)
    assert not getattr(made, "tunnels", [])


@pytest.mark.parametrize(
    ("ours", "plain"),
    [(TunneledContext, zmq.Context), (tunneledzmq.asyncio.TunneledContext, zmq.asyncio.Context)],
    ids=["blocking", "asyncio"],
)
def test_what_is_ours_has_names_of_its_own(ours: Any, plain: Any) -> None:
    """Other people's classes are derived from ours, or mixed with them."""
    with ours() as ctx, plain() as its, ctx.socket(zmq.REQ) as sock, its.socket(zmq.REQ) as other:
        for made, without in ((ctx, its), (sock, other)):
            # vars() has what was set, and its class what may be.
            names = {*dir(type(made)), *vars(made)} - {*dir(type(without)), *vars(without)}
            assert names
            assert [name for name in names if "tunnel" not in name and name[:2] != "__"] == []


def test_a_context_that_keeps_something_of_its_own_is_no_context_of_ours(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    class Keeping(zmq.Context[Any]):
        _pool = _ssh = "kept"

    with TunneledContext(ssh=openssh_options), Keeping() as ctx, ctx.socket(zmq.REQ) as sock:
        sock.connect(echo.address)
        round_trip(sock)


def test_what_a_class_overrides_sees_what_the_program_says(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    with TunneledContext(ssh=openssh_options) as ctx:
        sock = ctx.socket(zmq.REQ, socket_class=Counting)
        with sock:
            sock.connect(echo.address)
            round_trip(sock)
            assert (sock.connected, sock.sent) == ([echo.address], 1)
            assert isinstance(sock, Counting) and isinstance(sock, TunneledSocket)
            assert "Counting" in repr(sock)


def test_a_class_that_cannot_be_mixed_is_refused(openssh_options: SSHOptions, echo: Peer) -> None:
    with TunneledContext(ssh=openssh_options) as ctx:
        with pytest.raises(TypeError, match="Final cannot be made to connect through a server"):
            ctx.socket(zmq.REQ, socket_class=Final)
        with pytest.raises(TypeError, match="Final"):
            ctx.socket(zmq.REQ, socket_class=lambda *args: Final(*args))
        with Final(ctx, zmq.REQ) as sock, pytest.raises(TypeError, match="Final"):
            sock.connect(echo.address)
    with TunneledContext() as ctx, ctx.socket(zmq.REQ, socket_class=Final) as sock:
        assert type(sock) is Final


def test_a_shadow_of_a_socket_connects_through_the_default(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    with TunneledContext(ssh=openssh_options) as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.rcvtimeo = 10_000
        for other in (zmq.Socket(sock), zmq.Socket.shadow(sock.underlying)):
            before = len(ctx.tunnels)
            other.connect(echo.address.replace("127.0.0.1", f"127.0.0.{before + 1}"))
            assert len(ctx.tunnels) == before + 1


def test_a_shadow_of_a_context_connects_through_the_default(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    """Whatever other shadows come and go."""
    with TunneledContext(ssh=openssh_options) as ctx:
        del_soon = [copy.copy(ctx), TunneledContext(ctx, ssh="nobody@192.0.2.1")]
        for gone in (False, True):
            for other in (
                zmq.Context(ctx),
                zmq.Context.shadow(ctx.underlying),
                zmq.Context(zmq.Context(ctx)),
                TunneledContext.shadow(ctx.underlying),
                TunneledContext(zmq.Context(ctx)),
            ):
                with other.socket(zmq.REQ) as sock:
                    sock.connect(echo.address)
                    assert len(ctx.tunnels) == 1, (other, gone)
                    round_trip(sock)
                wait_until(lambda: not ctx.tunnels)
            del_soon.clear()
            gc.collect()


def test_the_default_of_a_shadow_lasts_as_long_as_it_does(
    openssh_options: SSHOptions, echo: Peer
) -> None:
    with zmq.Context() as plain:
        kept = TunneledContext(plain, ssh=openssh_options)
        gone = TunneledContext(plain, ssh="nobody@192.0.2.1")
        del gone
        gc.collect()
        with zmq.Context.shadow(plain.underlying).socket(zmq.REQ) as sock:
            sock.connect(echo.address)
            assert len(kept.tunnels) == 1
        with plain.socket(zmq.REQ) as sock:
            sock.connect(echo.address)
            assert type(sock) is zmq.Socket


def test_other_contexts_are_left_alone(openssh_options: SSHOptions, echo: Peer) -> None:
    with (
        TunneledContext(ssh=openssh_options),
        zmq.Context() as plain,
        plain.socket(zmq.REQ) as sock,
    ):
        sock.connect(echo.address)
        round_trip(sock)
        assert type(sock) is zmq.Socket
        with pytest.raises(TypeError):
            sock.connect(echo.address, ssh=None)  # type: ignore[call-arg]


def test_asyncio_sockets_of_any_class_do_not_block(openssh_options: SSHOptions, echo: Peer) -> None:
    class Own(zmq.asyncio.Socket):
        pass

    async def main() -> None:
        with tunneledzmq.asyncio.TunneledContext(ssh=openssh_options) as ctx:
            for sock in (
                ctx.socket(zmq.REQ, socket_class=zmq.asyncio.Socket),
                ctx.socket(zmq.REQ, socket_class=Own),
                zmq.asyncio.Socket(ctx, zmq.REQ),
                Own(ctx, zmq.REQ),
            ):
                with sock:
                    connecting: Any = sock.connect(echo.address)
                    await asyncio.wait_for(connecting, 10)
                    await sock.send(b"hello")
                    assert await asyncio.wait_for(sock.recv(), 10) == b"hello"
                    assert len(ctx.tunnels) == 1
        with TunneledContext(ssh=openssh_options) as blocking:
            sock = blocking.socket(zmq.REQ, socket_class=zmq.asyncio.Socket)
            with sock:
                await asyncio.wait_for(sock.connect(echo.address), 10)
                assert len(blocking.tunnels) == 1

    asyncio.run(main())


def test_context_and_socket_can_be_indexed_as_pyzmqs() -> None:
    assert TunneledContext[Any] and TunneledSocket[Any]

    class Typed(TunneledContext[TunneledSocket[Any]]):
        pass

    with Typed() as ctx, ctx.socket(zmq.REQ) as sock:
        assert type(sock) is TunneledSocket


def test_the_twins_are_subclasses_as_with_pyzmq() -> None:
    assert issubclass(zmq.asyncio.Context, zmq.Context)
    assert issubclass(tunneledzmq.asyncio.TunneledContext, TunneledContext)
    assert issubclass(tunneledzmq.asyncio.TunneledSocket, TunneledSocket)
    blocking, twin = TunneledContext.instance(), tunneledzmq.asyncio.TunneledContext.instance()
    assert type(blocking) is TunneledContext
    assert type(twin) is tunneledzmq.asyncio.TunneledContext
    plain = zmq.Context.instance()
    assert plain not in (blocking, twin)
    for context in (blocking, twin, plain):
        context.term()


def test_a_program_that_indexes_its_context_can_be_imported() -> None:
    output = run_program(
        """
        import zmq.sugar.context
        from typing import Any
        zmq.Context = TunneledContext
        import ipykernel.kernelbase
        print("fine")
        """
    )
    assert output == "fine\n"
