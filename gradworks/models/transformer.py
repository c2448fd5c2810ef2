"""Any encoder that transformers' AutoModel knows, with a linear classifier on one vector of the sequence.

A pair is read as [CLS] a [SEP] b [SEP] with token types 0 and 1 (BERT, Devlin et al. 2019, figure 4), or with
`pair: bi` each text on its own. transformers takes three to four seconds to import, so it is imported where a model is
made and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.models._shared import files, pairs, windows
from gradworks.models._shared.checkpoints import from_checkpoint, tokenizer_of
from gradworks.models._shared.heads import Headed, Sizes, draw_layer
from gradworks.models._shared.options import AutoModelOptions as Options
from gradworks.models._shared.pairs import Relational

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SECOND = "second "
_POOLER = "pooler."  # tensors that may be missing: masked-language-model training alone does not make them


class Transformer(Headed):
    """An AutoModel with a head, or a head for each of several tasks.

    Attributes:
        config: what gradworks.json holds.
        encoder: transformers' model.
        head, or heads: linear.
        relational: the layer that the heads of `config["layer"]` read, if there is one.
    """

    def __init__(self, config: dict[str, Any], encoder: nn.Module, tokenizer: Tokenizer, outputs: Sizes) -> None:
        super().__init__()
        self.config = {**config, "outputs": outputs}
        self.tokenizer = tokenizer
        self.encoder = encoder
        if config["pooling"] != "pooler" and getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # it would have parameters without gradient
        self.dropout = nn.Dropout(config["dropout"])
        if config.get("layer"):
            self.relational = Relational(encoder.config.hidden_size, config["dropout"])
        self.make_head(self._width(outputs), outputs)
        self._names = [name for name in input_names(encoder) if name != "attention_mask"]

    def _width(self, outputs: Sizes) -> Sizes:
        """Of what the head, or each head, reads."""
        size, layer = self.encoder.config.hidden_size, self.config.get("layer", [])
        read = {task: size if task in layer else 3 * size for task in self.config.get("pairs", [])}
        if isinstance(outputs, int):
            return next(iter(read.values()), size)
        return {task: read.get(task, size) for task in outputs} if read else size

    def arrange(self, outputs: Sizes, seed: int) -> Sizes:
        """Have the shared layer where `config` has tasks for it; what heads of these outputs read of each text."""
        if not self.config.get("layer"):
            self._modules.pop("relational", None)
        elif not hasattr(self, "relational"):
            self.relational = Relational(self.encoder.config.hidden_size, self.config["dropout"])
            draw_layer(self.relational, seed)
        return self._width(outputs)

    def draw(self, head: nn.Linear) -> None:
        """As BERT's own layers."""
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)

    def encode(self, texts: Sequence[tuple[str, ...]], max_length: int) -> list[dict[str, list[int]]]:
        """Token ids and types of one sequence per example, its longest text cut first where it exceeds `max_length`.

        Texts after the second are joined to the second by a blank. Of a bi-encoder there are two sequences per example
        of two texts, each of `max_length` tokens at most; the names of the second's begin with `second `.
        """
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)
        if self.config.get("pairs") and len(texts) and len(texts[0]) > 1:
            sides = [[one[0] for one in texts], [" ".join(one[1:]) for one in texts]]
            made = [[self._read(one) for one in self.tokenizer.encode_batch(side)] for side in sides]
            return [u | {f"{_SECOND}{name}": ids for name, ids in v.items()} for u, v in zip(*made, strict=True)]
        read = [(one[0], " ".join(one[1:])) if len(one) > 1 else one[0] for one in texts]
        return [self._read(one) for one in self.tokenizer.encode_batch(read)]

    def _read(self, one: Any) -> dict[str, list[int]]:
        parts = {"input_ids": "ids", "token_type_ids": "type_ids"}
        return {name: getattr(one, parts[name]) for name in self._names}

    def windows(
        self, texts: Sequence[tuple[str, ...]], max_length: int, step: int | None = None, first: int | None = None
    ) -> list[list[tuple[dict[str, list[int]], list[windows.Place | None]]]]:
        """Encodings of the windows of each example and the place of each token, see `windows.cut`."""
        found = windows.cut(self.tokenizer, texts, max_length, step, first)
        return [[(self._read(one), places) for one, places in example] for example in found]

    def collate(self, encodings: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """input_ids, token_type_ids where the model has them, and attention_mask, each (n, L); beside them those of a
        second text that is read on its own, of another length.
        """
        if encodings and f"{_SECOND}input_ids" in encodings[0]:
            first, second = zip(*map(_sides, encodings), strict=True)
            return self.collate(first) | {f"{_SECOND}{name}": one for name, one in self.collate(second).items()}
        longest = max(len(one["input_ids"]) for one in encodings)
        padding = self.encoder.config.pad_token_id or 0
        inputs = {
            name: torch.tensor(
                [one[name] + [padding * (name == "input_ids")] * (longest - len(one[name])) for one in encodings]
            )
            for name in self._names
        }
        lengths = torch.tensor([len(one["input_ids"]) for one in encodings])
        return {**inputs, "attention_mask": (torch.arange(longest) < lengths[:, None]).long()}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """(n, L, D) word embeddings, to which the encoder adds positions and token types; of two texts one by one."""
        made = self.encoder.get_input_embeddings()
        sides = [inputs[name] for name in ("input_ids", f"{_SECOND}input_ids") if name in inputs]
        return torch.cat([made(ids) for ids in sides], 1) if len(sides) > 1 else made(sides[0])

    def forward(self, inputs: dict[str, Tensor], embedded: Tensor | None = None, task: str | None = None) -> Tensor:
        """(n, outputs); `task`: whose head, where there are several."""
        layer, first, second = self.config.get("layer"), *_sides(inputs)
        length = first["input_ids"].shape[1]
        u = self.vectors(first, None if embedded is None else embedded[:, :length])
        if not second and not layer:
            return self.answer(self.dropout(u), task)
        v = self.vectors(second, None if embedded is None else embedded[:, length:]) if second else None
        if layer and (task in layer or not hasattr(self, "heads")):
            return self.answer(self.relational(u, torch.zeros_like(u) if v is None else v), task)
        return self.answer(self.dropout(u if v is None else pairs.features(u, v)), task)

    def tokens(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, L, H) one vector of each token, with the head's dropout: what the head reads of it."""
        return self.dropout(self._states(inputs, embedded).last_hidden_state)

    def vectors(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, H) one vector of each sequence, without the head's dropout."""
        made = self._states(inputs, embedded)
        if self.config["pooling"] == "pooler":
            return made.pooler_output
        if self.config["pooling"] == "cls":
            return made.last_hidden_state[:, 0]
        inside = inputs["attention_mask"].to(made.last_hidden_state.dtype)[..., None]
        return (made.last_hidden_state * inside).sum(1) / inside.sum(1)

    def _states(self, inputs: dict[str, Tensor], embedded: Tensor | None) -> Any:
        if embedded is not None:
            inputs = {**{k: v for k, v in inputs.items() if k != "input_ids"}, "inputs_embeds": embedded}
        return self.once("encoder", list(inputs.values()), lambda: self.encoder(**inputs))


def _sides(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was made of the first text, or of all, and of a second that is read on its own."""
    second = {name.removeprefix(_SECOND): one for name, one in found.items() if name.startswith(_SECOND)}
    return {name: one for name, one in found.items() if not name.startswith(_SECOND)}, second


def input_names(encoder: nn.Module) -> list[str]:
    """What an encoder reads: token types only where it tells two texts apart."""
    accepted = inspect.signature(encoder.forward).parameters
    types = getattr(encoder.config, "type_vocab_size", 0) > 1 and "token_type_ids" in accepted
    return ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]


def prepare(options: Options, tokenizer: Tokenizer, folder: Path, texts: int = 1, vectors: None = None) -> None:
    """Write the encoder folder of a new BERT without weights: `create` draws them. The last two are of other models."""
    from transformers import BertConfig

    ids = tokenizer.get_vocab()
    config = BertConfig(
        vocab_size=len(ids),
        num_hidden_layers=options.layers,
        hidden_size=options.width,
        num_attention_heads=options.heads,
        intermediate_size=options.intermediate or 4 * options.width,
        max_position_embeddings=options.positions,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
        pad_token_id=ids["[PAD]"],
    )
    config.save_pretrained(folder)
    files.write_tokenizer(tokenizer, folder)
    _describe(options, folder)


def adopt(options: Options, folder: Path, where: str) -> None:
    """Write the encoder folder of an existing checkpoint, its weights read by transformers itself.

    Args:
        options: `from` is a folder or a name on the hub; a hub name needs a revision.
        folder: exists.
        where: params file and key, for messages.

    Raises:
        InputError: there is no such checkpoint, it has no safetensors or no fast tokenizer, it has a decoder too, or a
            tensor of the encoder is missing, extra or of another shape. Heads of other tasks are left out; a pooler may
            be missing.
    """
    from transformers import AutoModel

    encoder, loaded = from_checkpoint(AutoModel, options, where, output_loading_info=True)
    if encoder.config.is_encoder_decoder:
        found = f"{where}.from: {options.from_}: found {encoder.config.model_type}, an encoder with a decoder"
        raise InputError(f"{found}\nexpected model: seq2seq, which writes text, or an encoder alone")
    parts = {encoder.base_model_prefix, *(name for name, _ in encoder.named_children())}
    mine = [n for n in loaded["unexpected_keys"] if n.split(".")[0] in parts and not n.endswith("position_ids")]
    for names, what in ((loaded["missing_keys"], "no tensor"), (mine, "tensor of no layer:")):
        for name in sorted(names):
            if not name.startswith(_POOLER):
                raise InputError(f"{where}.from: {options.from_}: {what} {name!r}")
    if any(name.startswith(_POOLER) for name in loaded["missing_keys"]):
        encoder.pooler = None
    files.write_tokenizer(tokenizer_of(options, where).backend_tokenizer, folder)
    encoder.config.save_pretrained(folder)
    write_encoder(encoder, folder)
    _describe(options, folder)


def language_model(options: Options, folder: Path, where: str) -> nn.Module:
    """transformers' masked language model of an encoder folder; with `from`, its heads are the checkpoint's.

    Raises:
        InputError: next-sentence prediction was asked for and the architecture has no head for it.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForPreTraining

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    kind: Any = AutoModelForMaskedLM
    if options.pretrain.next_sentence:
        kind = AutoModelForPreTraining
        if config.model_type != "bert":
            raise InputError(f"{where}.pretrain.next_sentence: found model type {config.model_type}, expected bert")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(options.pretrain.seed)
        return from_checkpoint(kind, options, where) if options.from_ else kind.from_config(config)


def write_encoder(encoder: nn.Module, folder: Path) -> None:
    """Write the weights of transformers' encoder."""
    files.write_tensors(folder / files.WEIGHTS, encoder.state_dict())


def _describe(options: Options, folder: Path) -> None:
    """Write our configuration beside transformers' own."""
    ours = options.model_dump(include={"model", "pooling", "attention", "dropout"})
    if options.pair != "cross":
        ours["pair"] = options.pair
    artifacts.write_json(folder / files.CONFIG, ours)


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Transformer:
    """The model of a folder; see gradworks.models. Only the pooler's weights may be missing in an encoder folder."""
    from transformers import AutoConfig, AutoModel

    try:
        sizes = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a transformers configuration: {str(error).splitlines()[0]}") from None
    attention = {"attn_implementation": config["attention"]} if config["attention"] else {}
    encoder = AutoModel.from_config(sizes, **attention)
    if config["pooling"] == "pooler" and getattr(encoder, "pooler", None) is None:
        raise InputError(f"{folder}: pooling: found pooler\nexpected cls or mean: {sizes.model_type} has no pooler")
    model = Transformer(config, encoder, files.read_tokenizer(folder), outputs).train()
    path = folder / files.WEIGHTS
    if trained:
        files.fill(model, files.read_tensors(path), path)
    elif path.exists():
        tensors = files.read_tensors(path)
        if getattr(encoder, "pooler", None) is None:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_POOLER)}
        files.fill(encoder, tensors, path, [name for name in encoder.state_dict() if name.startswith(_POOLER)])
    return model


def write(model: Transformer, folder: Path) -> None:
    """Write a trained model."""
    model.encoder.config.save_pretrained(folder)
    artifacts.write_json(folder / files.CONFIG, model.config)
    files.write_tokenizer(model.tokenizer, folder)
    files.write_tensors(folder / files.WEIGHTS, model.state_dict())
