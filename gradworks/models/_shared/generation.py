"""What models that write text share: any model of transformers with a language model's head, its tokenizer, LoRA.

A model of this family has, beside what every model has (see gradworks.models),
    exchanges(prompts, responses, ...) -> encodings, responses    token ids of both, for kinds of `_shared/written.py`
    generate(inputs, most, beams) -> list of texts                greedy where beams is 1, else beam search
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from gradworks.base import Section, artifacts
from gradworks.base.errors import InputError
from gradworks.models._shared import files
from gradworks.models._shared.checkpoints import from_checkpoint, tokenizer_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHAT = "chat_template.jinja"  # where transformers puts it too
PAD, END = "[PAD]", "[EOS]"  # of tokenizers that are made here


class Lora(Section):
    """Low-rank adapters (Hu et al., ICLR 2022) by peft; nothing else is trained.

    Attributes:
        rank, alpha, dropout: r, the scale alpha / r, and dropout before the adapter.
        targets: ends of the names of the linear layers that get one; all but the head by default.
    """

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | None = None


class Options(Section):
    """Either `from`, or the sizes of a new model with a byte-level vocabulary.

    Attributes:
        from_: a folder relative to the project, or a name on the Hugging Face hub with its `revision`.
        vocabulary: tokens at most.
        layers, width, heads, intermediate: of a new model; of an encoder-decoder, of each half.
        positions: tokens of a sequence at most.
        attention: sdpa | eager; eager can be differentiated twice. None: what transformers takes.
        lora: adapters alone are trained; without it, all weights.
    """

    byte_level: ClassVar = True

    model: str
    from_: str | None = Field(default=None, alias="from")
    revision: str | None = None
    lowercase: bool = False
    vocabulary: int | None = Field(default=None, ge=258)
    vocabulary_file: None = None
    layers: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    heads: int | None = Field(default=None, ge=1)
    intermediate: int | None = Field(default=None, ge=1)
    positions: int = Field(default=512, ge=8)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention: Literal["sdpa", "eager"] | None = None
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Options:
        sizes = [self.layers, self.width, self.heads]
        if self.from_ and (any(sizes) or self.intermediate or self.vocabulary):
            raise ValueError("`from` brings its own sizes and vocabulary")
        if not self.from_ and not all([*sizes, self.vocabulary]):
            raise ValueError("layers, width, heads and vocabulary are needed, or `from`")
        if self.width and self.heads and self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.revision and not self.from_:
            raise ValueError("revision is one of `from`")
        return self


class LanguageModel(nn.Module):
    """A model of transformers that writes text.

    Attributes:
        config: what gradworks.json holds.
        lm: transformers' model, or peft's around it.
        chat: the chat template of the checkpoint; "" where it has none.
    """

    def __init__(self, config: dict[str, Any], lm: nn.Module, tokenizer: Tokenizer, chat: str = "") -> None:
        super().__init__()
        self.config, self.lm, self.tokenizer, self.chat = config, lm, tokenizer, chat
        base = lm.get_base_model() if config["lora"] else lm
        self.sizes = base.config
        self._keeps = "logits_to_keep" in inspect.signature(base.forward).parameters

    @property
    def head(self) -> nn.Module:
        """The last layer; tied to the input embeddings in many models."""
        return self.lm.get_output_embeddings()

    def draw(self, head: nn.Linear) -> None:
        """As the other layers."""
        nn.init.normal_(head.weight, std=0.02)

    @property
    def positions(self) -> int | None:
        """Tokens of a sequence at most; None where the model does not limit them."""
        return getattr(self.sizes, "max_position_embeddings", None)

    def tokens(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """Token ids of each text; `special`: with what the tokenizer puts around it."""
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        return [one.ids for one in self.tokenizer.encode_batch(list(texts), add_special_tokens=special)]

    def written(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """Token ids of texts that the model is to write, each with its end where that is within `most` tokens."""
        end = self.config["end"][0]
        return [[*ids, end][:most] for ids in self.tokens(texts, special=False)]

    def encode(self, texts: Sequence[tuple[str, ...]], max_length: int) -> list[dict[str, list[int]]]:
        """Token ids of one sequence per example; several texts are joined by a line feed."""
        made = self.tokens(["\n".join(one) for one in texts], special=True)
        return [{"input_ids": ids[:max_length]} for ids in made]

    def collate(self, encodings: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """input_ids and attention_mask, (n, L), padded on the right."""
        lengths = torch.tensor([len(one["input_ids"]) for one in encodings])
        longest, pad = int(lengths.max()), self.config["pad"]
        ids = torch.tensor([[*one["input_ids"], *[pad] * (longest - len(one["input_ids"]))] for one in encodings])
        return {"input_ids": ids, "attention_mask": (torch.arange(longest) < lengths[:, None]).long()}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """(n, L, D) token embeddings."""
        return self.lm.get_input_embeddings()(inputs["input_ids"])

    def read(self, inputs: dict[str, Tensor], embedded: Tensor | None) -> dict[str, Tensor]:
        """What transformers' model takes: token ids, or their embeddings."""
        given = {"input_ids": inputs["input_ids"]} if embedded is None else {"inputs_embeds": embedded}
        return {**given, "attention_mask": inputs["attention_mask"]}

    def written_by(self, most: int, beams: int, **inputs: Tensor) -> Tensor:
        """(n, L) tokens from transformers' `generate`: greedy, or beam search."""
        return self.lm.generate(
            **inputs, max_new_tokens=most, num_beams=beams, do_sample=False,
            pad_token_id=self.config["pad"], eos_token_id=self.config["end"],
        )  # fmt: skip

    def decode(self, ids: Tensor) -> list[str]:
        """The text of each row up to its first end, without special tokens and blanks around it."""
        ends, made = set(self.config["end"]), []
        for row in ids.tolist():
            stop = next((i for i, token in enumerate(row) if token in ends), len(row))
            made.append(self.tokenizer.decode(row[:stop], skip_special_tokens=True).strip())
        return made


