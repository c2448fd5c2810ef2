"""Models: one file is one kind of model, found by its file name.

Every model has
    encode(texts, max_length) -> list of {name: token ids}     texts: one tuple of strings per example
    collate(encodings) -> {name: tensor}                       padded to the longest
    forward(inputs, embedded=None, task=None) -> (n, outputs)  raw outputs; `embedded` replaces the input embeddings,
                                                               `task` names the head where there are several
    embed(inputs) -> (n, L, D)                                 the input embeddings
    vectors(inputs, embedded=None) -> (n, H)                   of texts encoded one by one: what `similarity` compares
    head, or heads                                             the last, linear layer, or one by task
    answer(vectors, task)                                      the head of a task on what it reads
    windows(texts, max_length, step=None, first=None)          sequences of tokens with their places in the texts
    reading()                                                  inside, heads that read the same rows share one pass of
                                                               the encoder, which `once` is asked for
Models of sequences have tokens(inputs, embedded=None) -> (n, L, W): what the head reads of each token.
Models of pictures (`READS = "pictures"`) have no `encode` and no tokenizer, but `shape`, and `prepare` is given that.
Every file has `Options` (its keys in params.yaml), `prepare` (writes an encoder folder), `build` and `write`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gradworks.base.errors import InputError
from gradworks.models._shared import files, heads
from gradworks.models._shared.files import CONFIG as CONFIG
from gradworks.models._shared.files import read_tokenizer as read_tokenizer
from gradworks.models._shared.moments import Moments

_NORMS = ("Norm", "norm")  # parts of class names: LayerNorm, RMSNorm, BatchNorm1d, LlamaRMSNorm


def find(name: str, where: str = "model") -> ModuleType:
    """The file of a kind of model. Raises InputError that lists the names there are; `where` begins the message."""
    names = sorted(p.stem for p in Path(__file__).parent.glob("[!_]*.py"))
    if name not in names:
        raise InputError(f"{where}: found {name!r}\nexpected one of: {', '.join(names)}")
    return importlib.import_module(f"gradworks.models.{name}")


def reads(name: str) -> str:
    """What a kind of model reads of a row: "texts" or "pictures"."""
    return getattr(find(name), "READS", "texts")


def create(
    encoder_folder: Path, outputs: heads.Sizes, seed: int, pairs: Collection[str] = (), layer: Collection[str] = ()
) -> nn.Module:
    """A model with a fresh head on what the stage `pretrain` wrote.

    Args:
        encoder_folder: configuration, tokenizer and, where there are any, weights.
        outputs: of the head; or of each head by task. Of one task the model is the same either way.
        seed: of the head and of all weights that are not in the folder; the global random state is left alone. Each of
            several heads is drawn by seed and task name, so that neither the other tasks nor their order matter to it.
        pairs: tasks of two texts, which a bi-encoder reads one by one.
        layer: tasks whose heads read the shared layer of a bi-encoder, `_shared/pairs.py`.

    Raises:
        InputError: a file is missing or damaged, a weight is missing, extra or of another shape; a layer is asked for
            of a model that is no bi-encoder.
    """
    config = files.read_config(encoder_folder)
    kind = find(config["model"], f"{encoder_folder}: model")
    config |= _of_pairs(config, encoder_folder, pairs, layer)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the accelerators' generators too
        model = kind.build(encoder_folder, config, _sizes(outputs), trained=False)
        if hasattr(model, "heads"):
            heads.redraw(model, seed, first=True)
        if layer:
            heads.draw_layer(model.relational, seed)
        return model


def _of_pairs(
    config: Mapping[str, Any], folder: Path, pairs: Collection[str], layer: Collection[str]
) -> dict[str, Any]:
    """What a bi-encoder's configuration says of its tasks."""
    if config.get("pair") == "bi":
        return {"pairs": sorted(pairs), "layer": sorted(layer)}
    if layer:
        raise InputError(f"{folder}: found a layer of {', '.join(layer)}\nexpected an encoder with pair: bi")
    return {}


def fresh_head(model: nn.Module, seed: int) -> None:
    """Redraw the last layer, or all last layers; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        heads.redraw(model, seed)


def slice_heads(model: nn.Module, task: str, size: int, slices: int) -> None:
    """Give the head of a task, of `size` outputs, as many more for each slice: copies, see `heads.resize`."""
    heads.resize(model, task, size, slices)


def replace_heads(
    model: nn.Module, outputs: heads.Sizes, task: str, before: str | None, seed: int,
    pairs: Collection[str] = (), layer: Collection[str] = (),
) -> None:  # fmt: skip
    """Heads for other tasks than those the model was trained on; see `heads.replace`. Language models have none.

    Args:
        model: trained.
        outputs: as of `create`.
        task: of the one head, where it is one. before: of the one that the model has, where that is one.
        seed: of the heads of tasks that it has not seen.
        pairs, layer: as of `create`. A shared layer that the model has stays.
    """
    if isinstance(model, heads.Headed):
        sizes = _sizes(outputs)
        model.config |= _of_pairs(model.config, Path("the model"), pairs, layer)
        width = model.arrange(sizes, seed) if hasattr(model, "arrange") else model.width
        heads.replace(model, sizes, task, before, seed, width)


def train_head_only(model: nn.Module) -> None:
    """Freeze all but the last layer, or layers."""
    model.requires_grad_(False)
    heads.last_layers(model).requires_grad_(True)


def carry(model: nn.Module, carries: bool) -> None:
    """Give a model room for the moments of an inner optimizer, empty; or take it away. Models of pictures alone."""
    if carries:
        model.moments = Moments(model.parameters())
    elif hasattr(model, "moments"):
        del model.moments


def save(model: nn.Module, folder: Path) -> None:
    """Write a trained model: configuration, tokenizer, safetensors.

    `folder` is made where it is not there; a caller that wants it whole or not at all gives artifacts.atomic_folder's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module(type(model).__module__).write(model, folder)


def load(folder: Path) -> nn.Module:
    """What `save` wrote, in training mode. Raises InputError as `create` does."""
    config = files.read_config(folder)
    kind = find(config["model"], f"{folder}: model")
    outputs = config.get("outputs")
    if not all(isinstance(n, int) for n in (outputs.values() if isinstance(outputs, dict) and outputs else [outputs])):
        raise InputError(f"{folder}: an encoder without a head\nexpected: a model that the stage train wrote")
    with torch.random.fork_rng(devices=[]):
        return kind.build(folder, config, _sizes(outputs), trained=True)


def _sizes(outputs: heads.Sizes) -> heads.Sizes:
    """A number where there is one task."""
    if isinstance(outputs, Mapping):
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
    return outputs


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for any torch optimizer: weight decay on matrices, none on biases and norms.

    Frozen parameters are in neither group.
    """
    plain: set[int] = set()
    for module in model.modules():
        norm = any(part in type(module).__name__ for part in _NORMS)
        for name, parameter in module.named_parameters(recurse=False):
            if norm or name.startswith("bias"):
                plain.add(id(parameter))
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in plain], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in plain], "weight_decay": 0.0},
    ]
