"""The last layers of a model: `head` where it has one task, `heads.TASK` where it has several."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.models._shared.reading import Reading

Sizes = int | Mapping[str, int]  # outputs of the one head, or of each by task


class Heads(nn.Module):
    """A linear layer for each of several tasks; their names may be any, also those of attributes of a module.

    Args:
        width: of the vector that they read, or of that of each by task.
        sizes: outputs of each by task. `redraw` draws the weights, in any order of the tasks the same.
    """

    def __init__(self, width: Sizes, sizes: Mapping[str, int]) -> None:
        super().__init__()
        for task, outputs in sorted(sizes.items()):  # sums over parameters do not depend on the order of the mixture
            reads = width if isinstance(width, int) else width[task]
            self._modules[task] = nn.utils.skip_init(nn.Linear, reads, outputs)

    def of(self, task: str | None) -> nn.Module:
        """The layer of a task. Raises ValueError that lists the tasks there are."""
        if task not in self._modules:
            raise ValueError(f"model of several heads: found task {task!r}, expected one of {', '.join(self._modules)}")
        return self._modules[task]


class Headed(nn.Module):
    """Base class of models: a subclass calls `make_head` where its last layer is due, and `answer` at the end.

    Attributes:
        head: linear; of a model of one task.
        heads: of a model of several.
    """

    head: nn.Linear
    heads: Heads
    _reading: Reading | None = None

    def make_head(self, width: Sizes, sizes: Sizes) -> None:
        """Of one task the layer is drawn here, from torch's generator; of several by `redraw`."""
        self.width = width
        if isinstance(sizes, int):
            with warnings.catch_warnings():  # of a kind that compares encodings: a head of no outputs
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")
                self.head = nn.Linear(width, sizes)
            self.draw(self.head)
        else:
            self.heads = Heads(width, sizes)

    def draw(self, head: nn.Linear) -> None:
        """First weights of a head; those of `nn.Linear` unless a subclass says otherwise."""

    def answer(self, vector: Tensor, task: str | None) -> Tensor:
        """(n, width) -> (n, outputs of the task); a model of one head does not ask which."""
        return (self.heads.of(task) if hasattr(self, "heads") else self.head)(vector)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """Inside, heads that read the same rows share one forward pass of the encoder; see `Reading`."""
        devices = sorted({p.device.index for p in self.parameters() if p.is_cuda})
        before, self._reading = self._reading, Reading(devices)
        try:
            yield self._reading
        finally:
            self._reading = before

    def once(self, part: str, reads: Sequence[Tensor], make: Callable[[], Any], encoder: bool = True) -> Any:
        """`make()`; inside `reading` once for all heads that read the same. Arguments: see `Reading.__call__`."""
        return make() if self._reading is None else self._reading(part, reads, make, encoder)


def last_layers(model: nn.Module) -> nn.Module:
    """The head, or all heads."""
    return model.heads if hasattr(model, "heads") else model.head


def redraw(model: nn.Module, seed: int, first: bool = False) -> None:
    """Redraw the last layer of each task, where there are several by seed and task name. Moves torch's generator.

    Args:
        model: of this folder.
        seed: of the run.
        first: as a new model's are, not as those that are drawn again.
    """
    own = model.heads.named_children() if hasattr(model, "heads") else [("", model.head)]
    for task, head in own:
        torch.default_generator.manual_seed(_key(seed, task) if task else seed)
        head.reset_parameters()
        if first:
            model.draw(head)


def draw_layer(layer: nn.Module, seed: int) -> None:
    """First weights of a layer that tasks share, by the seed alone. Moves torch's generator."""
    torch.default_generator.manual_seed(_key(seed, ""))
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def resize(model: nn.Module, task: str, size: int, copies: int) -> None:
    """Make the head of a task its first `size` outputs and `copies` copies of these, for the heads of slices.

    The weights stay those that were drawn or learned, so a model with heads for slices starts as the one without, and
    each slice's head as the task's. Draws nothing.

    Args:
        model: of this folder. task: whose head, where there are several.
        size: outputs of the task's own head.
        copies: 0 takes the others away.
    """
    heads = model.heads if hasattr(model, "heads") else None
    old = model.head if heads is None else heads.of(task)
    new = nn.utils.skip_init(
        nn.Linear, old.in_features, size * (1 + copies), old.bias is not None, dtype=old.weight.dtype,
        device=old.weight.device,
    )  # fmt: skip
    with torch.no_grad():
        for name, tensor in new.named_parameters():
            first = getattr(old, name)[:size]
            tensor.copy_(torch.cat([first] * (1 + copies)))
            tensor.requires_grad_(getattr(old, name).requires_grad)
    if heads is None:
        model.head = new
        model.config["outputs"] = new.out_features
    else:
        heads._modules[task] = new
        model.config["outputs"] = {**model.config["outputs"], task: new.out_features}


def replace(model: Headed, sizes: Sizes, task: str, before: str | None, seed: int, width: Sizes) -> None:
    """The heads of another set of tasks: those of tasks that the model has stay, the others are drawn.

    Args:
        model: trained.
        sizes: outputs of the one head, or of each by task.
        task: whose head it is where there is one.
        before: the task of the head that the model has, where that is one.
        seed: of what is drawn; of several heads by task name, so that the other tasks do not matter to it.
        width: of the vector that they read, or of that of each by task.

    Raises:
        ValueError: a task's head has fewer outputs than it needs.
    """
    old = dict(model.heads.named_children()) if hasattr(model, "heads") else {before: model.head}
    first = next(iter(old.values()))
    for name in ("head", "heads"):
        if hasattr(model, name):
            delattr(model, name)
    with torch.random.fork_rng(devices=[]):
        model.make_head(width, sizes)
        redraw(model, seed, first=True)
    new = dict(model.heads.named_children()) if hasattr(model, "heads") else {task: model.head}
    for name, head in new.items():
        head.to(first.weight)
        if name in old:
            if old[name].out_features < head.out_features:
                found, needed = old[name].out_features, head.out_features
                raise ValueError(f"head of {name}: found {found} outputs, expected {needed}")
            if old[name].in_features != head.in_features:
                continue  # of a layer that was not there before
            with torch.no_grad():
                for key, tensor in head.named_parameters():
                    tensor.copy_(getattr(old[name], key)[: len(tensor)])  # those of slices are behind the task's own
    model.config["outputs"] = sizes if isinstance(sizes, int) else dict(sizes)


def _key(seed: int, task: str) -> int:
    """63 bits of blake2b of 'seed/head/task'."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/head/{task}".encode(), digest_size=8).digest(), "big") >> 1
