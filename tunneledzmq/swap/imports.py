"""Modules that are imported later get our classes as well."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Imports"]


class Imports:
    """A finder of :data:`sys.meta_path` that has others find, and sees the end of the import.

    Args:
        names: the modules to look after.
        plain: those that must see pyzmq's own classes while they are imported.
        put: puts our classes into a module, if it is imported.
        take_out: the opposite.
    """

    def __init__(
        self,
        names: Collection[str],
        plain: Collection[str],
        *,
        put: Callable[[str], None],
        take_out: Callable[[str], None],
    ) -> None:
        self._names = names
        self._plain = plain
        self._put = put
        self._take_out = take_out
        # Names that are being looked for, by the threads that do.
        self._looking: set[tuple[int, str]] = set()
        # Mutex for the state below.
        self._lock = threading.RLock()
        self._watching = False
        # Modules that are being imported.
        self._importing: list[str] = []

    def watch(self) -> None:
        """Put our classes in place, now and in what is imported from now on."""
        with self._lock:
            if not self._watching:
                self._watching = True
                sys.meta_path.insert(0, self)
            self._update()

    def leave(self) -> None:
        """Take our classes out."""
        with self._lock:
            if self._watching:
                self._watching = False
                sys.meta_path.remove(self)
            self._update()

    def _update(self) -> None:
        ours = self._watching and not set(self._plain).intersection(self._importing)
        for name in self._names:
            if name not in self._importing:
                (self._put if ours else self._take_out)(name)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the modules, as everybody else would; none of the others."""
        key = threading.get_ident(), name
        if name not in self._names or key in self._looking:
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
        finally:
            with self._lock:
                self._importing.remove(name)
                self._update()


class _Loader(Loader):
    """Loads a module as another one does."""

    def __init__(self, loader: Any, imports: Imports) -> None:
        self._loader = loader
        self._imports = imports

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._imports.run(self._loader, module)
