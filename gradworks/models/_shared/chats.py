"""Conversations as a chat template writes them, in parts: what the model reads, and what it is to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradworks.base.errors import InputError


def parts(writer: Any, turns: Sequence[dict[str, str]]) -> list[tuple[str, bool]]:
    """The text of a conversation, cut where the model begins and ends to write.

    Args:
        writer: transformers' tokenizer with a chat template.
        turns: `role` and `content` of each; the last is the assistant's.

    Returns:
        Texts and whether the model writes them, in turn: False, True, False, True, …; joined, what the template makes
        of all turns. What ends a turn belongs to it.

    Raises:
        InputError: the template refuses the turns, or does not write each one behind what it makes of those before, as
            one that leaves out parts of earlier answers.
    """
    from jinja2 import TemplateError

    made: list[tuple[str, bool]] = []
    text = ""
    try:
        for place, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            asked = writer.apply_chat_template(turns[:place], tokenize=False, add_generation_prompt=True)
            whole = writer.apply_chat_template(turns[: place + 1], tokenize=False)
            if not asked.startswith(text) or not whole.startswith(asked):
                raise InputError(
                    "chat: the chat template does not write a response behind its prompt\nexpected chat: false"
                )
            made += [(asked[len(text) :], False), (whole[len(asked) :], True)]
            text = whole
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise InputError(f"chat: the chat template refuses turns of {roles}: {str(error)[:200]}") from None
    return made
