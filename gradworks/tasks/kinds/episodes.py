"""Few-shot classification of pictures: N classes that were never trained on, K pictures of each to learn them from.

Training reads episodes of the training classes, so many batches of each as the update takes (`reptile: {tasks: same}`).
The stage `corrupt` makes an example of each episode of the selection and the test split: K pictures of each class to
learn from, some to be asked for. What is answered is the share of these that a copy of the model gets right after some
steps on the former (Nichol, Achiam and Schulman 2018, section 6.1), in two forms, each with a metric of its own: each
query alone, beside the K pictures of each class, and all queries in one batch (transductive).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gradworks.base import Section
from gradworks.base.errors import InputError
from gradworks.metrics import Score
from gradworks.metrics import episodes as metric_family
from gradworks.tasks.kinds import image
from gradworks.tasks.kinds._shared import pixels

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


_COLUMNS = ("right", "right_transductive")  # in the order of the metrics


class Inner(Section):
    """How the model learns the classes of an episode when it is evaluated.

    Attributes:
        optimizer: sgd | adam; adam has no first moment (beta_1 = 0), as in supervised-reptile.
        state: of adam; kept = it begins with the second moments that the inner steps of training left, as in
            supervised-reptile, where the update has such (`inner_optimizer: adam`, `inner_state: kept`); reset = it
            begins with zeros.
        learning_rate, steps, batch: of it.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    state: Literal["kept", "reset"] = "kept"
    learning_rate: float = Field(default=0.01, gt=0)
    steps: int = Field(default=10, ge=0)
    batch: int = Field(default=5, ge=1)


class Options(Section):
    """Of episodes.

    Attributes:
        shape: as of the kind `image`.
        ways: N. shots: K, when it is evaluated. train_shots: pictures of each class of a training episode.
        tail: how many of these pictures of each class are the last batch of an episode and in no other, whatever the
            size of a batch: supervised-reptile's `--foml-tail`, the query set of MAML; 0 = batches are drawn alike.
        queries: pictures of each class that are asked for.
        inner: see there.
        rotations: a class of the training split, turned by 90, 180 or 270 degrees, is a class too.
        select, test: episodes of these splits.
    """

    shape: image.ShapeOption
    ways: int = Field(default=5, ge=2)
    shots: int = Field(default=1, ge=1)
    train_shots: int = Field(default=5, ge=1)
    tail: int = Field(default=0, ge=0)
    queries: int = Field(default=1, ge=1)
    inner: Inner = Inner()
    rotations: bool = False
    select: int = Field(default=50, ge=1)
    test: int = Field(default=500, ge=2)


