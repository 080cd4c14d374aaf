"""The README's snippets, and what stands in them that is another one here."""

from __future__ import annotations

import re
import textwrap

from tests.integration.conftest import Site
from tests.network import INNER
from tests.peers import ROOT

__all__ = ["as_here", "blocks"]


def blocks(language: str = r"\w*") -> list[str]:
    """Return the blocks of a language, in order."""
    readme = (ROOT / "README.md").read_text()
    found = re.findall(rf"^( *)```(?:{language})\n(.*?)^\1```$", readme, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def as_here(text: str, site: Site) -> str:
    """Say it as it is here: there is no account of that name, and no right to that port."""
    text = text.replace("me@", f"{site.sshd.user}@").replace(":2222", f":{site.sshd.port}")
    return text.replace(INNER, site.host)
