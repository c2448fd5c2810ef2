"""Activation checkpointing: what runs again in a backward pass runs where it ran in its forward pass.

`torch.utils.checkpoint` calls a part of the model once more while its backward pass is under way. By then the point of
the pass, its buffers at rest and what they held are gone, and the part would be computed elsewhere without a word. So
while a step runs, each checkpointed part notes where it is and goes back there. The random state is torch's own concern
and always kept. The reentrant kind, which torch refuses under `torch.autograd.grad`, runs as the other kind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import checkpoint as torch_checkpoint

Run = Callable[[], Any]
Runner = Callable[[Run], Any]  # runs a function somewhere: at a point, with buffers at rest
_GENERATOR = "_checkpoint_without_reentrant_generator"  # private, in every torch since 2.1

_here = threading.local()  # backward passes of a GPU run on a thread of their own


def _captures() -> list[Callable[[], Runner]]:
    return _here.__dict__.setdefault("captures", [])


def noted(capture: Callable[[], Runner], run: Run) -> Any:
    """`run()`; each part of it that is checkpointed runs again through what `capture()` gives where the part begins."""
    captures = _captures()
    captures.append(capture)
    try:
        return run()
    finally:
        captures.pop()


class recomputed_in_place:
    """Around a step: forward passes and their backward passes."""

    def __enter__(self) -> None:
        self._own = own = getattr(torch_checkpoint, _GENERATOR, None)
        if own is None:
            raise RuntimeError(f"torch.utils.checkpoint: no {_GENERATOR}; expected a torch from 2.6 on that has it")

        def generator(part: Callable[..., Any], preserve_rng_state: bool, *rest: Any, **options: Any) -> Any:
            runners = [capture() for capture in _captures()]

            def again(*args: Any, **kwargs: Any) -> Any:
                torch.clear_autocast_cache()  # casts of the parameters may be those of another point
                run: Run = lambda: part(*args, **kwargs)  # noqa: E731
                for runner in reversed(runners):
                    run = lambda runner=runner, inner=run: runner(inner)  # noqa: E731
                return run()

            # dropout of a part that does not keep the random state would draw other masks
            return own(again, True, *rest, **options)

        self._function = torch_checkpoint.CheckpointFunction
        setattr(torch_checkpoint, _GENERATOR, generator)
        torch_checkpoint.CheckpointFunction = _NotReentrant

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        setattr(torch_checkpoint, _GENERATOR, self._own)
        torch_checkpoint.CheckpointFunction = self._function
        refuse(error)


def refuse(error: BaseException | None) -> None:
    """Raises ValueError, in words, where it is that of a checkpointed part which is not the same when it runs again."""
    if isinstance(error, torch_checkpoint.CheckpointError):
        raise ValueError(
            f"torch.utils.checkpoint: {str(error).splitlines()[0].removeprefix('torch.utils.checkpoint: ')}\n"
            "a part of the model did something else when it ran again; expected it without activation checkpointing"
        ) from error


class _NotReentrant:
    """In the place of `torch.utils.checkpoint.CheckpointFunction`."""

    @staticmethod
    def apply(part: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return torch_checkpoint.checkpoint(part, *args, use_reentrant=False)
