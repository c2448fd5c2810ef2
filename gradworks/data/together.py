"""Several tasks' labels of the same rows: drawn as one batch, which an encoder reads once.

The batch of a set of tasks has the inputs of each, under `TASK NAME`, and `Labels`. What two tasks read alike lies in
the same memory, by which the model knows that it has read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gradworks.base.errors import InputError
from gradworks.data.batching import Encoding, Examples
from gradworks.spec import Batch

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 60  # characters


@dataclass(frozen=True)
class Labels:
    """The labels of a batch of several tasks; `labels[rows]` are those of some of its rows.

    Attributes:
        of: task -> its labels, dim 0 the example.
        factors: task -> (n,) n * mass / sum of the masses, over the whole batch, whatever micro-batch this is: the mean
            over the batch of factor * loss is the task's mean loss.
    """

    of: Mapping[str, Any]
    factors: Mapping[str, Tensor]

    def __getitem__(self, rows: Any) -> Labels:
        return Labels(*({task: one[rows] for task, one in each.items()} for each in (self.of, self.factors)))


@dataclass(frozen=True)
class Joined(Examples):
    """The examples of several tasks over the same rows, as `joined` makes them. Every row has mass 1.

    Attributes:
        members: task -> its examples; ids, lengths and strata are those of the first that has them.
    """

    members: Mapping[str, Examples] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Joined:
        return joined(self.task, {task: one.to(device) for task, one in self.members.items()})

    def batch(self, rows: Sequence[int]) -> Batch:
        """These rows, in this order, with the labels of every task. Raises ValueError where a task has others."""
        ids = [self.ids[i] for i in rows]
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        labels, factors = {}, {}
        for task, one in self.members.items():
            if [_row(one.ids[i]) for i in rows] != list(map(_row, ids)):
                raise ValueError(f"together: {task} and {next(iter(self.members))}: found other rows in a batch")
            labels[task], mass = one.labelled(index)
            factors[task] = len(ids) * mass.double() / mass.double().sum().clamp_min(1)
        return Batch(
            task=self.task,
            ids=ids,
            inputs=self._read(rows),
            labels=Labels(labels, factors),
            mass=torch.ones(len(ids), device=self.device),
            group=None if self.group is None else self.group[index],
        )

    def _read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The inputs of every task; one that equals an input of the first, but for its shape, is that."""
        found: dict[str, Tensor] = {}
        first: list[tuple[Tensor, Tensor]] = []  # on the CPU, and where the model reads it
        for task, one in self.members.items():
            for name, tensor in one.inputs(rows).items():
                there = next((own for known, own in first if _equal(known, tensor)), None)
                made = tensor.to(self.device) if there is None else there.view(tensor.shape)
                found[f"{task} {name}"] = made
                if one is next(iter(self.members.values())):
                    first.append((tensor, made))
        return found


def _equal(a: Tensor, b: Tensor) -> bool:
    same = a.dtype == b.dtype and a.numel() == b.numel() and len(a) == len(b)
    return same and torch.equal(a.flatten(), b.flatten())


def joined(name: str, members: Mapping[str, Examples]) -> Joined:
    """The examples of several tasks as those of one.

    Args:
        name: of the set.
        members: task -> its examples; ids are those of the first.

    Raises:
        InputError: their rows differ, or a model would read other tokens of one; or a task draws its own batches.
    """
    (main, first), *others = members.items()
    for task, one in members.items():
        if one.sampler is not None:
            raise InputError(f"together: found {task}, which draws its own batches\nexpected tasks that read rows")
    for task, one in others:
        _check(main, first, task, one)
    strata = next((one.strata for one in members.values() if one.strata is not None), None)
    base = {f.name: getattr(first, f.name) for f in dataclasses.fields(Examples) if f.init}
    return Joined(**base | {"task": name, "join": None, "truths": None, "strata": strata}, members=members)


def _check(main: str, first: Examples, task: str, one: Examples) -> None:
    """Raises InputError that names the first row that differs."""
    rows = [[_row(key) for key in some.ids] for some in (first, one)]
    if rows[0] != rows[1]:
        here, there = (set(some) for some in rows)
        only = [(main, key) for key in rows[0] if key not in there] + [
            (task, key) for key in rows[1] if key not in here
        ]
        said = f"row {only[0][1]} of {only[0][0]} alone" if only else "the same rows in another order"
        raise InputError(
            f"together: {main} and {task}: found {len(first)} and {len(one)} rows, {said}\n"
            "expected the same rows: the same source, split and size, and no row without a label or left out as one "
            "that another task is evaluated on"
        )
    for key, a, b in zip(first.ids, first.encodings, one.encodings, strict=True):
        if list(_tokens(a)) != list(_tokens(b)):
            found = " and ".join(str([len(part) for part in _tokens(some)]) for some in (a, b))
            raise InputError(
                f"together: {main} and {task}: row {_row(key)[:_SHOWN]}: found other tokens, {found} of them\n"
                "expected texts that both read as one sequence, of train.max_length tokens at most, and a transformer "
                "where one reads words and the other sentences"
            )


def _row(key: str) -> str:
    """An id without the name of the source, as `fetch` has it before the first `/`."""
    return key.partition("/")[2] or key


def _tokens(encoding: Encoding) -> Iterator[list[int]]:
    """The sequences that a model reads."""
    return (one for one in encoding.values() if isinstance(one, list))
