"""Passes from embeddings on, under the random numbers that a whole pass has behind its embeddings.

`embed` may draw masks of its own (the embedding layer of a BERT ends in dropout). A whole pass draws those first and
all others after them, from one stream; so does a pass that is given embeddings, once the generators are where `embed`
left them. Else two passes would see different masks, and one pass the same numbers twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradworks.methods._shared.point import cuda_devices
from gradworks.spec import Batch, Masks, Outputs, Task


class Embedded:
    """The embeddings of a batch, made in a context of `masks` that must go on with the pass from them.

    Attributes:
        e: (n, L, D), with a graph.
    """

    def __init__(self, task: Task, model: nn.Module, batch: Batch):
        self.e: Tensor = task.embed(model, batch)
        self._task, self._model, self._batch = task, model, batch
        self._cpu = torch.default_generator.get_state()
        devices = cuda_devices(list(model.parameters()))
        self._cuda = {index: torch.cuda.default_generators[index].get_state() for index in devices}

    def again(self, masks: Masks, embedded: Tensor, stream: int = 0) -> Outputs:
        """A further pass, from `embedded` (n, L, D); in stream 0 it draws what the first one drew."""
        with masks(stream):
            if stream == 0:
                torch.default_generator.set_state(self._cpu)
                for index, state in self._cuda.items():
                    torch.cuda.default_generators[index].set_state(state)
            return self._task.outputs(self._model, self._batch, embedded)
