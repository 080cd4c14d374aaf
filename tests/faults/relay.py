"""A relay between gateway and SSH server, whose link can be broken without either's notice.

It is told what to do by JSON lines on its standard input, answers each with one on its standard
output, and ends at the end of its input. `Relay` in `injection` is its other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress


class RelayProgram:
    """What runs in the relay's process."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._passing = asyncio.Event()
        self._passing.set()
        self._delay = 0.0
        self._total = 0
        # Whether new connections are hung up on: all of them, or whoever has tried too often.
        self._refusing = False
        self._limiting = False
        self._tries: list[float] = []
        self._connections: dict[int, list[asyncio.StreamWriter]] = {}
        # Connections that carry nothing any more, and do not tell.
        self._lost: set[int] = set()

    async def run(self) -> None:
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._say(port=listener.sockets[0].getsockname()[1])
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
        )
        while line := await orders.readline():
            self._obey(**json.loads(line))
            self._say(total=self._total)
        listener.close()
        self._cut(set(self._connections))
        # The rest ends with the process.
        os._exit(0)

    def _obey(self, do: str, delay: float = 0.0) -> None:
        if do == "pass":
            self._delay = delay
            self._passing.set()
        elif do == "hold":
            self._passing.clear()
        elif do == "refuse":
            self._refusing = True
        elif do == "accept":
            self._refusing = False
        elif do == "limit":
            self._limiting = True
        elif do == "lose":
            self._lost |= self._connections.keys()
        elif do == "cut":
            self._cut(set(self._connections))
        elif do == "end lost":
            self._cut(self._lost)

    def _cut(self, numbers: set[int]) -> None:
        for number in numbers & self._connections.keys():
            for writer in self._connections[number]:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._total += 1
        if self._hangs_up(asyncio.get_running_loop().time()):
            writer.transport.abort()
            return
        number = self._total
        self._connections[number] = [writer]
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._server)
            self._connections[number].append(far_writer)
            await asyncio.gather(
                self._carry(number, reader, far_writer), self._carry(number, far_reader, writer)
            )
        for end in self._connections.pop(number):
            end.transport.abort()

    def _hangs_up(self, now: float) -> bool:
        """As ufw's limit does: six tries in 30 s are too many, those that it stops included."""
        self._tries = [time for time in self._tries if time > now - 30] + [now]
        return self._refusing or (self._limiting and len(self._tries) >= 6)

    async def _carry(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(1 << 16):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._passing.wait()
            if number not in self._lost:
                writer.write(data)
                await writer.drain()
        if number not in self._lost:
            writer.write_eof()

    def _say(self, **answer: int) -> None:
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(RelayProgram(sys.argv[1], int(sys.argv[2])).run())
