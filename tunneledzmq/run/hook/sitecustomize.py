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
    """Has others find `zmq`, and sees the end of its import.

    The package it finds itself: the one that this file is of, whatever the program's environment
    has.
    """

    def __init__(self) -> None:
        self._looking: set[int] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in ("zmq", "tunneledzmq") or threading.get_ident() in self._looking:
            return None
        import importlib.util

        if name == "tunneledzmq":
            file = os.path.join(_PACKAGE, "__init__.py")
            spec: Any = importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[_PACKAGE]
            )
            spec.loader = _PackageLoader(spec.loader)
            return spec
        self._looking.add(threading.get_ident())
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(threading.get_ident())
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    # Whether zmq has been imported by the package, which is not through with that.
    left_to_package = False

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _Loader.left_to_package = False
        try:
            package: Any = __import__("tunneledzmq")
            _Loader.left_to_package = package.__spec__._initializing
            if not _Loader.left_to_package:
                _begin()
        except Exception as exc:
            raise _no_zmq(exc) from exc


class _PackageLoader(_Loader):
    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        try:
            self._loader.exec_module(module)
            if _Loader.left_to_package:
                _begin()
        except BaseException as exc:
            if not _Loader.left_to_package:
                raise
            sys.modules.pop("zmq", None)
            raise _no_zmq(exc) from exc
        _Loader.left_to_package = False


def _no_zmq(exc: BaseException) -> ImportError:
    # Without us it would connect directly, and say nothing.
    text = "tunneledzmq run: no zmq, since it cannot be tunnelled in %s: %s: %s"
    return ImportError(text % (sys.executable, type(exc).__name__, exc))


def _begin() -> None:
    import json

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
