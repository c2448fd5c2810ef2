"""Reading of checkpoints in the layout of Hugging Face, from a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError


def from_checkpoint(kind: Any, options: Any, where: str, **more: Any) -> Any:
    """What an Auto class of transformers makes of `options.from_`, a folder or a name on the hub with a revision.

    Raises:
        InputError: there is no such checkpoint, or it has no safetensors; `where`: params file and key.
    """
    from transformers.utils import logging

    source = Path(options.from_)
    if not source.is_dir():
        if source.is_absolute() or options.from_.startswith(".") or options.from_.count("/") > 1:
            raise InputError(f"{where}.from: {source}: no such folder")
        if not options.revision:
            raise InputError(f"{where}: {options.from_} is a name on the hub\nexpected: its revision, a commit")
    logging.set_verbosity_error()  # what is missing or extra is checked by us; the bar writes carriage returns
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(options.from_, revision=options.revision, use_safetensors=True, **more)
    except (OSError, ValueError, RuntimeError) as error:
        said = next(line for line in str(error).splitlines() if line.strip())
        raise InputError(f"{where}.from: {options.from_}: {said}") from None


def tokenizer_of(options: Any, where: str) -> Any:
    """transformers' fast tokenizer of a checkpoint. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(options.from_, revision=options.revision)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}.from: {options.from_}: {str(error).splitlines()[0]}") from None
    if not getattr(found, "is_fast", False):
        raise InputError(f"{where}.from: {options.from_}: no tokenizer.json, and none can be made of what is there")
    return found
