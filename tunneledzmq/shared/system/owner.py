"""Which process a TCP connection on this machine belongs to, by the system's table of them."""

from __future__ import annotations

import socket
import struct
import sys

__all__ = ["Connections", "connections"]

Address = tuple[str, int]

Connections = dict[tuple[Address, Address], int]
"""Process ids by a connection's two addresses, the process's own first; 0 for an unknown one."""

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    # GetExtendedTcpTable, iphlpapi.h: connections of IPv4 with their processes.
    _TCP_TABLE_OWNER_PID_CONNECTIONS = 4
    _ERROR_INSUFFICIENT_BUFFER = 122

    # MIB_TCPROW_OWNER_PID: state, both addresses with ports in network order, and pid.
    _ROW = struct.Struct("<I4sH2x4sH2xI")

    def connections() -> Connections:
        """Return the TCP connections of this machine.

        Raises:
            OSError: the system does not tell.
        """
        table = _table()
        (count,) = struct.unpack_from("<I", table)
        return {
            (_address(local, local_port), _address(remote, remote_port)): pid
            for _, local, local_port, remote, remote_port, pid in _ROW.iter_unpack(
                table[4 : 4 + count * _ROW.size]
            )
        }

    def _address(host: bytes, port: int) -> Address:
        return socket.inet_ntoa(host), socket.ntohs(port)

    def _table() -> bytes:
        size = wintypes.DWORD(1 << 14)
        while True:
            buffer = ctypes.create_string_buffer(size.value)
            code = ctypes.windll.iphlpapi.GetExtendedTcpTable(
                buffer,
                ctypes.byref(size),
                False,
                int(socket.AF_INET),
                _TCP_TABLE_OWNER_PID_CONNECTIONS,
                0,
            )
            if code == 0:
                return buffer.raw
            if code != _ERROR_INSUFFICIENT_BUFFER:
                raise ctypes.WinError(code)
            size.value += 1 << 12  # there may be more of them by then

else:

    def connections() -> Connections:
        """Return nothing: private legs are Unix sockets, of which the system sees who may connect.

        Raises:
            OSError: the system does not tell.
        """
        return {}
