"""Found by Python at its start, by PYTHONPATH: has `zmq` connect through a server.

It runs in every Python process of a program that ``tunneledzmq run`` runs, whatever its version,
and does nothing until `zmq` is imported. The program's own sitecustomize is run as well.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

_VARIABLE = "TUNNELEDZMQ_RUN"
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(os.path.dirname(_HERE))


class _Finder:
    """Has others find `zmq`, and sees the end of its import."""

    def __init__(self) -> None:
        self._looking: set[int] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "zmq" or threading.get_ident() in self._looking:
            return None
        import importlib.util

        self._looking.add(threading.get_ident())
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(threading.get_ident())
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        try:
            _begin()
        except Exception as exc:
            # Without us it would connect directly, and say nothing.
            text = "tunneledzmq run: no zmq, since it cannot be tunnelled in %s: %s: %s"
            raise ImportError(text % (sys.executable, type(exc).__name__, exc)) from exc


def _begin() -> None:
    import importlib.util
    import json

    if "tunneledzmq" not in sys.modules:
        # The package that this file is of, whatever the program's environment has.
        spec: Any = importlib.util.spec_from_file_location(
            "tunneledzmq",
            os.path.join(_PACKAGE, "__init__.py"),
            submodule_search_locations=[_PACKAGE],
        )
        sys.modules["tunneledzmq"] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["tunneledzmq"]
            raise
    from tunneledzmq.run.child import begin

    begin(json.loads(os.environ[_VARIABLE]))


def _run_the_own_one() -> None:
    """Run the program's own sitecustomize, which this one has taken the place of."""
    import importlib.machinery
    import importlib.util

    path = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if _VARIABLE in os.environ:
    sys.meta_path.insert(0, _Finder())
_run_the_own_one()
