"""A gradient method in the Hugging Face Trainer: `python examples/hf_trainer.py [--update dotprod] [--lora] [--bf16]`.

A tiny BERT with random weights learns which of three words a sentence contains; most of the training labels were
overwritten with class 0, and a hundred clean examples are kept apart. To use it elsewhere, take `MethodTrainer` and
the functions above it: schedule, clipping, evaluation and checkpoints stay the Trainer's.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from gradworks import Method


def outputs(model, batch, embedded=None):
    given = {"input_ids": batch["input_ids"]} if embedded is None else {"inputs_embeds": embedded}
    return model(**given, attention_mask=batch["attention_mask"]).logits


def loss(logits, batch):
    return F.cross_entropy(logits, batch["labels"], reduction="none")


def embed(model, batch):  # only asked for by objectives that perturb embeddings, as `divergence`
    return model.get_input_embeddings()(batch["input_ids"])


def divergence(a, b):  # symmetric KL
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1)


def sum_over_ranks(tensors):
    for tensor in tensors:
        dist.all_reduce(tensor)


class MethodTrainer(Trainer):
    """A Trainer whose gradient comes from a method.

    `gradient_accumulation_steps` is the number of micro-batches of one batch. A method that takes k batches a step
    (dotprod: 2) reads k times as many; what does not fill k batches at the end of an epoch is left out.

    Args:
        method: `{"objective": ..., "weighting": ..., "update": ...}`.
        clean_dataset: for weightings that need clean examples.
    """

    def __init__(self, model, args, *, method, clean_dataset=None, **options):
        if args.fp16:
            raise ValueError("fp16=True needs a GradScaler, which methods do not work with; use bf16=True")
        self.method = Method(
            **method, outputs=outputs, loss=loss, embed=embed, divergence=divergence, seed=args.seed,
            rank=args.process_index, reduce=sum_over_ranks if args.world_size > 1 else None,
        )  # fmt: skip
        if self.method.clean and not clean_dataset:
            raise ValueError(f"the weighting of {method} needs clean_dataset=...")
        self.clean_dataset, self._drawn = clean_dataset, []
        self._loss = float("nan")  # of the last step that was made
        args = copy.copy(args)
        args.gradient_accumulation_steps *= self.method.batches  # of these the Trainer makes one step
        super().__init__(model, args, **options)

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        self._drawn.append(self._prepare_inputs(inputs))
        shown = torch.zeros((), device=self.args.device)
        if not self.accelerator.sync_gradients:  # the last batch of the step is still to come
            return shown
        drawn, self._drawn = self._drawn, []
        k = self.method.batches
        if len(drawn) < k:  # without a gradient the optimizer leaves everything as it is
            return shown + self._loss  # the Trainer logs means over steps, into which this one must not bring a zero
        clean = [self.clean_batch(i) for i in range(k)] if self.method.clean else None
        batches, clean = next(self.method.groups(drawn, clean, accumulate=len(drawn) // k))
        with self.accelerator.autocast():
            report = self.method.backward(self.accelerator.unwrap_model(model), batches, clean)
        self._loss = report.log["loss"]
        return shown + self._loss

    def clean_batch(self, i):
        """Drawn by the number of the step, so that a resumed run draws the same ones."""
        number = (self.state.global_step * self.method.batches + i) * self.args.world_size + self.args.process_index
        order = torch.randperm(len(self.clean_dataset), generator=torch.Generator().manual_seed(number))
        rows = order[: self.args.per_device_train_batch_size].tolist()
        return self._prepare_inputs(self.data_collator([self.clean_dataset[row] for row in rows]))

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self.method.state_dict(), Path(output_dir, "method.pt"))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.method.load_state_dict(torch.load(Path(checkpoint, "method.pt"), weights_only=True))


def sentences(n, noisy, seed):
    """Sentences of ten words; the label says which of the words 1, 2, 3 it contains, a share `noisy` overwritten."""
    g = torch.Generator().manual_seed(seed)
    words, labels = torch.randint(4, 40, (n, 10), generator=g), torch.randint(0, 3, (n,), generator=g)
    words[torch.arange(n), torch.randint(0, 10, (n,), generator=g)] = labels + 1
    labels = torch.where(torch.rand(n, generator=g) < noisy, 0, labels)
    return [
        {"input_ids": x, "attention_mask": torch.ones_like(x), "labels": int(y)}
        for x, y in zip(words, labels, strict=True)
    ]


def trainer(method, folder, lora=False, **options):
    """A MethodTrainer on the sentences; `options` go to TrainingArguments."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=64, max_position_embeddings=16, num_labels=3)
    model = BertForSequenceClassification(config)
    if lora:
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules="all-linear"))
    gpu = torch.cuda.is_available()
    defaults = {"use_cpu": not gpu, "dataloader_pin_memory": gpu, "disable_tqdm": True, "report_to": "none"}
    defaults |= {"per_device_train_batch_size": 32, "num_train_epochs": 6, "learning_rate": 2e-2 if lora else 5e-3}
    return MethodTrainer(
        model,
        TrainingArguments(str(folder), **(defaults | options)),
        method=method,
        clean_dataset=sentences(100, 0.0, 2),
        train_dataset=sentences(1000, 0.6, 1),
        eval_dataset=sentences(300, 0.0, 3),
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for slot, name in (("objective", "supervised"), ("weighting", "reweight"), ("update", "erm")):
        parser.add_argument(f"--{slot}", default=name)
    parser.add_argument("--lora", action="store_true", help="train adapters and the head only")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    for method in ({}, {slot: getattr(args, slot) for slot in ("objective", "weighting", "update")}):
        with tempfile.TemporaryDirectory() as folder:
            run = trainer(method, folder, args.lora, bf16=args.bf16, save_strategy="no", logging_steps=50)
            run.train()
            accuracy = run.evaluate()["eval_accuracy"]
        print(f"{' x '.join(method.values()) or 'plain training'}: accuracy {accuracy:.3f}")
