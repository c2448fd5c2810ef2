"""What a run trains on: parts by task name, and the batches of each step, drawn from them by a schedule.

One part is the plain stream of `batching.stream`, bit for bit. Of several, each has an order of its own, keyed by its
name: neither the other parts nor their order matter to it, and parts that share their rows are not read in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradworks import schedules
from gradworks.base.points import Slot
from gradworks.base.size import WINDOW, Size
from gradworks.base.together import streams_of
from gradworks.data.batching import Examples, balanced, key, steps_per_epoch, stream
from gradworks.data.together import joined
from gradworks.spec import Batch, Needs

_CLEAN_STREAM = 1_000_003  # keeps the order of clean batches apart from that of training batches


@dataclass(frozen=True)
class Part:
    """The examples of one task.

    Attributes:
        train: what is trained on. selection: what the best model is chosen by.
        clean: for weightings that need clean batches.
    """

    train: Examples
    selection: Examples
    clean: Examples | None = None


@dataclass(frozen=True)
class Mixture:
    """Parts by task name, the main one first.

    Attributes:
        parts: at least one; `Batch.task` of each is its name here.
        schedule: a file of gradworks/schedules/, or {its name: options}.
        window: of `batching.cuts`, for the batches of every part.
        batches: sizes of the batches of some parts, in the place of that of the run.
        together: sets of parts that read the same rows, by name, each task -> weight of its loss: one batch has the
            labels of all.
        streams: what the schedule chooses from: the sets, and the parts that are in none.

    Raises:
        ValueError: there is no part, the examples of a part are of another task, or `batches` names no part.
        InputError: the rows of a set differ.
    """

    parts: Mapping[str, Part]
    schedule: Slot = "single"
    window: int = WINDOW
    batches: Mapping[str, Size] = field(default_factory=dict)
    together: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    streams: Mapping[str, Part] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("mixture: found no part, expected at least one")
        for name, part in self.parts.items():
            for split in (part.train, part.selection, part.clean):
                if split is not None and split.task != name:
                    raise ValueError(f"mixture: part {name!r}: found examples of task {split.task!r}")
        for name in self.batches:
            if name not in self.parts:
                raise ValueError(f"mixture: batches: found {name!r}, expected one of {', '.join(self.parts)}")
        of = streams_of(list(self.parts), self.together)
        made = {name: self._joined(name, tasks) if name in self.together else self.parts[name]
                for name, tasks in of.items()}  # fmt: skip
        object.__setattr__(self, "streams", made)

    def _joined(self, name: str, tasks: Sequence[str]) -> Part:
        """The part that a set is; its selection examples are those of its first task, and not read."""
        parts = {task: self.parts[task] for task in tasks}
        train = joined(name, {task: part.train for task, part in parts.items()})
        clean = {task: part.clean for task, part in parts.items() if part.clean is not None}
        return Part(train, parts[tasks[0]].selection, joined(name, clean) if len(clean) == len(parts) else None)

    def size(self, name: str, batch: Size) -> Size:
        """Of a batch of a stream, in a run whose batches are of the size `batch`."""
        return self.batches.get(next(iter(self.together.get(name, [name]))), batch)

    def sizes(self, batch: Size) -> dict[str, int]:
        """Batches of one epoch by stream."""
        return {
            name: steps_per_epoch(part.train.tokens, self.size(name, batch), self.window)
            for name, part in self.streams.items()
        }

    def rows(self) -> list[tuple[str, str]]:
        """Stream and id of every training example, one stream after the other."""
        return [(name, key) for name, part in self.streams.items() for key in part.train.ids]

    def draws(self, needs: Needs, batch: Size, clean_batch: int | None, seed: int) -> Draws:
        """The batches of a run from its first step on; see `Draws`."""
        return Draws(self, needs, batch, clean_batch, seed)


class Draws:
    """The batches of a run, step after step; what was read of each part is state.

    Args:
        mixture: what is read.
        needs: of the update.
        batch: size of a batch.
        clean_batch: examples of the clean batch beside each, of the same part; None = there are none.
        seed: of all orders; all methods of a seed see the same batches of a part in the same order.

    Raises:
        InputError: the schedule cannot give the update what it needs.
        ValueError: a part has no examples, or no clean ones where they are asked for, or one that exceeds the budget.
    """

    def __init__(self, mixture: Mixture, needs: Needs, batch: Size, clean_batch: int | None, seed: int) -> None:
        schedules.check(mixture.schedule, needs, list(mixture.streams))
        self._mixture, self._needs, self._seed = mixture, needs, seed
        self._batch, self._clean_batch = batch, clean_batch
        self._sizes = mixture.sizes(batch)
        # an episode is a task: without `same` each batch is of another one
        self._together = schedules.group(needs, self._sizes) if needs.tasks == "same" else 1
        for name, part in mixture.streams.items():
            if not len(part.train):
                raise ValueError(f"mixture: part {name!r} has no examples to train on")
            if clean_batch is not None and not part.clean:
                raise ValueError(f"mixture: part {name!r} has no clean examples, and the weighting needs some")
        none = dict.fromkeys(mixture.streams, 0)
        self.load_state_dict({"read": none, "clean": none})

    def step(
        self, number: int, clean_for: Callable[[list[str]], Sequence[bool]] | None = None
    ) -> tuple[list[Batch], list[Batch | None]]:
        """The batches of an optimizer step, counted from 0, and the clean batch beside each; steps come in turn.

        Args:
            number: of the step.
            clean_for: which batches of a step, by their tasks, have a clean one beside them; by default all. For the
                others none is drawn, and None is in its place.
        """
        names = schedules.draw(self._mixture.schedule, number, self._needs, self._sizes, self._seed)
        wanted = clean_for(names) if clean_for and self._clean else [bool(self._clean)] * len(names)
        for name, one in zip(names, wanted, strict=True):
            self.read[name] += 1
            self.read_clean[name] += bool(one)
        clean = [next(self._clean[name]) if one else None for name, one in zip(names, wanted, strict=True)]
        return [next(self._train[name]) for name in names], clean if self._clean else []

    def state_dict(self) -> dict[str, Any]:
        """How many batches and clean batches were read of each part."""
        return {"read": dict(self.read), "clean": dict(self.read_clean)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the batches that were read. Raises ValueError where the state is of other parts."""
        if list(state["read"]) != list(self._mixture.streams):
            found, expected = (", ".join(one) for one in (state["read"], self._mixture.streams))
            raise ValueError(f"state of a mixture: found parts {found}; expected {expected}")
        self.read, self.read_clean = dict(state["read"]), dict(state["clean"])
        self._train: dict[str, Iterator[Batch]] = {}
        self._clean: dict[str, Iterator[Batch]] = {}
        for name, part in self._mixture.streams.items():
            alone = len(self._mixture.streams) == 1
            window = self._mixture.window
            seed, start = self._seed if alone else key(self._seed, "part", name), self.read[name]
            size = self._mixture.size(name, self._batch)
            self._train[name] = stream(part.train, size, seed, start, window, self._together)
            if self._clean_batch is not None:
                first = self.read_clean[name]
                self._clean[name] = balanced(part.clean, self._clean_batch, seed + _CLEAN_STREAM, first, window)
