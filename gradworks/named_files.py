"""Files and folders that a params file names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradworks.base import fresh_yaml
from gradworks.base.place import place
from gradworks.base.sources import tagger_folder

_FILES = (("vectors", "file"), ("pretrain", "corpus"))  # of an encoder


def not_there(params: Path, values: Mapping[str, Any] | None = None) -> list[str]:
    """Missing files and folders that a params file names, by key."""
    values = fresh_yaml(params) if values is None else values
    top, _ = place(params, values)
    named: list[tuple[str, str | None]] = []
    for name, given in values["fetch"].items():
        kind, _, folder = given["from"].partition(":")
        if kind == "file":
            inside = (given.get("files") or {}).values() if (top / folder).is_dir() else ()
            named += [(f"fetch.{name}", path) for path in (folder, *(f"{folder}/{one}" for one in inside))]
        named.append((f"fetch.{name}.tags", tagger_folder(str(given.get("tags") or ""))))
    for name, given in values["pretrain"].items():
        named.append((f"pretrain.{name}", given.get("vocabulary_file")))
        named += [(f"pretrain.{name}", (given.get(key) or {}).get(file)) for key, file in _FILES]
    return [f"{path}, of {key}" for key, path in named if path and not (top / path).exists()]
