"""Several tasks over the same rows as one: the encoder runs once, and each task's head computes its loss.

The loss of example i of a batch of n is

    sum over tasks t of weight_t * n * m_ti / M_t * l_ti

with l_ti the task's own loss, m_ti its mass (labelled words of a tagger, else 1) and M_t their sum over the batch, all
its micro-batches and ranks. So its mean over the batch is the sum of the tasks' mean losses, each times its weight. To
every objective, weighting and update it is one task: a weighting multiplies an example's whole loss.

Each task's outputs are, to the bit, those of a forward pass of its own under the same masks; see `Reading`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError
from gradworks.base.together import streams_of
from gradworks.spec import offers
from gradworks.tasks.kinds._shared.parts import Texts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks.kinds import Kind


class Together:
    """The task of a set; its batches are those of `gradworks.data.together.Joined`.

    It offers what all its tasks offer; a `divergence` only where every example of each has mass 1, as it does not see
    the masses.

    Args:
        kinds: task -> its kind.
        weights: of the tasks' losses; 1 without.
    """

    def __init__(self, kinds: Mapping[str, Kind], weights: Mapping[str, float] | None = None) -> None:
        self.kinds = dict(kinds)
        self._weights = [(weights or {}).get(task, 1.0) for task in kinds]
        self._members: list[int] = []  # how many outputs each has
        if all(offers(one, "embed") for one in kinds.values()):
            self.embed = self._embed
        if all(offers(one, "smoothed") for one in kinds.values()):
            self.smoothed = self._smoothed
        if all(offers(one, "divergence") and _of_mass_1(one) for one in kinds.values()):
            self.divergence = self._divergence

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """The outputs of every task, one after the other. One forward pass of the encoder."""
        if not hasattr(model, "reading"):
            raise InputError(f"together: found {type(model).__name__}, a model without heads\nexpected an encoder")
        made = []
        with model.reading() as reading:
            for task, kind in self.kinds.items():
                reading.next()
                made.append(kind.outputs(model, of(batch, task), embedded))
        self._members = list(map(len, made))
        return tuple(tensor for one in made for tensor in one)

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) see the module."""
        return self._summed(outputs, batch, lambda kind, z, own: kind.loss(z, own))

    def _smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        return self._summed(outputs, batch, lambda kind, z, own: kind.smoothed(z, own, share))

    def _summed(self, outputs: Outputs, batch: Batch, loss: Any) -> Tensor:
        total = None
        for (task, kind), weight, z in zip(self.kinds.items(), self._weights, self._split(outputs), strict=True):
            one = loss(kind, z, of(batch, task))
            one = (weight * batch.labels.factors[task]).to(one) * one
            total = one if total is None else total + one
        return total

    def _embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, L, D) the same for all tasks."""
        task, kind = next(iter(self.kinds.items()))
        return kind.embed(model, of(batch, task))

    def _divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) the sum over the tasks, each times its weight."""
        pairs = zip(self._weights, self.kinds.values(), self._split(p), self._split(q), strict=True)
        return sum(weight * kind.divergence(a, b) for weight, kind, a, b in pairs)

    def _split(self, outputs: Outputs) -> list[Outputs]:
        ends = [sum(self._members[: i + 1]) for i in range(len(self._members))]
        return [outputs[end - size : end] for end, size in zip(ends, self._members, strict=True)]


def of(batch: Batch, task: str) -> Batch:
    """What one of the tasks reads of a batch."""
    inputs = {name.partition(" ")[2]: one for name, one in batch.inputs.items() if name.partition(" ")[0] == task}
    return dataclasses.replace(batch, task=task, inputs=inputs, labels=batch.labels.of[task])


