"""What `bow` and `gru` share: each text becomes one vector, features of the pair go into a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradworks.base import artifacts
from gradworks.models._shared import files, windows
from gradworks.models._shared.heads import Headed, Sizes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gradworks.models._shared.options import TwoTowers

VECTORS = "vectors.safetensors"  # frozen vectors have their own file: one DVC object for all models


class Towers(Headed):
    """Base class: a subclass turns embedded tokens into one vector per text.

    Attributes:
        config: what gradworks.json holds.
        embedding: (V, D) token embeddings.
        mlp: hidden layers; head, or heads: the last layer.
    """

    def __init__(
        self,
        config: dict[str, Any],
        tokenizer: Tokenizer,
        outputs: Sizes,
        size: int,
        hidden: int,
        activation: type[nn.Module],
    ) -> None:
        """`size`: of one text's vector; `hidden`: units of a hidden layer."""
        super().__init__()
        self.config = {**config, "outputs": outputs}
        self.tokenizer = tokenizer
        self.embedding = nn.Embedding(config["rows"], config["embedding"])
        nn.init.normal_(self.embedding.weight, std=config["embedding"] ** -0.5)  # a token's vector has length about 1
        self.dropout = nn.Dropout(config["dropout"])
        widths = [size * (4 if config["texts"] > 1 else 1)] + [hidden] * (config["layers"] - 1)
        self.mlp = nn.Sequential()
        for before, after in pairwise(widths):
            self.mlp.extend([nn.Linear(before, after), activation(), nn.Dropout(config["dropout"])])
        self.make_head(widths[-1], outputs)

    def encode(self, texts: Sequence[tuple[str, ...]], max_length: int) -> list[dict[str, list[int]]]:
        """Token ids of each text of each example, cut at `max_length` tokens; texts after the first are read as one."""
        parts = _columns(texts)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)
        columns = [
            [one.ids for one in self.tokenizer.encode_batch(column, add_special_tokens=False)] for column in parts
        ]
        return [{f"text{k}": ids for k, ids in enumerate(example)} for example in zip(*columns, strict=True)]

    def windows(
        self, texts: Sequence[tuple[str, ...]], max_length: int, step: int | None = None, first: int | None = None
    ) -> list[list[tuple[dict[str, list[int]], list[windows.Place | None]]]]:
        """Encodings of the windows of each example, whose texts are one sequence, and the place of each token, see
        `windows.cut`.
        """
        found = windows.cut(self.tokenizer, texts, max_length, step, first)
        return [[({"text0": one.ids}, places) for one, places in example] for example in found]

    def collate(self, encodings: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """`ids` (n, texts, L) and `lengths` (n, texts), an empty text counting as one padding token."""
        lengths = [[len(ids) for ids in one.values()] for one in encodings]
        longest = max(1, max(map(max, lengths)))
        rows = [[ids + [0] * (longest - len(ids)) for ids in one.values()] for one in encodings]
        return {"ids": torch.tensor(rows), "lengths": torch.tensor(lengths).clamp_min_(1)}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """(n, texts * L, D)"""
        return self.embedding(inputs["ids"].flatten(1))

    def forward(self, inputs: dict[str, Tensor], embedded: Tensor | None = None, task: str | None = None) -> Tensor:
        """(n, outputs). All texts of the batch are encoded in one call. `task`: whose head, where there are several."""

        def made() -> Tensor:
            read = self.vectors(inputs, embedded).view(*inputs["ids"].shape[:2], -1)
            return self.mlp(features(read, self.config["texts"] > 1))

        return self.answer(self.once("perceptron", reads(inputs, embedded), made, encoder=False), task)

    def vectors(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n * texts, H) one vector of each text; the encoding of a text on its own."""
        n, texts, length = inputs["ids"].shape

        def made() -> Tensor:
            flat = self.dropout(self.embed(inputs) if embedded is None else embedded).reshape(n * texts, length, -1)
            return self.read(flat, inputs["lengths"].flatten())

        return self.once("encoder", reads(inputs, embedded), made)

    def hidden(self, states: Tensor) -> Tensor:
        """(n, L, H) states of tokens -> (n, L, W), what the head reads of each: as of a text without another."""
        if self.config["texts"] > 1:
            nothing = torch.zeros_like(states)
            states = torch.cat([states, nothing, states, nothing], -1)
        return self.mlp(states)

    def read(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """(m, L, D) embedded tokens of m texts and their lengths (m,) -> (m, H)."""
        raise NotImplementedError


def reads(inputs: dict[str, Tensor], embedded: Tensor | None) -> list[Tensor]:
    """What the encoder depends on."""
    return [inputs["ids"], inputs["lengths"], *([] if embedded is None else [embedded])]


def features(texts: Tensor, pairs: bool) -> Tensor:
    """(n, 2, H) -> (n, 4H): [p; h; p - h; p * h] (the reweighting paper, eq. 10); (n, 1, H) -> (n, H).

    Where other tasks of the model have pairs (`pairs`), the second text of (n, 1, H) is the vector 0.
    """
    if not pairs:
        return texts[:, 0]
    p, h = texts.unbind(1) if texts.shape[1] > 1 else (texts[:, 0], torch.zeros_like(texts[:, 0]))
    return torch.cat([p, h, p - h, p * h], 1)


def mask(lengths: Tensor, longest: int) -> Tensor:
    """(m, L) true at the tokens of each text, false at its padding."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def mean(states: Tensor, lengths: Tensor) -> Tensor:
    """(m, L, H) -> (m, H), the mean over the tokens of each text."""
    inside = mask(lengths, states.shape[1]).to(states.dtype)
    return torch.einsum("mlh,ml->mh", states, inside) / lengths[:, None].to(states.dtype)


def prepare(options: TwoTowers, tokenizer: Tokenizer, folder: Path, texts: int, vectors: Tensor | None) -> None:
    """Write an encoder folder.

    Args:
        options: of params.yaml.
        tokenizer: its ids are the rows of the embedding.
        folder: exists.
        texts: texts of one example: 1 or 2.
        vectors: (V, D) or None: embeddings are then drawn when a model is created.
    """
    config = options.model_dump(exclude={"lowercase", "vocabulary", "vocabulary_file", "vectors"})
    config["texts"] = texts
    config["frozen"] = bool(options.vectors and options.vectors.frozen)
    if vectors is not None:
        config["embedding"] = vectors.shape[1]
        files.write_tensors(folder / (VECTORS if config["frozen"] else files.WEIGHTS), {"embedding.weight": vectors})
    config["rows"] = tokenizer.get_vocab_size()
    artifacts.write_json(folder / files.CONFIG, config)
    files.write_tokenizer(tokenizer, folder)


def build(kind: type[Towers], folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Towers:
    """The model of a folder; `trained`: all weights are there; else the embeddings may be, and all others are fresh."""
    model = kind(config, files.read_tokenizer(folder), outputs)
    names = model.state_dict().keys()
    frozen = {"embedding.weight"} if config["frozen"] else set()
    if frozen:
        model.embedding.weight.requires_grad_(False)
        files.fill(model, files.read_tensors(folder / VECTORS), folder / VECTORS, names - frozen)
    path = folder / files.WEIGHTS
    if trained or path.exists():
        files.fill(model, files.read_tensors(path), path, frozen if trained else names - {"embedding.weight"})
    return model


def write(model: Towers, folder: Path) -> None:
    """Write a trained model."""
    artifacts.write_json(folder / files.CONFIG, model.config)
    files.write_tokenizer(model.tokenizer, folder)
    state = dict(model.state_dict())
    if model.config["frozen"]:
        files.write_tensors(folder / VECTORS, {"embedding.weight": state.pop("embedding.weight")})
    files.write_tensors(folder / files.WEIGHTS, state)


def _columns(texts: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """First texts and, where examples have more, all the others of each joined by a blank."""
    first = [one[0] for one in texts]
    return [first, [" ".join(one[1:]) for one in texts]] if texts and len(texts[0]) > 1 else [first]
