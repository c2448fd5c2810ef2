"""Buffers in a step that evaluates a micro-batch more than once.

A forward pass may move buffers: running statistics, the vectors of spectral normalisation, a codebook. One pass over
each micro-batch moves them, as in plain training; all others run on copies that are thrown away, and start from where
that one pass started. Where the model computes with what it has just written, what the one pass wrote is *held*: every
other pass writes the same, so that all differentiate one function of the parameters. Copying is enough for torch's own
normalisations, which in training read none of the statistics that they move.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_buffer_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from gradworks.methods._shared.recompute import Run, Runner, noted

_CHILDREN, _TRAINING, _PARAMETERS = map(itemgetter, ("_modules", "training", "_parameters"))
_LOOKED_AT = {"_modules", "training", "_parameters"}
_LARGE = 2**22  # elements; a larger buffer is copied in every pass only where it was seen to move


class Slot(NamedTuple):
    """Where a buffer is kept."""

    module: nn.Module
    key: str
    name: str

    @property
    def tensor(self) -> Tensor | None:
        return self.module._buffers[self.key]


class Tree:
    """The modules of a model by name, listed again where one has other children: a walk takes longer than a look.

    The look is made at every step, so it goes around `nn.Module.__getattr__`, which takes most of its time.
    """

    def __init__(self) -> None:
        self.modules: list[tuple[str, nn.Module]] = []
        self._model: nn.Module | None = None
        self._states: list[dict[str, Any]] = []  # attributes of the modules
        self._scripts: list[nn.Module] = []  # whose attributes are elsewhere: scripted, compiled
        self._children: list[int] = []

    def follow(self, model: nn.Module) -> None:
        if self._model is not model or self._children != self._listed():
            self._model, self.modules = model, list(model.named_modules())
            every = [module for _, module in self.modules]
            self._scripts = [module for module in every if not vars(module).keys() >= _LOOKED_AT]
            self._states = [vars(module) for module in every if vars(module).keys() >= _LOOKED_AT]
            self._children = self._listed()

    def modes(self) -> list[bool]:
        """Which modules are in training, in one order until they are listed again."""
        return [*map(_TRAINING, self._states), *(module.training for module in self._scripts)]

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """The trainable ones of `model.parameters()`."""
        self.follow(model)
        own = (type(model).parameters, type(model).named_parameters)
        if self._scripts or own != (nn.Module.parameters, nn.Module.named_parameters):
            return [p for p in model.parameters() if p.requires_grad]
        every = chain.from_iterable(map(dict.values, map(_PARAMETERS, self._states)))
        return list({id(p): p for p in every if p is not None and p.requires_grad}.values())

    def _listed(self) -> list[int]:
        children = map(dict.values, filter(None, map(_CHILDREN, self._states)))
        scripts = (module._modules.values() for module in self._scripts)
        return list(map(id, chain.from_iterable(chain(children, scripts))))


class Buffers:
    """The buffers of a model in one step.

    Args:
        model: the module; its structure does not change within a step.
        moving: names of those that were seen to move.
        once: every micro-batch is evaluated once: nothing is kept of the pass that moves them.
        tree: of its modules, kept from step to step.
    """

    def __init__(
        self, model: nn.Module, moving: Collection[str] = (), once: bool = True, tree: Tree | None = None
    ):  # fmt: skip
        self.model, self.once, self._tree = model, once, tree or Tree()
        self.moving = frozenset(moving)

    @cached_property
    def slots(self) -> list[Slot]:
        self._tree.follow(self.model)
        modules = (m for m in self._tree.modules if not isinstance(m[1], torch.jit.ScriptModule))
        return [Slot(module, key, f"{name}.{key}".lstrip(".")) for name, module in modules for key in module._buffers]

    @cached_property
    def held(self) -> frozenset[str]:
        """Those that move and that the forward pass may read."""
        if not self.moving:
            return self.moving
        own = {slot.name for slot in self.slots if _is_torchs_norm(slot.module)}
        return self.moving - own

    def copies(self, of: Sequence[Tensor | None] | None = None, all_of_them: bool = False) -> list[Tensor | None]:
        """One for each slot (of its tensor or a list's), a shared one once; what is large and does not move, itself."""
        made: dict[int, Tensor] = {}
        found = []
        for slot, t in zip(self.slots, [slot.tensor for slot in self.slots] if of is None else of, strict=True):
            if t is not None and (t.numel() <= _LARGE or slot.name in self.moving or (all_of_them and _moves(t))):
                if id(t) not in made:
                    made[id(t)] = t.detach().clone()
                t = made[id(t)]
            found.append(t)
        return found

    def moved(self, copies: Sequence[Tensor | None]) -> list[str]:
        """Names of those that are no longer as `copies()` made them, while these are in place."""
        pairs = zip(self.slots, copies, strict=True)
        return [slot.name for slot, t in pairs if slot.tensor is not t or (t is not None and t._version)]


def _moves(t: Tensor) -> bool:
    return t.is_floating_point()  # large whole numbers are packed weights


def _is_torchs_norm(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and type(module).__module__.startswith("torch.nn.")


@contextlib.contextmanager
def swapped(slots: Sequence[Slot], values: Sequence[Tensor | None]) -> Iterator[None]:
    """Inside, the modules have these buffers; afterwards, also after an error, their own: not one bit is written."""
    own = [slot.tensor for slot in slots]
    try:
        for slot, value in zip(slots, values, strict=True):
            slot.module._buffers[slot.key] = value
        yield
    finally:
        for slot, value in zip(slots, own, strict=True):
            slot.module._buffers[slot.key] = value


class Writes(TorchDispatchMode):
    """Inside, what is written into held buffers is noted; or, where it is `known`, written as it was noted.

    Args:
        slots: of the held buffers.
        known: what an earlier pass wrote, in order; None = note it.
        at: the first write of this pass among them.
    """

    def __init__(self, slots: Sequence[Slot], known: list[Tensor] | None = None, at: int = 0):
        super().__init__()
        self.found: list[Tensor] = [] if known is None else known
        self.at, self._notes = at, known is None
        self._slots = slots
        self._places = {(id(slot.module), slot.key) for slot in slots}

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The buffers must be in place."""
        self._watched = {_memory(slot.tensor) for slot in self._slots if slot.tensor is not None}
        handle = register_module_buffer_registration_hook(self._replaced)
        try:
            with self:
                yield
        finally:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func._schema.is_mutable:
            for t in _written(func, args, kwargs):
                if _memory(t) in self._watched:
                    value = self._value(t)
                    if value is not None:
                        t.copy_(value)
        return made

    def _replaced(self, module: nn.Module, key: str, value: Tensor | None) -> Tensor | None:
        """A buffer is assigned."""
        if value is None or (id(module), key) not in self._places:
            return None
        known = self._value(value)
        known = None if known is None else known.clone()
        self._watched.add(_memory(value if known is None else known))
        return known

    @torch.no_grad()
    def _value(self, written: Tensor) -> Tensor | None:
        """What is to be written instead; None where `written` is noted, or is no write that was noted."""
        at, self.at = self.at, self.at + 1
        if self._notes:
            self.found.append(written.detach().clone())
            return None
        known = self.found[at] if at < len(self.found) else None
        alike = known is not None and known.shape == written.shape and known.dtype == written.dtype
        return known if alike else None


def _memory(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _written(func: Any, args: tuple, kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operation writes, as its schema says."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = kwargs.get(argument.name) if argument.kwarg_only or i >= len(args) else args[i]
        for t in given if isinstance(given, list | tuple) else (given,):
            if isinstance(t, Tensor):
                yield t


class Rest:
    """The buffers of one micro-batch: one pass over it moves them, the others find them at rest.

    Args:
        buffers: of the model.
        moves: its first pass with a graph moves them (where some are held, its first pass); else none does.
        start: where its passes start from; None = from where the buffers are, before the pass that moves them.
    """

    def __init__(self, buffers: Buffers, moves: bool, start: list[Tensor | None] | None = None):
        self._buffers, self._moves, self._start = buffers, moves, start
        self._known: list[Tensor] | None = None

    def run(self, model: nn.Module, run: Run) -> Any:
        """`run()`, a forward pass of the model or of a teacher of its class, whose buffers never move."""
        buffers = self._buffers
        if model is not buffers.model:
            return self._teach(Buffers(model, buffers.moving), run)
        if self._moves and (torch.is_grad_enabled() or buffers.held):
            self._moves = False
            return self._move(run)
        return _at_rest(buffers, buffers.copies(self._start), self._known, 0, run)

    def settle(self, run: Run) -> bool:
        """`run()`, a forward pass that moves the buffers at the parameters as they are, if none has; whether it did."""
        moves, self._moves = self._moves, False
        if moves:
            self._move(run)
        return moves

    def _teach(self, teacher: Buffers, run: Run) -> Any:
        """A teacher starts from where the model does, and what the model holds holds for it."""
        start, known = self._start or [slot.tensor for slot in self._buffers.slots], self._known
        if [slot.name for slot in teacher.slots] != [slot.name for slot in self._buffers.slots]:
            start = known = None
        return _at_rest(teacher, teacher.copies(start), known, 0, run)

    def _move(self, run: Run) -> Any:
        buffers, note = self._buffers, None
        if not buffers.once:
            self._start = buffers.copies()
            if buffers.held:
                note = Writes(_held(buffers))
                self._known = note.found

        def again() -> Runner:
            return _runner(buffers, self._known, note.at if note else 0)

        with note.inside() if note else contextlib.nullcontext():
            return noted(again, run)


def _held(buffers: Buffers) -> list[Slot]:
    return [slot for slot in buffers.slots if slot.name in buffers.held]


def _at_rest(buffers: Buffers, values: list[Tensor | None], known: list[Tensor] | None, at: int, run: Run) -> Any:
    """`run()`, a forward pass or a part of it, on these buffers; its writes into held ones are known from `at` on."""
    with swapped(buffers.slots, values):
        writes = None if known is None else Writes(_held(buffers), known, at)

        def again() -> Runner:
            return _runner(buffers, known, writes.at if writes else 0)

        with writes.inside() if writes else contextlib.nullcontext():
            return noted(again, run)


def _runner(buffers: Buffers, known: list[Tensor] | None, at: int) -> Runner:
    """Goes back, as often as asked, to the buffers as they are now."""
    start = buffers.copies()
    return lambda run: _at_rest(buffers, buffers.copies(start), known, at, run)
