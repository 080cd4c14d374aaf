"""From what the program asked for to how to log in: ssh_config(5)."""

from __future__ import annotations

from .resolve import resolve, server_name

__all__ = ["resolve", "server_name"]
