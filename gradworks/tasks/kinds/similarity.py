"""Similarity: the cosine of two texts' encodings, squared error (a bi-encoder, Reimers and Gurevych 2019, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradworks.base import Section
from gradworks.tasks.kinds._shared.parts import Values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec

_PARTS = ("first", "second")


class Options(Section):
    """scale: the label of two texts that mean the same; a cosine is compared with label / scale."""

    scale: float = Field(5.0, gt=0)


class Kind(Values):
    """(cosine - label / scale)^2; labels (n,) floating point, answers in their unit. The model's head is not used."""

    size = 0

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        if len(spec.texts) != 2:
            raise ValueError(f"texts: found {list(spec.texts)}\nexpected two, whose similarity it is")
        self.scale = float(spec.options.get("scale", Options().scale))

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Each text on its own, `max_length` tokens of each."""
        import torch

        made = [model.encode([(text,) for text in table[name].to_pylist()], max_length) for name in self.spec.texts]
        both = [
            {f"{part} {key}": ids for part, one in zip(_PARTS, pair, strict=True) for key, ids in one.items()}
            for pair in zip(*made, strict=True)
        ]
        return both, torch.tensor(table["label"].to_pylist(), dtype=torch.float32)

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        inputs = {}
        for part in _PARTS:
            made = model.collate([_part(one, part) for one in encodings])
            inputs |= {f"{part} {key}": tensor for key, tensor in made.items()}
        return inputs

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """One forward pass over the texts on each side; `embedded` as from `embed`. Returns the cosine (n, 1)."""
        from torch.nn import functional as F

        sides = [_part(batch.inputs, part) for part in _PARTS]
        given: Sequence[Tensor | None] = (None, None)
        if embedded is not None:
            first = model.embed(sides[0]).shape[1]
            given = (embedded[:, :first], embedded[:, first:])
        u, v = (model.vectors(side, one) for side, one in zip(sides, given, strict=True))
        return (F.cosine_similarity(u, v)[:, None],)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, L1 + L2, D) input embeddings of the first texts, then of the second."""
        import torch

        return torch.cat([model.embed(_part(batch.inputs, part)) for part in _PARTS], 1)

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) (cosine - label / scale)^2"""
        cosine = outputs[0][:, 0]
        return (cosine - batch.labels.to(cosine.dtype) / self.scale) ** 2

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) squared difference of the cosines."""
        return ((p[0] - q[0]) ** 2)[:, 0]

    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n,) cosine * scale."""
        return super().answers(outputs) * self.scale


def _part(inputs: dict[str, Any], part: str) -> dict[str, Any]:
    return {key.removeprefix(f"{part} "): one for key, one in inputs.items() if key.startswith(f"{part} ")}
