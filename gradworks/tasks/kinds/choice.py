"""Choice: which of C texts goes with the others; a softmax over a score for each (Radford et al. 2018, section 3.3).

The classes are the names of the text columns of the choices. A choice is read after the other texts: premise, question,
choice. Choices share the head, so their order says nothing to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import Section
from gradworks.tasks.kinds import classification
from gradworks.tasks.kinds._shared import several

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


class Options(Section):
    """None."""


class Kind(classification.Kind):
    """Cross entropy over the scores of C choices; labels (n,) int64 indices of choices."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        lacks = [name for name in self.classes if name not in spec.texts]
        if lacks:
            raise ValueError(f"classes: found {lacks[0]}\nexpected names of text columns: {', '.join(spec.texts)}")
        self.size = 1
        self.shared = tuple(name for name in spec.texts if name not in self.classes)

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Each choice with the shared texts, `max_length` tokens of each."""
        columns = {name: table[name].to_pylist() for name in self.spec.texts}
        made = [
            model.encode(list(zip(*(columns[one] for one in (*self.shared, name)), strict=True)), max_length)
            for name in self.classes
        ]
        return [several.joined(parts) for parts in zip(*made, strict=True)], self.targets(table, where)

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return several.pad(model, encodings)

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """One forward pass over all choices; `embedded` as from `embed`. Returns scores (n, C)."""
        read = several.embedded_rows(batch.inputs, embedded)
        return (self.forward(model, several.rows(batch.inputs), batch.task, read).view(len(batch.ids), -1),)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, C * L, D) input embeddings of the choices, one after the other."""
        return several.embed(model, batch.inputs)

    def _logits(self, outputs: Outputs) -> Tensor:
        return outputs[0]
