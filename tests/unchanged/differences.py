"""The tests of others' suites that cannot pass through an SSH server, each with the reason."""

from __future__ import annotations

DIFFERENT: dict[str, dict[str, str]] = {}
"""By the name of the suite, and that of the test."""
