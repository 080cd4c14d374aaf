"""No deadline for simulated days: the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("decisions", deadline=None)
settings.load_profile("decisions")
