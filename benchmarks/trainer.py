"""Hugging Face's Trainer as one side of `benchmarks.throughput`: a turn of plain training in one of its three modes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

MODES = ("padding to {}", "dynamic padding", "group_by_length")  # {}: the longest length
BATCH = 32

transformers.logging.set_verbosity_error()


def picked(batches: Sequence[list[int]], lengths: Sequence[int], turn: int, count: int) -> list[list[int]]:
    """Some batches of an epoch, evenly over their padded lengths, in random order; before them one more to warm up.

    Where the even places begin is drawn by turn, the same for every side of a turn.
    """
    generator = torch.Generator().manual_seed(turn)
    ordered = sorted(batches, key=lambda rows: max(lengths[i] for i in rows))
    first = torch.rand((), generator=generator).item()
    chosen = [ordered[int((k + first) * len(ordered) / count)] for k in range(count)]
    return [chosen[i] for i in (0, *torch.randperm(count, generator=generator).tolist())]


class _Some(Trainer):
    """The Trainer, which reads some of the batches of its own sampler."""

    def __init__(self, *args: Any, lengths: Sequence[int], turn: int, count: int, **more: Any) -> None:
        super().__init__(*args, **more)
        self._lengths, self._turn, self._count = lengths, turn, count
        self.rows: list[int] = []

    def _get_train_sampler(self, *args: Any) -> Any:
        rows = list(super()._get_train_sampler(*args))
        batches = [rows[i : i + BATCH] for i in range(0, len(rows) - BATCH + 1, BATCH)]
        self.rows = [i for one in picked(batches, self._lengths, self._turn, self._count) for i in one]
        return self.rows


class _Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.times = now, []

    def on_step_end(self, *args: Any, **more: Any) -> None:
        self.times.append(self.now())


def padded(encodings: Sequence[dict[str, list[int]]], labels: Sequence[int], to: int) -> list[dict[str, Any]]:
    """The examples as a data set of the Trainer; `to`: padded to as many tokens, 0 = not."""
    made = []
    for one, label in zip(encodings, labels, strict=True):
        n = len(one["input_ids"])
        row: dict[str, Any] = {name: ids + [0] * (to - n) for name, ids in one.items()}
        made.append(row | {"attention_mask": [1] * n + [0] * (to - n), "labels": label})
    return made


class Pad:
    """`DataCollatorWithPadding` without a tokenizer's own work: to the longest of the batch."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        names = [name for name in rows[0] if name != "labels"]
        made = {n: torch.tensor([row[n] + [0] * (longest - len(row[n])) for row in rows]) for n in names}
        return made | {"labels": torch.tensor([row["labels"] for row in rows])}


def train(
    model: nn.Module, data: Sequence[dict[str, Any]], mode: str, turn: int, count: int, now: Callable[[], float],
    device: str, **options: Any,
) -> tuple[float, list[int]]:  # fmt: skip
    """One turn.

    Args:
        model: trained in place.
        data: of `padded`.
        mode: of MODES.
        turn: its number, which seeds the order. count: batches that are timed; one more comes before them.
        now: the clock.
        device: "cpu" or "cuda", there under bf16.
        options: of TrainingArguments, besides.

    Returns:
        Seconds, and the rows that were trained on in that time.
    """
    clock, lengths = _Clock(now), [len(row["input_ids"]) for row in data]
    with tempfile.TemporaryDirectory() as folder:
        given = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, max_steps=count + 1, seed=turn, use_cpu=device == "cpu",
            bf16=device != "cpu", dataloader_pin_memory=device != "cpu", disable_tqdm=True, report_to="none",
            logging_strategy="no", save_strategy="no", optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length" if mode == "group_by_length" else "random", **options,
        )  # fmt: skip
        run = _Some(
            model, given, train_dataset=data, data_collator=Pad(), callbacks=[clock], lengths=lengths, turn=turn,
            count=count,
        )  # fmt: skip
        run.remove_callback(transformers.PrinterCallback)
        run.train()
    if len(clock.times) != count + 1:
        raise RuntimeError(f"Trainer: found {len(clock.times)} steps, expected {count + 1}")
    return clock.times[-1] - clock.times[0], run.rows[BATCH:]
