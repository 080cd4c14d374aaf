"""Modules that are imported later get our classes as well."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Generic, TypeVar

__all__ = ["Imports"]

_PlaceT = TypeVar("_PlaceT")


class Imports(Generic[_PlaceT]):
    """A finder of :data:`sys.meta_path` that has others find, and sees the end of the import.

    Args:
        modules: the modules to look after, and what finds the places in one that is imported.
        plain: those that must see pyzmq's own classes while they are imported.
        twins: modules of ours, by the modules that they are derived from and whose places need
            them.
        put: puts our classes into places.
        take_out: the opposite.
    """

    def __init__(
        self,
        modules: Mapping[str, Callable[[ModuleType], Iterable[_PlaceT]]],
        plain: Collection[str],
        twins: Mapping[str, str],
        *,
        put: Callable[[Iterable[_PlaceT]], None],
        take_out: Callable[[Iterable[_PlaceT]], None],
    ) -> None:
        self._modules = modules
        self._plain = plain
        self._twins = twins
        self._derived_from = {twin: name for name, twin in twins.items()}
        self._put = put
        self._take_out = take_out
        # Names that are being looked for, by the threads that do.
        self._looking: set[tuple[int, str]] = set()
        # Mutex for the state below. Nothing is imported under it: a thread that imports holds the
        # locks of its modules when it comes here.
        self._lock = threading.RLock()
        self._watching = False
        # Modules that are being imported.
        self._importing: list[str] = []
        # The places of those that are imported.
        self._places: dict[str, tuple[ModuleType, list[_PlaceT]]] = {}

    def watch(self) -> None:
        """Put our classes in place, now and in what is imported from now on."""
        with self._lock:
            if not self._watching:
                self._watching = True
                sys.meta_path.insert(0, self)
        for name in self._modules:
            if name in sys.modules and name not in self._importing:
                __import__(name)  # another thread may be at it
                self._find_places(name)
        self._update()

    def leave(self) -> None:
        """Take our classes out."""
        with self._lock:
            if self._watching:
                self._watching = False
                sys.meta_path.remove(self)
        self._update()

    def _find_places(self, name: str) -> None:
        """Find where to put our classes in a module, which may import them."""
        module = sys.modules.get(name)
        if module is None or (name in self._places and self._places[name][0] is module):
            return
        if name in self._twins:
            twin = self._twins[name]
            __import__(twin)
            if twin in self._importing:
                return  # by what has imported this module; we are called at its end
        places = list(self._modules[name](module))
        with self._lock:
            # What another thread has found first it may have put ours into.
            if name not in self._places or self._places[name][0] is not module:
                self._places[name] = module, places

    def _update(self) -> None:
        with self._lock:
            ours = self._watching and not set(self._plain).intersection(self._importing)
            for name, (_, places) in self._places.items():
                if name not in self._importing:
                    (self._put if ours else self._take_out)(places)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the modules, as everybody else would; none of the others."""
        key = threading.get_ident(), name
        if (name not in self._modules and name not in self._derived_from) or key in self._looking:
            return None
        self._looking.add(key)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(key)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def run(self, loader: Loader, module: ModuleType) -> None:
        """Import a module, and put our classes into it."""
        name = module.__name__
        with self._lock:
            self._importing.append(name)
        self._update()
        try:
            loader.exec_module(module)
            parent, dot, child = name.rpartition(".")
            if dot:
                # As the import does next; but modules of ours look there already.
                setattr(sys.modules[parent], child, module)
        except BaseException:
            self._end(name)
            raise
        self._end(name, found=True)

    def _end(self, name: str, *, found: bool = False) -> None:
        with self._lock:
            self._importing.remove(name)
        try:
            if found:
                self._find_places(self._derived_from.get(name, name))
        finally:
            self._update()


class _Loader(Loader):
    """Loads a module as another one does."""

    def __init__(self, loader: Any, imports: Imports[Any]) -> None:
        self._loader = loader
        self._imports = imports

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._imports.run(self._loader, module)
