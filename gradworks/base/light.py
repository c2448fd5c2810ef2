"""What libraries import at a stage's cost, though no stage uses it: torch's compiler and pandas.

Every optimizer imports `torch._dynamo` in its first step, which takes longer than a small stage trains (1.3 s of a
core). It needs `disable`, which a function that is not compiled is already, and `graph_break`, which does nothing
outside a compiled one. pyarrow looks for pandas (0.3 s) when it is first given a list.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import types
from collections.abc import Callable
from typing import Any

NAME = "torch._dynamo"


class Light(types.ModuleType):
    """Those two functions; any other name imports the real module, which then is the one of this name."""

    @staticmethod
    def disable(fn: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        return fn

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # asked by the import system
            raise AttributeError(name)
        return getattr(_real(), name)


def _real() -> types.ModuleType:
    if isinstance(sys.modules.get(NAME), Light):
        del sys.modules[NAME]
    return importlib.import_module(NAME)


def compiler() -> None:
    """Put the light module in the place of torch's compiler, unless that is there already."""
    sys.modules.setdefault(NAME, Light(NAME))


class _NoPandas(importlib.abc.MetaPathFinder):
    """Finds no pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def pandas() -> None:
    """Let pyarrow find no pandas in this process, unless it is there already; `import pandas` works as before."""
    if "pandas" in sys.modules:
        return
    none = _NoPandas()
    sys.meta_path.insert(0, none)
    try:
        import pyarrow

        pyarrow.array([0])
    finally:
        sys.meta_path.remove(none)
