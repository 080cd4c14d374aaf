"""Agents with one key, as programs find them on Windows: at a named pipe, or behind a window."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import paramiko
from paramiko.message import Message

LIST, SIGN = 11, 13
"""What they are asked, by the numbers of the agents' protocol."""

_FAILURE, _KEYS, _SIGNATURE = 5, 12, 14

# WM_COPYDATA, and what PuTTY's programs have in it: the name of a mapped file, for both ways.
_CLOSE, _COPY_DATA = 0x10, 0x4A
_AGENT = 0x804E50BA
_MAP_ALL = 0xF001F


def _answerer(keyfile: str | None, asked: list[int]) -> Callable[[bytes], bytes]:
    """Return what answers requests, none of them rightly without a key."""
    key = None if keyfile is None else paramiko.Ed25519Key.from_private_key_file(keyfile)

    def answer(request: bytes) -> bytes:
        asked.append(request[0])
        said = Message()
        if key is None:
            said.add_byte(bytes([_FAILURE]))
        elif request[0] == LIST:
            said.add_byte(bytes([_KEYS]))
            said.add_int(1)
            said.add_string(key.asbytes())
            said.add_string("of the agent")
        else:
            message = Message(request[1:])
            message.get_string()
            said.add_byte(bytes([_SIGNATURE]))
            said.add_string(key.sign_ssh_data(message.get_string()).asbytes())
        data = said.asbytes()
        return len(data).to_bytes(4, "big") + data

    return answer


@contextlib.contextmanager
def agent_at(pipe: str, keyfile: str) -> Iterator[list[int]]:
    """An agent at a named pipe, as that of Windows; yields what it is asked."""
    asked: list[int] = []
    answer = _answerer(keyfile, asked)
    loop = asyncio.ProactorEventLoop()  # type: ignore[attr-defined,unused-ignore]

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.data = b""

        def data_received(self, data: bytes) -> None:
            self.data += data
            size = int.from_bytes(self.data[:4], "big")
            if len(self.data) >= 4 + size:
                self.transport.write(answer(self.data[4:]))
                self.data = b""

    async def serve() -> Any:
        [server] = await loop.start_serving_pipe(Protocol, pipe)
        return server

    def end() -> None:
        server.close()
        loop.call_later(0.2, loop.stop)  # what it waits for is cancelled in the next turns

    server = loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(end)
        thread.join()
        loop.close()


@contextlib.contextmanager
def pageant(keyfile: str | None) -> Iterator[list[int]]:
    """What other programs take for PuTTY's Pageant; yields what it is asked."""
    asked: list[int] = []
    windows: SimpleQueue[Any] = SimpleQueue()
    thread = threading.Thread(target=_run_pageant, args=(_answerer(keyfile, asked), windows))
    thread.start()
    window = windows.get()
    try:
        assert window, "no window: has Wine been told that there is no screen?"
        yield asked
    finally:
        if window and sys.platform == "win32":
            ctypes.windll.user32.PostMessageW(window, _CLOSE, 0, 0)
        thread.join()


if sys.platform == "win32":
    from ctypes import wintypes

    _Procedure = ctypes.WINFUNCTYPE(
        ctypes.c_ssize_t, wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM
    )

    class _Class(ctypes.Structure):
        _fields_ = (
            ("style", wintypes.UINT),
            ("procedure", _Procedure),
            ("extra", ctypes.c_int * 2),
            ("instance", wintypes.HINSTANCE),
            ("looks", wintypes.HANDLE * 3),
            ("menu", wintypes.LPCWSTR),
            ("name", wintypes.LPCWSTR),
        )

    class _CopyData(ctypes.Structure):
        _fields_ = (("kind", ctypes.c_size_t), ("size", wintypes.DWORD), ("data", ctypes.c_void_p))

    def _run_pageant(answer: Callable[[bytes], bytes], windows: SimpleQueue[Any]) -> None:
        user, kernel = ctypes.WinDLL("user32"), ctypes.WinDLL("kernel32")
        user.DefWindowProcW.argtypes = _Procedure(lambda *_: 0).argtypes
        user.DefWindowProcW.restype = ctypes.c_ssize_t
        user.CreateWindowExW.restype = wintypes.HWND
        kernel.OpenFileMappingA.restype = wintypes.HANDLE
        kernel.MapViewOfFile.restype = ctypes.c_void_p

        def exchange(name: bytes) -> None:
            mapped = wintypes.HANDLE(kernel.OpenFileMappingA(_MAP_ALL, False, name))
            view = ctypes.c_void_p(kernel.MapViewOfFile(mapped, _MAP_ALL, 0, 0, 0))
            assert view.value
            size = int.from_bytes(ctypes.string_at(view.value, 4), "big")
            said = answer(ctypes.string_at(view.value + 4, size))
            ctypes.memmove(view.value, said, len(said))
            kernel.UnmapViewOfFile(view)
            kernel.CloseHandle(mapped)

        def procedure(window: int, message: int, word: int, long: int) -> int:
            if message == _COPY_DATA:
                given = _CopyData.from_address(long)
                assert given.kind == _AGENT
                exchange(ctypes.string_at(given.data, given.size).rstrip(b"\0"))
                return 1
            if message == _CLOSE:
                user.DestroyWindow(wintypes.HWND(window))
                user.PostQuitMessage(0)
                return 0
            return int(user.DefWindowProcW(window, message, word, long))

        kind = _Class(procedure=_Procedure(procedure), name="Pageant")
        user.RegisterClassW(ctypes.byref(kind))
        window = user.CreateWindowExW(0, "Pageant", "Pageant", *[0] * 9)
        windows.put(window)
        message = wintypes.MSG()
        while window and user.GetMessageW(ctypes.byref(message), None, 0, 0) > 0:
            user.DispatchMessageW(ctypes.byref(message))
        user.UnregisterClassW("Pageant", None)
