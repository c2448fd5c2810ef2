"""State that a forward pass may read besides parameters, buffers and torch's global generator."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_LARGE = 2**22
_OWN = frozenset(nn.Module().__dict__)


class Outside:
    """The global generators of numpy and of Python, and plain attributes of modules: as they are now.

    Args:
        model: whose modules' attributes are noted: tensors and numbers, no buffers and no parameters.
    """

    def __init__(self, model: nn.Module):
        self._numpy = sys.modules.get("numpy")  # who has not imported it draws nothing from it
        self._states = self._drawn()
        self._attributes: list[tuple[nn.Module, str, str, Any, Tensor | None, int]] = []
        for name, module in model.named_modules():
            for key, value in vars(module).items():
                if key in _OWN or not (value is None or isinstance(value, bool | int | float | Tensor)):
                    continue
                plain = isinstance(value, Tensor) and not value.requires_grad and value.numel() <= _LARGE
                copy, version = (value.clone() if plain else None), getattr(value, "_version", 0)
                self._attributes.append((module, name, key, value, copy, version))

    def _drawn(self) -> dict[str, Any]:
        states: dict[str, Any] = {"Python's `random`": random.getstate()}
        if self._numpy is not None:
            states["numpy's global generator"] = self._numpy.random.get_state(legacy=False)
        return states

    def generators(self) -> list[str]:
        """Which of the global generators have moved since."""
        return [name for name, state in self._drawn().items() if repr(state) != repr(self._states[name])]

    def attributes(self) -> list[tuple[str, str]]:
        """(module, attribute) that have moved since."""
        return [(name, key) for _, name, key, *_ in self._moved()]

    def _moved(self) -> Iterator[tuple]:
        for entry in self._attributes:
            module, _, key, value, copy, version = entry
            now = vars(module).get(key)
            if now is value and getattr(now, "_version", 0) == version:
                continue
            if isinstance(now, int | float) and now == value:
                continue
            if isinstance(now, Tensor) and copy is not None and now.shape == copy.shape and torch.equal(now, copy):
                continue
            yield entry

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back."""
        random.setstate(self._states["Python's `random`"])
        if self._numpy is not None:
            self._numpy.random.set_state(self._states["numpy's global generator"])
        for module, _, key, value, copy, _ in list(self._moved()):
            vars(module)[key] = value
            if copy is not None and not torch.equal(value, copy):
                value.data.copy_(copy)


def own_generators(model: nn.Module, *functions: Any) -> dict[str, Any]:
    """Generators by where they were found: attributes of modules, and what functions and tasks refer to."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if _is_generator(value):
                found[f"attribute {key} of {named(name, module)}"] = value
    seen: set[int] = set()

    def look(value: Any, where: str, depth: int) -> None:
        if id(value) in seen or depth < 0 or isinstance(value, nn.Module | Tensor | str | int | float):
            return
        seen.add(id(value))
        if _is_generator(value):
            found.setdefault(where, value)
            return
        for key, one in _referred(value):
            look(one, key, depth - 1)

    for function in (*functions, *(type(module).forward for module in model.modules())):
        look(function, "", 5)
    return found


def _referred(value: Any) -> Iterator[tuple[str, Any]]:
    code = getattr(value, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=False):
            yield name, _content(cell)
        yield from ((name, value.__globals__[name]) for name in code.co_names if name in value.__globals__)
        yield from (("a default argument", one) for one in value.__defaults__ or ())
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        yield "self", value.__self__
        yield "self", value.__func__
    if isinstance(value, functools.partial):
        yield "a partial's function", value.func
        yield from (("an argument of a partial", one) for one in (*value.args, *value.keywords.values()))
    if isinstance(value, list | tuple | dict):
        yield from (("a list or dict", one) for one in (value.values() if isinstance(value, dict) else value))
        return
    attributes = getattr(value, "__dict__", None)
    if code is None and isinstance(attributes, dict) and not isinstance(value, type) and type(value) is not type(sys):
        yield from attributes.items()


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _is_generator(value: Any) -> bool:
    if isinstance(value, torch.Generator | random.Random):
        return True
    return type(value).__module__.startswith("numpy.random") and type(value).__name__ in ("Generator", "RandomState")


def state_of(generator: Any) -> str:
    """Something that differs once the generator has drawn."""
    if isinstance(generator, torch.Generator):
        return str(generator.get_state().tolist())
    if isinstance(generator, random.Random):
        return repr(generator.getstate())
    state = generator.bit_generator.state if hasattr(generator, "bit_generator") else generator.get_state(legacy=False)
    return repr({k: v.tolist() if hasattr(v, "tolist") else v for k, v in _flat(state)})


def _flat(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield key, value


def named(name: str, module: nn.Module) -> str:
    """How a module is called in a message."""
    return f"module {name} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
