"""The pages that the README's command makes of the docstrings.

They take pdoc and gevent: `pip install '.[docs]'`, as CI does.
"""

from __future__ import annotations

import html
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import ROOT

pytest.importorskip("pdoc", reason="to run this: pip install '.[docs]'")
pytest.importorskip("gevent", reason="to run this: pip install '.[docs]'")


def test_the_pages_have_all_that_is_public_and_nothing_raw(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    [command] = re.findall(r"`python (-m pdoc [^`]+)`", readme)
    pages = tmp_path / "pages"
    arguments = shlex.split(command.replace("-o docs", f"-o {pages}"))
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    names = [word for word in arguments if word.startswith("tunneledzmq")]
    assert len(names) >= 4
    for module in map(importlib.import_module, names):
        page = (pages / f"{module.__name__.replace('.', '/')}.html").read_text()
        for name in module.__all__:
            assert f'id="{name}"' in page
        # Without the sources, which are in it too.
        page = re.sub(r'<div class="pdoc-code codehilite">.*?</div>', "", page, flags=re.DOTALL)
        text = re.sub(r"<(script|style|details).*?</\1>", "", page, flags=re.DOTALL)
        text = html.unescape(re.sub(r"<[^>]+>", "", text))
        assert not re.search(r"::$|:(?:class|meth|func|mod):`|``", text, re.MULTILINE)
    assert (pages / "index.html").exists()
