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
    """Has others find `zmq`, and sees the end of its import."""

    def __init__(self):
        # type: () -> None
        self._looking = set()  # type: set[int]

    def find_spec(self, name, path=None, target=None):
        # type: (str, Any, Any) -> Any
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
        try:
            _begin()
        except Exception as exc:
            # Without us it would connect directly, and say nothing.
            error = _refusal("%s: %s" % (type(exc).__name__, exc))
            error.__cause__ = exc
            raise error


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
    import importlib.util
    import json

    if "tunneledzmq" not in sys.modules:
        # The package that this file is of, whatever the program's environment has.
        spec = importlib.util.spec_from_file_location(
            "tunneledzmq",
            os.path.join(_PACKAGE, "__init__.py"),
            submodule_search_locations=[_PACKAGE],
        )  # type: Any
        sys.modules["tunneledzmq"] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["tunneledzmq"]
            raise
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
