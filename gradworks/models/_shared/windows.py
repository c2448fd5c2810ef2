"""Texts as sequences of tokens whose places in the texts are known, long ones in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class Place(NamedTuple):
    """Where a token stands: which text, first character, the character behind the last."""

    text: int
    start: int
    end: int


Window = tuple["Encoding", list[Place | None]]


def cut(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], max_length: int, step: int | None, first: int | None = None
) -> list[list[Window]]:
    """The windows of each example, special tokens included, and the place of each token, None of a special one.

    Args:
        tokenizer: with its own template of special tokens, or with none.
        texts: one or two of each example; the last one is cut into windows, the other is in all of them.
        max_length: tokens of a window.
        first: tokens of the first of two texts at most.
        step: tokens from the first of a window to the first of the next one; none overlap where it is None.

    Raises:
        InputError: the first text leaves no room for tokens of the second.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    columns = [tokenizer.encode_batch(list(column), add_special_tokens=False) for column in zip(*texts, strict=True)]
    special = tokenizer.num_special_tokens_to_add(len(columns) > 1)
    made = []
    for example in zip(*columns, strict=True):
        if first and len(example) > 1:
            example[0].truncate(first)
        room = max_length - special - sum(len(one) for one in example[:-1])
        if room < 1:
            raise InputError(f"max_length: found {max_length}\nexpected more than {max_length - room}, the tokens of a "
                             "first text alone")  # fmt: skip
        example[-1].truncate(room, stride=max(0, room - step) if step else 0)
        parts = [example[-1], *example[-1].overflowing]
        if step and len(parts) > 1:
            parts = parts[: 1 + next((i for i, one in enumerate(parts) if one.offsets[-1] == parts[-1].offsets[-1]))]
        made.append([_whole(tokenizer, [*example[:-1], part]) for part in parts])
    return made


def _whole(tokenizer: Tokenizer, parts: list[Encoding]) -> Window:
    """`sequence_ids` of the library are None for a text of one token: texts follow each other in every template."""
    of = [Place(text, *span) for text, part in enumerate(parts) for span in part.offsets]
    encoding = tokenizer.post_process(*parts)
    own = [i for i, span in enumerate(encoding.offsets) if span != (0, 0)]
    if len(own) != len(of):
        raise ValueError(
            f"{len(own)} tokens of texts, expected {len(of)}: a tokenizer whose template is not understood"
        )
    places: list[Place | None] = [None] * len(encoding)
    for i, place in zip(own, of, strict=True):
        places[i] = place
    return encoding, places
