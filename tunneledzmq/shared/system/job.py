"""Commands of the user's, which end with all that they have started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import IO, Any

from ..environment import environment_of_others

__all__ = ["REPLACE_SHELL", "Job", "read_end"]

if sys.platform == "win32":
    import ctypes
    import threading
    from ctypes import wintypes

    REPLACE_SHELL = ""

    # JOBOBJECT_EXTENDED_LIMIT_INFORMATION, winnt.h: all but the flags stay zero.
    _EXTENDED_LIMIT_INFORMATION = 9
    _INFORMATION_SIZE = 144
    _FLAGS_AT = 16
    _KILL_ON_JOB_CLOSE = 0x2000

    _CREATE_SUSPENDED = 0x4

    _COPY_SIZE = 1 << 16

    class Job:
        """A command in the shell, out of reach of Ctrl-C.

        Args:
            command: for the shell.
            directory: to run it in, if that is there.
            stdin, stdout: as for `subprocess.Popen`, or a socket for both.
            stderr: as for `subprocess.Popen`.

        Raises:
            OSError: the shell cannot be started.
        """

        def __init__(
            self, command: str, directory: str, *, stdin: Any, stdout: Any, stderr: IO[bytes]
        ) -> None:
            self._kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)
            self._kernel.CreateJobObjectW.restype = wintypes.HANDLE
            # What is in it ends when nobody holds it any more: when we are killed, too.
            self._job = wintypes.HANDLE(self._kernel.CreateJobObjectW(None, None))
            limits = bytearray(_INFORMATION_SIZE)
            limits[_FLAGS_AT : _FLAGS_AT + 4] = _KILL_ON_JOB_CLOSE.to_bytes(4, "little")
            information = (ctypes.c_char * _INFORMATION_SIZE).from_buffer(limits)
            self._kernel.SetInformationJobObject(
                self._job, _EXTENDED_LIMIT_INFORMATION, information, _INFORMATION_SIZE
            )
            over_socket = isinstance(stdin, socket.socket)
            shell = os.environ.get("COMSPEC") or "cmd.exe"
            try:
                self.process = subprocess.Popen(
                    # As it stands: cmd.exe has a quoting of its own.
                    f'"{shell}" /d /s /c "{command}"',
                    stdin=subprocess.PIPE if over_socket else stdin,
                    stdout=subprocess.PIPE if over_socket else stdout,
                    stderr=stderr,
                    env=environment_of_others(),
                    cwd=directory if os.path.isdir(directory) else None,
                    creationflags=subprocess.CREATE_NO_WINDOW
                    | subprocess.CREATE_NEW_PROCESS_GROUP
                    | _CREATE_SUSPENDED,
                )
            except BaseException:
                self._kernel.CloseHandle(self._job)
                raise
            handle = wintypes.HANDLE(int(self.process._handle))  # type: ignore[attr-defined]
            self._kernel.AssignProcessToJobObject(self._job, handle)
            # Only now, since what it has started before is in no job.
            ctypes.WinDLL("ntdll").NtResumeProcess(handle)
            if over_socket:
                # A socket is not what most programs can have as their standard input here.
                for copy in (_to_command, _from_command):
                    arguments = self.process, stdin.dup()
                    threading.Thread(target=copy, args=arguments, daemon=True).start()

        def hang_up(self) -> None:
            """Do nothing: there is no such signal."""

        def kill(self) -> None:
            """End it and all that it has started."""
            job, self._job = self._job, wintypes.HANDLE()
            if job:
                self._kernel.TerminateJobObject(job, 1)
                self._kernel.CloseHandle(job)

    def _to_command(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        assert process.stdin is not None
        with sock, suppress(OSError), process.stdin as stdin:
            while data := sock.recv(_COPY_SIZE):
                stdin.write(data)
                stdin.flush()

    def _from_command(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        assert process.stdout is not None
        with sock, suppress(OSError), process.stdout as stdout:
            while data := stdout.read1(_COPY_SIZE):  # type: ignore[attr-defined]
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

    def read_end(file: IO[bytes], size: int) -> bytes:
        """Read the last bytes of a file that a command may have written to."""
        descriptor = file.fileno()
        os.lseek(descriptor, max(0, os.fstat(descriptor).st_size - size), os.SEEK_SET)
        return os.read(descriptor, size)

else:
    import signal

    REPLACE_SHELL = "exec "
    """What stands before a command so that it takes the place of its shell."""

    class Job:
        """A command in the shell, out of reach of Ctrl-C.

        Args:
            command: for the shell.
            directory: to run it in, if that is there.
            stdin, stdout: as for `subprocess.Popen`, or a socket for both.
            stderr: as for `subprocess.Popen`.

        Raises:
            OSError: the shell cannot be started.
        """

        def __init__(
            self, command: str, directory: str, *, stdin: Any, stdout: Any, stderr: IO[bytes]
        ) -> None:
            self.process = subprocess.Popen(
                [os.environ.get("SHELL") or "/bin/sh", "-c", command],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=environment_of_others(),
                cwd=directory if os.path.isdir(directory) else "/",
                start_new_session=True,
            )

        def hang_up(self) -> None:
            """Tell it, and all that it has started, that its terminal is gone."""
            self._signal(signal.SIGHUP)

        def kill(self) -> None:
            """End it and all that it has started."""
            self._signal(signal.SIGKILL)

        def _signal(self, number: int) -> None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def read_end(file: IO[bytes], size: int) -> bytes:
        """Read the last bytes of a file that a command may have written to."""
        # Not through the file object: the command shares its position.
        descriptor = file.fileno()
        return os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size))