def adapted(lm: nn.Module, lora: dict[str, Any] | None, task: str) -> nn.Module:
    """The model with adapters. Raises InputError where peft is missing, or no layer has such a name."""
    if lora is None:
        return lm
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("lora: peft is not installed\nexpected: pip install 'gradworks[generation]'") from None
    config = LoraConfig(
        r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], task_type=task,
        target_modules=lora["targets"] or "all-linear", fan_in_fan_out=lm.config.model_type == "gpt2",
    )  # fmt: skip
    try:
        return get_peft_model(lm, config)
    except ValueError as error:
        raise InputError(f"lora.targets: {str(error).splitlines()[0][:200]}") from None


def describe(options: Options, folder: Path, end: list[int], pad: int) -> None:
    """Write our configuration beside transformers' own."""
    ours = options.model_dump(include={"model", "attention", "lora"})
    artifacts.write_json(folder / files.CONFIG, {**ours, "end": end, "pad": pad})


def adopt(auto: str, options: Options, folder: Path, where: str) -> None:
    """Write the folder of an existing checkpoint.

    Raises:
        InputError: there is no such checkpoint, it has no safetensors, no fast tokenizer or no token for the end, or a
            tensor is missing, extra or of another shape.
    """
    import transformers

    lm, loaded = from_checkpoint(getattr(transformers, auto), options, where, output_loading_info=True)
    for names, what in ((loaded["missing_keys"], "no tensor"), (loaded["unexpected_keys"], "tensor of no layer:")):
        for name in sorted(names):
            raise InputError(f"{where}.from: {options.from_}: {what} {name!r}")
    tokenizer = tokenizer_of(options, where)
    end = lm.generation_config.eos_token_id
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise InputError(f"{where}.from: {options.from_}: no eos_token_id\nexpected: a token that ends a text")
    end = end if isinstance(end, list) else [end]
    pad = next(i for i in (tokenizer.pad_token_id, lm.config.pad_token_id, end[0]) if i is not None)
    if isinstance(tokenizer.chat_template, str):
        (folder / CHAT).write_text(tokenizer.chat_template, encoding="utf-8")
    files.write_tokenizer(tokenizer.backend_tokenizer, folder)
    lm.config.save_pretrained(folder)
    files.write_tensors(folder / files.WEIGHTS, lm.state_dict())
    describe(options, folder, end, pad)


def build(
    kind: type[LanguageModel], folder: Path, config: dict[str, Any], outputs: Any, trained: bool
) -> LanguageModel:
    """The model of a folder; all weights are there, or none are, and all are fresh. See gradworks.models."""
    import transformers

    if outputs:
        raise InputError(
            f"{folder}: found model {config['model']}, which writes text and has no head for a task of another kind\n"
            "expected a task of the kind causal or seq2seq, or the model transformer"
        )
    try:
        sizes = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a transformers configuration: {str(error).splitlines()[0]}") from None
    attention = {"attn_implementation": config["attention"]} if config["attention"] else {}
    lm = getattr(transformers, kind.AUTO).from_config(sizes, **attention)
    path = folder / files.WEIGHTS
    if not trained and path.exists():
        files.fill(lm, files.read_tensors(path), path)
    chat = folder / CHAT
    model = kind(
        {**config, "outputs": 0}, adapted(lm, config["lora"], kind.TASK), files.read_tokenizer(folder),
        chat.read_text(encoding="utf-8") if chat.exists() else "",
    )  # fmt: skip
    if trained:
        files.fill(model, files.read_tensors(path), path)
    return model.train()


def write(model: LanguageModel, folder: Path) -> None:
    """Write a trained model: all weights, adapters beside what they adapt."""
    model.sizes.save_pretrained(folder)
    artifacts.write_json(folder / files.CONFIG, model.config)
    files.write_tokenizer(model.tokenizer, folder)
    files.write_tensors(folder / files.WEIGHTS, model.state_dict())
    if model.chat:
        (folder / CHAT).write_text(model.chat, encoding="utf-8")
