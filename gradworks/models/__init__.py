"""Models: one file is one kind of model, found by its file name.

Every model has
    encode(texts, max_length) -> list of {name: token ids}     texts: one tuple of strings per example
    collate(encodings) -> {name: tensor}                       padded to the longest
    forward(inputs, embedded=None) -> (n, outputs)             raw outputs; `embedded` replaces the input embeddings
    embed(inputs) -> (n, L, D)                                 the input embeddings
    head                                                       the last, linear layer
and every file has `Options` (its keys in params.yaml), `prepare` (writes an encoder folder), `build` and `write`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gradworks.base.errors import InputError
from gradworks.models._shared import files
from gradworks.models._shared.files import CONFIG as CONFIG
from gradworks.models._shared.files import read_tokenizer as read_tokenizer

_NORMS = ("Norm", "norm")  # parts of class names: LayerNorm, RMSNorm, BatchNorm1d, LlamaRMSNorm


def find(name: str, where: str = "model") -> ModuleType:
    """The file of a kind of model. Raises InputError that lists the names there are; `where` begins the message."""
    names = sorted(p.stem for p in Path(__file__).parent.glob("[!_]*.py"))
    if name not in names:
        raise InputError(f"{where}: found {name!r}\nexpected one of: {', '.join(names)}")
    return importlib.import_module(f"gradworks.models.{name}")


def create(encoder_folder: Path, outputs: int, seed: int) -> nn.Module:
    """A model with a fresh head on what the stage `pretrain` wrote.

    Args:
        encoder_folder: configuration, tokenizer and, where there are any, weights.
        outputs: of the head.
        seed: of the head and of all weights that are not in the folder; the global random state is left alone.

    Raises:
        InputError: a file is missing or damaged, a weight is missing, extra or of another shape.
    """
    config = files.read_config(encoder_folder)
    kind = find(config["model"], f"{encoder_folder}: model")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the accelerators' generators too
        return kind.build(encoder_folder, config, outputs, trained=False)


def fresh_head(model: nn.Module, seed: int) -> None:
    """Draw the last layer anew; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model.head.reset_parameters()


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
    if not isinstance(config.get("outputs"), int):
        raise InputError(f"{folder}: an encoder without a head\nexpected: a model that the stage train wrote")
    with torch.random.fork_rng(devices=[]):
        return kind.build(folder, config, config["outputs"], trained=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for any torch optimizer: weight decay on matrices, none on biases and norms.

    Frozen parameters stand in neither group.
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
