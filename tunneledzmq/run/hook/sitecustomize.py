"""Found by Python at its start, by PYTHONPATH: has `zmq` connect through a server.

It runs in every Python process of a program that ``tunneledzmq run`` runs, and does nothing until
`zmq` is imported; where that cannot be tunnelled, it cannot be imported. The program's own
sitecustomize is run as well.

Every Python must be able to read it, Python 2 among them: so its types stand in comments.
"""

import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VARIABLE = "TUNNELEDZMQ_RUN"
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(os.path.dirname(_HERE))
_OLDEST = (3, 10)


class _Finder:
    """Has others find `zmq`, and sees the end of its import.

    The package it finds itself: the one that this file is of, whatever the program's environment
    has.
    """

    def __init__(self):
        # type: () -> None
        self._looking = set()  # type: set[int]

    def find_spec(self, name, path=None, target=None):
        # type: (str, Any, Any) -> Any
        if name not in ("zmq", "tunneledzmq") or threading.get_ident() in self._looking:
            return None
        import importlib.util

        if name == "tunneledzmq":
            file = os.path.join(_PACKAGE, "__init__.py")
            spec = importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[_PACKAGE]
            )  # type: Any
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

    def __init__(self, loader):
        # type: (Any) -> None
        self._loader = loader

    def create_module(self, spec):
        # type: (Any) -> Any
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # type: (Any) -> None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _Loader.left_to_package = False
        try:
            package = __import__("tunneledzmq")  # type: Any
            _Loader.left_to_package = package.__spec__._initializing
            if not _Loader.left_to_package:
                _begin()
        except Exception as exc:
            raise _no_zmq(exc)


class _PackageLoader(_Loader):
    def exec_module(self, module):
        # type: (Any) -> None
        module.__spec__.loader = module.__loader__ = self._loader
        try:
            self._loader.exec_module(module)
            if _Loader.left_to_package:
                _begin()
        except BaseException as exc:
            if not _Loader.left_to_package:
                raise
            sys.modules.pop("zmq", None)
            if isinstance(exc, Exception):
                raise _no_zmq(exc)
            raise
        _Loader.left_to_package = False


def _no_zmq(exc):
    # type: (BaseException) -> ImportError
    # Without us it would connect directly, and say nothing.
    error = _refusal("%s: %s" % (type(exc).__name__, exc))
    error.__cause__ = exc
    return error


class _Refuser:
    """Lets nobody find `zmq`."""

    def find_spec(self, name, path=None, target=None):
        # type: (str, Any, Any) -> None
        if name == "zmq":
            self.load_module(name)

    # Python 2, to which an ImportError in the search only says that there is nothing to find.

    def find_module(self, name, path=None):
        # type: (str, Any) -> Any
        return self if name == "zmq" else None

    def load_module(self, name):
        # type: (str) -> None
        raise _refusal("it takes Python %d.%d or later" % _OLDEST)


def _refusal(why):
    # type: (str) -> ImportError
    text = "tunneledzmq run: no zmq, since it cannot be tunnelled in %s: %s"
    return ImportError(text % (sys.executable, why))


def _begin():
    # type: () -> None
    import json

    from tunneledzmq.run.child import begin

    begin(json.loads(os.environ[_VARIABLE]))


def _run_the_own_one():
    # type: () -> None
    """Run the program's own sitecustomize, which this one has taken the place of."""
    path = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    if sys.version_info < (3,):
        import imp

        try:
            found = imp.find_module("sitecustomize", path)
        except ImportError:
            return
        imp.load_module("sitecustomize", *found)
        return
    import importlib.machinery
    import importlib.util

    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if _VARIABLE in os.environ:
    sys.meta_path.insert(0, _Finder() if sys.version_info >= _OLDEST else _Refuser())
_run_the_own_one()