def check_rows(
    mixed: Any, kinds: Mapping[str, Kind], values: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]], where: str
) -> None:
    """Refuse a set whose tasks cannot read the same rows, by what params.yaml says alone.

    Args:
        mixed: the mixture. kinds: of its parts.
        values: of params.yaml, whose sections are checked. blocks: of its grid, those with the mixture.
        where: file and mixture.

    Raises:
        InputError: their training rows are of other files, splits or text columns, or drawn otherwise, or a condition
            changes which rows one of them has.
    """
    conditions = {name: values["corrupt"]["conditions"][name] or {} for block in blocks for name in block["condition"]}
    for tasks in mixed.sets.values():
        for name, key in ((n, k) for n, one in conditions.items() for k in ("imbalance", "leak") if k in one):
            if values["task"] in tasks:
                raise InputError(
                    f"{where}.together: found {values['task']} in a set, and the condition {name} with {key}\n"
                    "expected conditions that leave its rows: noise, or none"
                )
        asked = [_asked(values, task, kinds[task]) for task in tasks]
        for task, one in zip([*tasks][1:], asked[1:], strict=True):
            both = f"{where}.together: {next(iter(tasks))} and {task}"
            for key, found in one["read"].items():
                if found != asked[0]["read"][key]:
                    raise InputError(
                        f"{both}: found {key} {asked[0]['read'][key]!r} and {found!r}\n"
                        "expected training rows of the same files, split and text columns"
                    )
            if one["drawn"] != asked[0]["drawn"] and not (one["whole"] and asked[0]["whole"]):
                raise InputError(
                    f"{both}: found training rows that are drawn apart, by size, share or what other splits leave\n"
                    "expected the same four splits, and `ids: SOURCE` of one source, the name of the other"
                )


def _asked(values: Mapping[str, Any], task: str, kind: Kind) -> dict[str, Any]:
    """What the training rows of a task are read from, how they are drawn, and whether they are a whole split."""
    splits = values["corrupt"]["splits"] if task == values["task"] else values["corrupt"]["parts"][task]
    taken = {name: splits[name] for name in ("train", "clean", "selection", "test")}

    def of(path: str) -> dict[str, Any]:
        name, _, split = path.partition("/")
        source = values["fetch"].get(name) or {}  # of `label` there is none
        columns = source.get("columns") or {}
        return {
            "ids": source.get("ids") or name,
            "from": source.get("from", name),
            "split": (source.get("files") or {}).get(split, split),
            "texts": [columns.get(text, text) for text in kind.spec.texts],
            **{key: source.get(key) for key in ("layout", "config", "header", "seed", "rows", "sha256")},
        }

    read = of(taken["train"]["from"])
    drawn = {name: {**one, "from": of(one["from"])} for name, one in taken.items()}
    also = {key: splits.get(key) for key in ("duplicates", "split_seed")}
    del read["ids"]
    alone = all(one["from"] != taken["train"]["from"] for name, one in taken.items() if name != "train")
    return {
        "read": read,
        "drawn": (drawn, also),
        "whole": alone and set(taken["train"]) == {"from"} and not any(also.values()),
    }


def _of_mass_1(kind: Kind) -> bool:
    return getattr(type(getattr(kind, "kind", kind)), "collate", None) is Texts.collate


def kinds_of(kinds: Mapping[str, Kind], sets: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What is trained, by the parts that a schedule chooses from: the kind of a task, or `Together` of a set.

    Args:
        kinds: of the parts, in their order.
        sets: name -> task -> weight.
    """
    made = streams_of(list(kinds), sets)
    return {
        name: Together({task: kinds[task] for task in tasks}, sets[name]) if name in sets else kinds[name]
        for name, tasks in made.items()
    }


def check_method(method: Any, sets: Mapping[str, Mapping[str, float]], where: str, name: str) -> None:
    """Raises InputError where a method needs what a set of tasks does not have: a gradient, or classes, of each task.

    Args:
        method: a `gradworks.methods.Method`. name: of it.
        sets: of the mixture. where: params file and mixture.
    """
    named = [" and ".join(tasks) for tasks in sets.values()]
    if named and method.needs.batches == "one_per_task":
        found = type(method.update).__module__.rpartition(".")[2]
        raise InputError(
            f"{where}.together: found {named[0]}, and methods.{name}: {found} takes a gradient of each task\n"
            "expected an update of the sum of their losses, such as erm; or no set"
        )
    if named and getattr(method.weighting, "classes", False):
        found = type(method.weighting).__module__.rpartition(".")[2]
        raise InputError(
            f"{where}.together: found {named[0]}, and methods.{name}: {found} counts the classes of one task\n"
            "expected a weighting that asks for no classes; or no set"
        )
