"""The premise of every pass that is repeated or differenced, checked: a batch gives the same twice.

The same micro-batch at the same point under the same key must give the same outputs and the same losses. Where it does
not, a difference of two passes is noise over a small number. So one micro-batch of each kind is evaluated twice at
theta when it first comes, again when what is trained or a module's mode changes, and every `every` steps. Buffers rest
meanwhile, and the check finds which of them move (see `buffers.py`). The first evaluation is without a graph and the
second with one, so that a module which computes differently without is found too.

Cost: two forward passes over one micro-batch, 2/3 of a plain pass.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradworks.methods._shared.buffers import Buffers, Tree, swapped
from gradworks.methods._shared.cause import cause
from gradworks.methods._shared.difference import difference
from gradworks.methods._shared.inside import Seen, coarsest, is_compiled, shared
from gradworks.methods._shared.outside import Outside
from gradworks.methods._shared.point import fresh_autocast
from gradworks.methods._shared.tensors import precision
from gradworks.spec import Batch, Drawn, Outputs, Reduce, Task, offers

EVERY = 200  # steps: of a run of 200 the check is then at most 1 % for any method
_MOST_KINDS = 256

# largest difference over the largest output that can be rounding: of operations in another order, or on a GPU
_ROUNDING = {torch.float64: 1e-11, torch.float32: 3e-5}
_ROUNDING_HALF = 0.06


class Evaluation(NamedTuple):
    """What is evaluated twice.

    Attributes:
        masks: a context under which dropout draws the key of this micro-batch; nothing kept.
        embeds: by way of the input embeddings.
    """

    model: nn.Module
    task: Task
    batch: Batch
    masks: Callable[[], contextlib.AbstractContextManager]
    embeds: bool

    def outputs(self, graph: bool) -> Outputs:
        fresh_autocast()
        with torch.set_grad_enabled(graph):
            if not (self.embeds and offers(self.task, "embed")):
                with self.masks():
                    return self.task.outputs(self.model, self.batch)
            with self.masks():
                embedded = self.task.embed(self.model, self.batch)
            with self.masks():
                return self.task.outputs(self.model, self.batch, embedded)

    def loss(self, outputs: Outputs) -> Tensor:
        with torch.no_grad():
            return self.task.loss(tuple(t.detach() for t in outputs), self.batch)


class Replay:
    """When to check, and what was found.

    Attributes:
        moving: names of buffers that move in a forward pass, as far as seen.
        lowest: the coarsest type of what was computed with a graph.
        tree: of the model that was last checked, or found to need no check.
    """

    def __init__(self, every: int = EVERY):
        self._every = every
        self._since = 0
        self._kinds: list[str] = []
        self._setting = ""
        self._last: tuple | None = None  # of which parameters and modes `_setting` is
        self.tree = Tree()
        self.moving: list[str] = []
        self.lowest: torch.dtype | None = None

    def check(
        self, model: nn.Module, parameters: Sequence[nn.Parameter], batches: Sequence[Drawn], reduce: Reduce | None,
        twice: Callable[[int, int], Evaluation], once: bool = False,
    ) -> int:  # fmt: skip
        """Before a step that evaluates a micro-batch more than once.

        Args:
            twice: index of the batch, of its micro-batch -> what is to be evaluated.
            once: each micro-batch will be evaluated once, unless its kind, or what is trained, is new.

        Returns:
            Examples that were evaluated twice.

        Raises:
            ValueError: a micro-batch gave other outputs or losses the second time, on some rank.
        """
        self._since += 1
        self._follow(model, parameters)
        due: dict[str, tuple[int, int]] = {}
        for i, drawn in enumerate(batches):
            for k, batch in enumerate(drawn):
                of = kind(batch)
                if of not in self._kinds:
                    due.setdefault(of, (i, k))
        if due:
            due = dict(list(due.items())[: _MOST_KINDS - len(self._kinds)])
        if not due and not once and self._since >= self._every:
            due = {"": (0, 0)}
        if reduce is not None and not _any(bool(due), parameters, reduce):  # all ranks check, or none
            return 0
        if not due:
            if reduce is None:
                return 0
            due = {"": (0, 0)}
        self._since = 0
        examples, found = 0, ""
        for of, (i, k) in due.items():
            one = twice(i, k)
            examples += len(one.batch.mass)
            found = found or self._differs(one)
            if of:
                self._kinds.append(of)
        if reduce is not None:
            self.lowest = shared(self.lowest, reduce, parameters[0])
        if reduce is not None and _any(bool(found), parameters, reduce) and not found:
            found = "replay: on another rank a batch gave other outputs or losses the second time"
        if found:
            self.__init__(self._every)  # whoever goes on all the same is asked again
            raise ValueError(found)
        return examples

    def _follow(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        """Forget what was found when other parameters are trained or a module changes its mode."""
        self.tree.follow(model)
        modes = self.tree.modes()
        now = (tuple(map(id, parameters)), modes)
        if now == self._last:
            return
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        setting = hashlib.blake2b(repr((trained, modes)).encode(), digest_size=16).hexdigest()
        if setting != self._setting or self._last is not None:
            self._kinds, self.moving, self.lowest = [], [], None
        self._setting, self._last = setting, now

    def _differs(self, one: Evaluation) -> str:
        """Why the two evaluations differ, at most three lines; empty where they do not."""
        buffers, outside = Buffers(one.model, self.moving, tree=self.tree), Outside(one.model)
        start, seen = buffers.copies(all_of_them=True), Seen()

        def evaluated(graph: bool) -> Outputs:
            copies = buffers.copies(start, all_of_them=True)
            with swapped(buffers.slots, copies):
                with seen if graph and not is_compiled(one.model) else contextlib.nullcontext():
                    made = one.outputs(graph)
                self.moving += [name for name in buffers.moved(copies) if name not in self.moving]
                return tuple(t.detach() for t in made)

        try:
            first, second = evaluated(False), evaluated(True)
            self.lowest = coarsest((self.lowest, seen.kind))
            bound = _ROUNDING.get(_lowest(one.model, first), _ROUNDING_HALF)
            off = difference(first, second)
            if off > bound:
                return cause(one, lambda: evaluated(True), lambda: evaluated(False), off, bound)
            losses = [one.loss(first), one.loss(first)]
            off = difference(losses[:1], losses[1:])
            return cause(one, None, lambda: (one.loss(first),), off, bound) if off > bound else ""
        finally:
            outside.restore()

    def state_dict(self) -> dict[str, Any]:
        kinds, moving = list(self._kinds), list(self.moving)
        lowest = str(self.lowest or "").removeprefix("torch.")
        return {"since": self._since, "setting": self._setting, "kinds": kinds, "moving": moving, "lowest": lowest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._since, self._setting, self._last = state["since"], state["setting"], None
        self._kinds, self.moving = list(state["kinds"]), list(state["moving"])
        self.lowest = getattr(torch, state["lowest"]) if state["lowest"] else None


def _any(flag: bool, parameters: Sequence[Tensor], reduce: Reduce) -> bool:
    reduce(shared := [torch.tensor(float(flag), device=parameters[0].device)])
    return bool(shared[0] > 0)


def _lowest(model: nn.Module, outputs: Outputs) -> torch.dtype:
    kinds = {precision(next(p for p in model.parameters() if p.requires_grad)), *(t.dtype for t in outputs)}
    kinds = {k for k in kinds if k.is_floating_point}
    return max(kinds, key=lambda k: torch.finfo(k).eps)


def kind(batch: Batch) -> str:
    """Task, structure, keys and types of a batch; not its sizes."""
    return f"{batch.task}:{_kind(batch.inputs)}:{_kind(batch.labels)}"


def _kind(value: Any, depth: int = 4) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{value.ndim}"
    if depth and isinstance(value, Mapping):
        return "map " + ",".join(sorted(f"{key}:{_kind(one, depth - 1)}" for key, one in value.items())) + ";"
    if depth and isinstance(value, tuple):
        return "tuple " + ",".join(_kind(one, depth - 1) for one in value[:16]) + ";"
    if depth and isinstance(value, list):  # one entry per example, or per input
        return "list " + ",".join(dict.fromkeys(_kind(one, depth - 1) for one in value[:16])) + ";"
    if depth and type(value).__module__ != "builtins" and getattr(value, "__dict__", None):
        return type(value).__name__ + _kind(vars(value), depth - 1)
    return type(value).__name__
