"""From what the program asked for to how to log in: ssh_config(5)."""

from __future__ import annotations

from .resolve import methods_of, resolve, server_name

__all__ = ["methods_of", "resolve", "server_name"]
