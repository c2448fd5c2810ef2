"""The files and folders that the sources of a params file depend on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gradworks.base.slicing import ALWAYS_PRESENT


def dependencies(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By source: `dep`, its data; `tagger`, its tagger's folder, where some source has one.

    Args:
        sources: the section `fetch`.
    """
    folders = {name: tagger_folder(str(one.get("tags") or "")) for name, one in sources.items()}
    made = {name: {"dep": _data(str(one.get("from", "")))} for name, one in sources.items()}
    if any(folders.values()):
        made = {name: one | {"tagger": folders[name] or ALWAYS_PRESENT} for name, one in made.items()}
    return made


def tagger_folder(tags: str) -> str | None:
    """The folder of `spacy:FOLDER`; None for `spacy:PACKAGE`, whose name is one word, and for other taggers."""
    kind, _, name = tags.partition(":")
    return name if kind == "spacy" and not re.fullmatch(r"\w*", name) else None


def _data(source: str) -> str:
    kind, _, rest = source.partition(":")
    if kind == "file":
        return rest
    return "gradworks/data/synthetic.py" if kind == "synthetic" else "gradworks/data/remote.py"
