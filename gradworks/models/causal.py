"""Any causal language model that transformers' AutoModelForCausalLM knows, whole or through LoRA adapters.

A prompt and its response are one sequence. Prompts are cut at their start, so that what stands before the response
stays, and to the same length whatever the response is. transformers is imported where a model is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gradworks.base.errors import InputError
from gradworks.models._shared import chats, files, generation
from gradworks.models._shared.generation import END, PAD, LanguageModel, describe, write

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Causal", "Options", "adopt", "build", "prepare", "write"]


PADDING = -100  # labels that do not count


class Options(generation.Options):
    """architecture: of a new model."""

    architecture: Literal["llama", "gpt2"] = "llama"


class Causal(LanguageModel):
    """Reads prompt and response, gives the logits of each next token."""

    AUTO, TASK = "AutoModelForCausalLM", "CAUSAL_LM"

    def exchanges(
        self, prompts: Sequence[str], responses: Sequence[str], max_length: int, most: int, special: bool = True,
        end: bool = True,
    ) -> tuple[list[dict[str, list[int]]], list[list[int]], list[int]]:  # fmt: skip
        """Token ids of prompts and responses.

        Args:
            prompts, responses: n texts each.
            max_length: tokens of both together.
            most: tokens of a response, its end included; what is longer is cut.
            special: with what the tokenizer puts around a prompt (a first token).
            end: a response gets a token for its end.

        Returns:
            Encodings: `input_ids` of the prompt and the response but its last token, which nothing follows, and
            `prompt`, the number of tokens of the prompt; the responses; and where each begins.

        Raises:
            InputError: no token is left for prompts, or the model has fewer positions.
        """
        room = self.room(max_length, most)
        starts = [ids[-room:] or self.config["end"][:1] for ids in self.tokens(prompts, special)]
        written = self.written(responses, most) if end else [one[:most] for one in self.tokens(responses, False)]
        encodings = [
            {"input_ids": [*a, *b[:-1]], "prompt": len(a)} for a, b in zip(starts, written, strict=True)
        ]  # fmt: skip
        return encodings, written, [len(one) for one in starts]

    def room(self, max_length: int, most: int) -> int:
        """Tokens of a prompt at most. Raises InputError: none is left, or the model has fewer positions."""
        room = max_length - most
        if room < 1 or (self.positions and max_length > self.positions):
            expected = f"more than max_response, {most}" if room < 1 else f"at most {self.positions}, its positions"
            raise InputError(f"train.max_length: found {max_length}\nexpected {expected}")
        return room

    def chatted(self, prompts: Sequence[str], responses: Sequence[str], system: str) -> tuple[list[str], list[str]]:
        """Prompts and responses as the checkpoint's chat template writes them, each response with what ends it.

        Raises:
            InputError: there is no template, or it does not write the response behind the prompt.
        """
        before = [{"role": "system", "content": system}] if system else []
        writer, first, second = self._writer(), [], []
        for prompt, response in zip(prompts, responses, strict=True):
            turns = [*before, {"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            ((asked, _), (answer, _)) = chats.parts(writer, turns)
            first.append(asked)
            second.append(answer)
        return first, second

    def conversations(
        self, turns: Sequence[Sequence[dict[str, str]]], max_length: int, most: int
    ) -> tuple[list[dict[str, list[int]]], list[list[int]], list[int]]:
        """Token ids of conversations, of which the turns of the assistant are labels.

        Args:
            turns: of n conversations, `role` and `content` of each turn; the last is the assistant's.
            max_length: tokens of a conversation; the start of one that is longer is left out.
            most: tokens of the last turn; what is longer is cut.

        Returns:
            As `exchanges`: `prompt` is all before the last turn; the labels begin at the first token that the model
            writes, and are -100 where others do.

        Raises:
            InputError: as `exchanges` and `chatted`.
        """
        writer = self._writer()
        found = [chats.parts(writer, one) for one in turns]
        pieces = iter(self.tokens([text for one in found for text, _ in one], special=False))
        before, last = [], []
        for one in found:
            read = [(next(pieces), written) for _, written in one]
            before.append([(i, i if written else PADDING) for ids, written in read[:-1] for i in ids])
            last.append(read[-1][0])
        room = self.room(max_length, most)
        encodings, labels, starts = [], [], []
        for asked, answer in zip(before, last, strict=True):
            kept, answer = asked[-room:] or [(self.config["end"][0], PADDING)], answer[:most]
            written = (place for place, (_, label) in enumerate(kept) if place and label != PADDING)
            start = next(written, len(kept))  # nothing stands before the first token, so it is never a label
            encodings.append({"input_ids": [*(i for i, _ in kept), *answer[:-1]], "prompt": len(kept)})
            labels.append([*(label for _, label in kept[start:]), *answer])
            starts.append(start)
        return encodings, labels, starts

    def _writer(self) -> Any:
        """transformers' tokenizer around ours, with the chat template. Raises InputError where there is none."""
        from transformers import PreTrainedTokenizerFast

        if not self.chat:
            raise InputError("chat: the model has no chat template\nexpected a checkpoint with one, or chat: false")
        name = self.tokenizer.id_to_token
        bos = getattr(self.sizes, "bos_token_id", None)
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer, chat_template=self.chat, eos_token=name(self.config["end"][0]),
            bos_token=None if bos is None else name(bos),
        )  # fmt: skip

    def collate(self, encodings: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """input_ids and attention_mask (n, L), padded on the right; `prompt` (n,), where there is one."""
        made = super().collate(encodings)
        if "prompt" in encodings[0]:
            made["prompt"] = torch.tensor([one["prompt"] for one in encodings])
        return made

    def forward(
        self, inputs: dict[str, Tensor], embedded: Tensor | None = None, task: str | None = None, keep: int = 0
    ) -> Tensor:
        """(n, L, V) logits of the next token, of the last `keep` positions where it is not 0; `task` says nothing."""
        last = {"logits_to_keep": keep} if self._keeps else {}
        logits = self.lm(**self.read(inputs, embedded), **last, use_cache=False).logits
        return logits if self._keeps or not keep else logits[:, -keep:]

    def vectors(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, H) the mean of the last states of each sequence."""
        made = self.lm(**self.read(inputs, embedded), use_cache=False, output_hidden_states=True).hidden_states[-1]
        inside = inputs["attention_mask"].to(made.dtype)[..., None]
        return (made * inside).sum(1) / inside.sum(1)

    def generate(self, inputs: dict[str, Tensor], most: int, beams: int = 1) -> list[str]:
        """What the model writes behind each prompt, at most `most` tokens; prompts are padded on the left."""
        ids, prompt = inputs["input_ids"], inputs["prompt"]
        longest = int(prompt.max())
        place = torch.arange(longest, device=ids.device) - (longest - prompt)[:, None]
        inside = place >= 0
        left = torch.where(inside, ids.gather(1, place.clamp_min(0)), self.config["pad"])
        if self.positions:
            most = min(most, self.positions - longest)
        made = self.written_by(most, beams, input_ids=left, attention_mask=inside.long())
        return self.decode(made[:, longest:])


def prepare(options: Options, tokenizer: Tokenizer, folder: Path, texts: int = 1, vectors: None = None) -> None:
    """Write the folder of a new model without weights: `create` draws them. The last two are of other models."""
    from transformers import AutoConfig

    ids = tokenizer.get_vocab()
    sizes = {"vocab_size": len(ids), "eos_token_id": ids[END], "pad_token_id": ids[PAD], "bos_token_id": None}
    if options.architecture == "gpt2":
        p = options.dropout
        sizes |= {
            "n_embd": options.width, "n_layer": options.layers, "n_head": options.heads,
            "n_inner": options.intermediate, "n_positions": options.positions, "resid_pdrop": p, "embd_pdrop": p,
            "attn_pdrop": p,
        }  # fmt: skip
    else:
        sizes |= {
            "hidden_size": options.width, "num_hidden_layers": options.layers, "num_attention_heads": options.heads,
            "intermediate_size": options.intermediate or 4 * options.width, "tie_word_embeddings": True,
            "max_position_embeddings": options.positions, "attention_dropout": options.dropout,
        }  # fmt: skip
    AutoConfig.for_model(options.architecture, **sizes).save_pretrained(folder)
    files.write_tokenizer(tokenizer, folder)
    describe(options, folder, [ids[END]], ids[PAD])


def adopt(options: Options, folder: Path, where: str) -> None:
    """Write the folder of an existing checkpoint; see `_shared/generation.py`."""
    generation.adopt(Causal.AUTO, options, folder, where)


def build(folder: Path, config: dict[str, Any], outputs: Any, trained: bool) -> LanguageModel:
    """The model of a folder; see gradworks.models."""
    return generation.build(Causal, folder, config, outputs, trained)
