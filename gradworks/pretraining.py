"""Masked-language-model training of an encoder that lies in a folder; it goes on by itself after a kill.

Order, masks and dropout of a step are keyed by (seed, step), so a resumed run ends bit-identical to an unbroken one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from gradworks import loop
from gradworks.base.errors import InputError
from gradworks.base.progress import Progress
from gradworks.data.batching import key, order, steps_per_epoch
from gradworks.data.masking import IGNORED, Special, held_out, mask
from gradworks.learning_rate import linear
from gradworks.models import parameter_groups
from gradworks.models.transformer import input_names
from gradworks.spec import StepReport

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor, nn

    from gradworks.base.checkpoint import Checkpoint
    from gradworks.data.masking import Sequences
    from gradworks.models._shared.options import Pretrain

LOOKS = 20  # times in a run that the held-out loss is measured and a checkpoint is written
SAVE_SECONDS = 60.0  # between checkpoints at most


def losses(model: nn.Module, batch: dict[str, Tensor], next_sentence: bool) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of the predicted tokens, in nats, and of next-sentence prediction (0 without it).

    For BERT the vocabulary is scored at the predicted tokens only, which is most of the cost of a small model.
    """
    inputs = {name: batch[name] for name in input_names(model.base_model)}
    chosen = batch["targets"] != IGNORED
    if hasattr(model, "cls") and hasattr(model.cls, "predictions"):
        made = model.base_model(**inputs)
        scores = model.cls.predictions(made.last_hidden_state[chosen])
    else:
        scores = model(**inputs).logits[chosen]
    words = F.cross_entropy(scores, batch["targets"][chosen])
    if not next_sentence:
        return words, torch.zeros(())
    return words, F.cross_entropy(model.cls.seq_relationship(made.pooler_output), batch["next_sentence_label"])


def train(
    model: nn.Module,
    sequences: Sequences,
    tokenizer: Tokenizer,
    settings: Pretrain,
    device: torch.device,
    checkpoint: Checkpoint,
    stop: Callable[[], bool],
    name: str,
    watch: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Train a masked language model in place.

    Args:
        model: of transformers, with a head for masked tokens (and for next sentences).
        sequences: at least two.
        tokenizer: which made them.
        settings: of params.yaml.
        device: where to compute.
        checkpoint: where to resume from and to save to; the caller removes it when its outputs are written.
        stop: asked after every step; when true the checkpoint is saved and Stopped raised.
        name: of the encoder, for what is said.
        watch: called after every step, as in `loop.fit`; the report is None.

    Returns:
        One row a step: step, sequences, loss, learning_rate and, where it was measured, held_out_loss.

    Raises:
        Stopped: see `stop`.
        InputError: a loss was not finite.
    """
    special = Special.of(tokenizer)
    rows, held = held_out(len(sequences), settings.held_out, settings.seed)
    lengths = [sequences.lengths[r] for r in rows]
    held.sort(key=sequences.lengths.__getitem__)
    model.to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)

    def batch(chosen: list[int], *keys: int | str) -> dict[str, Tensor]:
        made = sequences.batch(chosen, special.pad)
        made["input_ids"], made["targets"] = mask(made["input_ids"], special, settings.mask, settings.seed, *keys)
        return {k: tensor.to(device) for k, tensor in made.items()}

    def backward(step: int) -> Callable[..., StepReport]:
        """What fills `.grad` in a step, under its own dropout masks."""

        def run(model: nn.Module, drawn: Any, _: Any) -> StepReport:
            optimizer.zero_grad()
            torch.manual_seed(key(settings.seed, "dropout", step))
            words, sentences = losses(model, drawn[0], settings.next_sentence)
            (words + sentences).backward()
            log = {"loss": words.item(), "finite": 1.0}
            if settings.next_sentence:
                log["next_sentence_loss"] = sentences.item()
            return StepReport(False, 1.0, log=log)

        return run

    def measure() -> dict[str, float]:
        """Loss on the held-out sequences under masks that are always the same."""
        model.eval()
        total = torch.zeros(2)
        with torch.no_grad():
            for start in range(0, len(held), settings.batch):
                part = held[start : start + settings.batch]
                both = losses(model, batch(part, "held out", start), settings.next_sentence)
                total += torch.stack([one.cpu() for one in both]) * len(part) / len(held)
        model.train()
        row = {"held_out_loss": float(total[0])}
        return row | ({"held_out_next_sentence_loss": float(total[1])} if settings.next_sentence else {})

    saved = checkpoint.load()
    if saved is None:
        history = [{"step": 0, "sequences": 0, "loss": None, "learning_rate": 0.0, **measure()}]
        print(f"{name}: held-out loss {history[0]['held_out_loss']:.3f} at the start", flush=True)
    else:
        history = saved["history"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        print(f"{name}: resumed from step {history[-1]['step']} of {settings.steps}", flush=True)

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        checkpoint.save(state)

    per_epoch = steps_per_epoch(lengths, settings.batch)
    every = max(1, settings.steps // LOOKS)
    batches: tuple[int, list[list[int]]] = (-1, [])
    last = time.monotonic()
    first, taken = history[-1]["sequences"], 0.0  # of this process; looks and checkpoints not counted
    with Progress(f"pretrain {name}", settings.steps, "step", start=history[-1]["step"]) as bar:
        for step in range(history[-1]["step"], settings.steps):
            began = time.perf_counter()
            epoch, position = divmod(step, per_epoch)
            if batches[0] != epoch:
                batches = (epoch, order(lengths, settings.batch, settings.seed, epoch))
            chosen = [rows[i] for i in batches[1][position]]
            made = loop.step(
                model, backward(step), optimizer, [batch(chosen, "mask", step)],
                rate=settings.learning_rate * linear(step, settings.steps, settings.warmup), largest=settings.clip,
            )  # fmt: skip
            row = {"step": step + 1, "sequences": history[-1]["sequences"] + len(chosen), **made.report.log}
            del row["finite"]
            seconds = time.perf_counter() - began
            taken += seconds
            if watch:
                figures = {"loss": made.loss, "learning_rate": made.rate, "gradient_norm": made.norm}
                watch(None, examples=len(chosen), seconds=seconds, **figures)
            if not made.finite:
                raise InputError(
                    f"pretrain.{name}.pretrain: diverged in step {step + 1}: loss {made.loss:.3g}, gradient norm "
                    f"{made.norm:.3g}\nexpected: finite; a learning_rate below {settings.learning_rate:g} may help"
                )
            row["learning_rate"] = made.rate
            look = (step + 1) % every == 0 or step + 1 == settings.steps
            history.append(row | (measure() if look else {}))
            bar.advance(loss=row["loss"])
            asked = stop()
            if look or asked or time.monotonic() - last > SAVE_SECONDS:
                save()
                last = time.monotonic()
            if asked:
                raise loop.Stopped(
                    f"{name}: stopped after step {step + 1} of {settings.steps}; the next run goes on there"
                )
    done = history[-1]["sequences"] - first
    rate = f"; {done / taken:,.0f} sequences a second" if taken else ""
    print(f"{name}: held-out loss {history[-1]['held_out_loss']:.3f} after step {settings.steps}{rate}", flush=True)
    return history
