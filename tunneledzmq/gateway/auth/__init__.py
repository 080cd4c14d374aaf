"""Being let in: keys, agents, certificates, passwords and questions."""

from __future__ import annotations

from .authentication import authenticate
from .identities import load_identities

__all__ = ["authenticate", "load_identities"]
