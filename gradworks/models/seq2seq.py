"""Any encoder-decoder that transformers' AutoModelForSeq2SeqLM knows, whole or through LoRA adapters.

The encoder reads a source, cut at its end; the decoder writes the response. transformers is imported where a model is
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from gradworks.base.errors import InputError
from gradworks.models._shared import files, generation
from gradworks.models._shared.generation import END, PAD, LanguageModel, describe, write

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Options", "Seq2Seq", "adopt", "build", "prepare", "write"]


class Options(generation.Options):
    """architecture: of a new model."""

    architecture: Literal["t5", "bart"] = "t5"


class Seq2Seq(LanguageModel):
    """The encoder reads the source, the decoder the response so far; gives the logits of each token of the response."""

    AUTO, TASK = "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"

    def exchanges(
        self, prompts: Sequence[str], responses: Sequence[str], max_length: int, most: int
    ) -> tuple[list[dict[str, list[int]]], list[list[int]], list[int]]:
        """Token ids of sources and responses; every response begins at 0.

        Args:
            prompts, responses: n texts each.
            max_length: tokens of a source. most: of a response, its end included. What is longer is cut.

        Raises:
            InputError: the model has fewer positions.
        """
        longest = max(max_length, most)
        if self.positions and longest > self.positions:
            raise InputError(f"train.max_length: found {longest}\nexpected at most {self.positions}, its positions")
        encodings = []
        for ids in self.tokens(prompts, special=True):
            cut = [*ids[: max_length - 1], ids[-1]] if len(ids) > max_length else ids  # the end mark stays
            encodings.append({"input_ids": cut or self.config["end"][:1]})
        written = self.written(responses, most)
        return encodings, written, [0] * len(written)

    def forward(
        self, inputs: dict[str, Tensor], embedded: Tensor | None = None, task: str | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """(n, R, V) logits of each token of the response `labels` (n, R), given those before it; -100 is padding."""
        before = self.lm.prepare_decoder_input_ids_from_labels(labels)
        return self.lm(**self.read(inputs, embedded), decoder_input_ids=before, use_cache=False).logits

    def vectors(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, H) the mean of the encoder's last states."""
        made = self.lm.get_encoder()(**self.read(inputs, embedded)).last_hidden_state
        inside = inputs["attention_mask"].to(made.dtype)[..., None]
        return (made * inside).sum(1) / inside.sum(1)

    def generate(self, inputs: dict[str, Tensor], most: int, beams: int = 1) -> list[str]:
        """What the model writes of each source, at most `most` tokens."""
        made = self.written_by(most, beams, **self.read(inputs, None))
        return self.decode(made[:, 1:])  # the first is where every decoder starts, the end mark in some


def prepare(options: Options, tokenizer: Tokenizer, folder: Path, texts: int = 1, vectors: None = None) -> None:
    """Write the folder of a new model without weights: `create` draws them. The last two are of other models."""
    from transformers import AutoConfig

    ids = tokenizer.get_vocab()
    sizes = {"vocab_size": len(ids), "eos_token_id": ids[END], "pad_token_id": ids[PAD]}
    sizes |= {"decoder_start_token_id": ids[PAD], "d_model": options.width}
    wide = options.intermediate or 4 * options.width
    if options.architecture == "t5":
        sizes |= {
            "num_layers": options.layers, "num_heads": options.heads, "d_kv": options.width // options.heads,
            "d_ff": wide, "dropout_rate": options.dropout,
        }  # fmt: skip
    else:
        sizes |= {f"{half}_layers": options.layers for half in ("encoder", "decoder")}
        sizes |= {f"{half}_attention_heads": options.heads for half in ("encoder", "decoder")}
        sizes |= {f"{half}_ffn_dim": wide for half in ("encoder", "decoder")}
        sizes |= {"max_position_embeddings": options.positions, "bos_token_id": ids[PAD], "forced_eos_token_id": None}
        sizes |= dict.fromkeys(("dropout", "attention_dropout"), options.dropout)
    AutoConfig.for_model(options.architecture, **sizes).save_pretrained(folder)
    files.write_tokenizer(tokenizer, folder)
    describe(options, folder, [ids[END]], ids[PAD])


def adopt(options: Options, folder: Path, where: str) -> None:
    """Write the folder of an existing checkpoint; see `_shared/generation.py`."""
    generation.adopt(Seq2Seq.AUTO, options, folder, where)


def build(folder: Path, config: dict[str, Any], outputs: Any, trained: bool) -> LanguageModel:
    """The model of a folder; see gradworks.models."""
    return generation.build(Seq2Seq, folder, config, outputs, trained)