class Kind(image.Kind):
    """Cross entropy over N classes, by their place in the episode; labels of tables are names of classes, any.

    Attributes:
        options: see `Options`.
    """

    METRICS = metric_family.METRICS
    calibrated = False
    paced = "step"

    def __init__(self, spec: TaskSpec) -> None:
        if spec.classes is not None or spec.collapse:
            found = list(spec.classes or spec.collapse)
            raise ValueError(f"classes: found {found}\nexpected none: an episode draws its own")
        given = {key: value for key, value in spec.options.items() if key != "shape"}
        ways = given.get("ways", Options.model_fields["ways"].default)
        super().__init__(dataclasses.replace(spec, classes=tuple(map(str, range(ways)))))
        self.spec, self.columns = spec, _COLUMNS
        self.options = Options.model_validate({**given, "shape": self.shape})
        if self.options.tail >= self.options.train_shots:
            raise ValueError(
                f"tail: found {self.options.tail}\nexpected fewer than the {self.options.train_shots} train_shots"
            )
        if self.options.rotations and self.shape[0] != self.shape[1]:
            raise ValueError(f"rotations: found pictures of {list(self.shape)}\nexpected as high as wide")

    @property
    def carries(self) -> bool:
        return self.options.inner.optimizer == "adam" and self.options.inner.state == "kept"

    @property
    def reported(self) -> tuple[str, ...]:
        return self.spec.metrics

    # reading
    def label(self, raw: Any, given: bool) -> tuple[str | None, bool]:
        text = "" if raw is None else str(raw).strip()
        return (text, True) if text else (None, True)

    def accepts(self, label: Any) -> bool:
        return isinstance(label, str)

    def expected(self, also: Sequence[str] = ()) -> str:
        return "the name of a class"

    def signs(self, values: Sequence[str], marked: int) -> None:
        return None

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        """Not of each class: there are hundreds."""
        return {}

    def drawn_from(self, where: str) -> tuple[str, ...]:
        raise InputError(f"{where}: the task {self.name} has no classes of its own: each episode draws some")

    # episodes
    def arrange(self, name: str, table: pa.Table, seed: int, where: str) -> pa.Table:
        """A row for each episode of selection and test; selection by seed, test the same for every seed."""
        if name not in ("selection", "test"):
            return self._turned(table) if name == "train" and self.options.rotations else table
        import numpy as np
        import pyarrow as pa

        from gradworks.tasks.kinds._shared import drawn

        o, column, names = self.options, self.spec.texts[0], table["label"].to_pylist()
        each, count = o.shots + o.queries, o.select if name == "selection" else o.test
        found = pixels.Pictures(table[column], self.shape)
        classes = drawn.by_class(names, each, o.ways, f"{where}.{name}")
        made, labels = [], []
        for number in range(count):
            rows = drawn.draw(classes, o.ways, each, seed if name == "selection" else 0, f"{name} episode", number)
            order = [*rows[:, : o.shots].flatten().tolist(), *rows[:, o.shots :].flatten().tolist()]
            made.append(np.concatenate([found[row]["pixels"] for row in order]))
            labels.append(" ".join(names[row] for row in rows[:, 0].tolist()))
        whole = (self.shape[0] * o.ways * each, *self.shape[1:])
        ids = [f"{name}-episode-{number}" for number in range(count)]
        return pa.table({"id": ids, column: pixels.as_column(made, whole), "label": labels})

    def _turned(self, table: pa.Table) -> pa.Table:
        """Four times the rows: `ID/90` is ID turned by 90 degrees, of the class `LABEL/90`."""
        import numpy as np
        import pyarrow as pa

        column, parts = self.spec.texts[0], [table]
        found = pixels.Pictures(table[column], self.shape)
        for turns in (1, 2, 3):
            own = {name: table[name] for name in table.column_names}
            own |= {name: [f"{value}/{90 * turns}" for value in table[name].to_pylist()] for name in ("id", "label")}
            own[column] = self.column([np.rot90(found[row]["pixels"], turns) for row in range(len(table))])
            parts.append(pa.table(own, table.schema))
        return pa.concat_tables(parts)

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[Any, Tensor]:
        """Of pictures: labels (n,) the number of the class among those of the table. Of episodes: all 0."""
        import pyarrow as pa
        import torch

        column, o = self.spec.texts[0], self.options
        whole = (self.shape[0] * o.ways * (o.shots + o.queries), *self.shape[1:])
        if table.schema.field(column).type == pa.binary(whole[0] * whole[1] * whole[2]):
            return pixels.Pictures(table[column], whole), torch.zeros(len(table), dtype=torch.int64)
        return super().encode(table, model, max_length, where)

    def targets(self, table: pa.Table, where: str) -> Tensor:
        import torch

        names = table["label"].to_pylist()
        place = {name: i for i, name in enumerate(sorted(set(names)))}
        return torch.tensor([place[name] for name in names], dtype=torch.int64)

    def strata(self, labels: Tensor) -> None:
        return None

    def sampler(self, table: pa.Table, where: str) -> Callable[..., Iterator[tuple[list[int], Tensor]]] | None:
        """Rows and labels of training batches; None of a table of episodes."""
        import functools
        import math

        import pyarrow as pa

        from gradworks.tasks.kinds._shared import drawn

        if table.schema.field(self.spec.texts[0]).type != pa.binary(math.prod(self.shape)):
            return None
        o = self.options
        classes = drawn.by_class(table["label"].to_pylist(), o.train_shots, o.ways, where)
        return functools.partial(drawn.training, classes, o.ways, o.train_shots, o.tail)

    # evaluation
    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """(n, 2) the share of the queries of each episode that a copy of the model gets right, by form."""
        import numpy as np

        pictures = batch.inputs["pixels"].unflatten(1, (-1, self.shape[0]))
        return np.array([self._episode(model, *one) for one in zip(batch.ids, pictures, strict=True)])

    def _episode(self, model: nn.Module, name: str, pictures: Tensor) -> list[float]:
        import torch
        from torch.nn import functional as F

        from gradworks.tasks.kinds._shared import drawn

        o, learner = self.options, copy.deepcopy(model).train()
        known, asked = pictures.split([o.ways * o.shots, o.ways * o.queries])
        place = torch.arange(o.ways, device=pictures.device)
        labels, right = place.repeat_interleave(o.shots), place.repeat_interleave(o.queries)
        trained, rate = [p for p in learner.parameters() if p.requires_grad], o.inner.learning_rate
        adam = o.inner.optimizer == "adam"
        optimizer = torch.optim.Adam(trained, rate, (0.0, 0.999)) if adam else torch.optim.SGD(trained, rate)
        if self.carries and hasattr(learner, "moments"):
            learner.moments.give(optimizer, trained)
        batches = drawn.mini_batches(len(known), o.inner.batch, "evaluate", name)
        with torch.enable_grad():
            for _, rows in zip(range(o.inner.steps), batches, strict=False):
                optimizer.zero_grad()
                F.cross_entropy(learner({"pixels": known[rows]}), labels[rows]).backward()
                optimizer.step()
        learner.eval()
        with torch.no_grad():
            alone = torch.cat([learner({"pixels": torch.cat([known, one[None]])})[-1:] for one in asked])
            together = learner({"pixels": asked})
        return [float((z.argmax(1) == right).double().mean()) for z in (alone, together)]

    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n, 2) shares, as `respond` finds them: outputs of single pictures say nothing about an episode."""
        return outputs[0][:, : len(_COLUMNS)].double().numpy()

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        import pyarrow as pa

        columns = [[]] * len(_COLUMNS) if answers is None else answers.T
        return {name: pa.array(one, pa.float64()) for name, one in zip(_COLUMNS, columns, strict=True)}

    def read(self, table: pa.Table) -> np.ndarray:
        import numpy as np

        return np.stack([table[name].to_numpy() for name in _COLUMNS], axis=1)

    def check_metric(self, metric: str, where: str) -> None:
        super(image.classification.Kind, self).check_metric(metric, where)

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return metric_family.score(metric, labels, answers)

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return metric_family.of(metric, answers) if len(answers) > 1 else None

    def constants(self, labels: Any) -> list[np.ndarray]:
        """Chance."""
        import numpy as np

        return [np.full((len(labels), len(_COLUMNS)), 1 / self.options.ways)]

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        return {"chance": Score(1 / self.options.ways, len(labels))}

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        return answers[..., 0].argmax(axis=0)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return abs(a - b)[:, 0]
