"""`--set KEY=VALUE`: override parameters for one run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradworks.base import cells, parse_yaml
from gradworks.base.errors import InputError


def replaced(root: Path, pipeline: Path, sets: Sequence[str]) -> dict[str, bytes]:
    """The files that overrides change: params.yaml beside the dvc.yaml and, if there
    is a cells.yaml, what is written from it.

    Args:
        root: of the checkout.
        pipeline: the path of the dvc.yaml.
        sets: KEY=VALUE each; a dotted key, with indices for list items; a YAML value.

    Returns:
        Contents by path from the root; comments are kept.

    Raises:
        InputError: a key is not in params.yaml, a value is no YAML, or the cells that follow are impossible.
    """
    if not sets:
        return {}
    params = pipeline.absolute().with_name("params.yaml")
    text = changed(params, sets)
    found = {params.relative_to(root).as_posix(): text.encode()}
    if params.with_name("cells.yaml").is_file():
        folder = params.parent.relative_to(root)
        found |= {(folder / name).as_posix(): made.encode() for name, made in _written(params, text).items()}
    return found


def changed(params: Path, sets: Sequence[str]) -> str:
    """The text of params.yaml with some values set. Raises InputError."""
    from ruamel.yaml import YAML, YAMLError

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096  # "yes" without quotes is another value
    try:
        values = yaml.load(params.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise InputError(f"{params}: {str(error).splitlines()[0]}") from None
    for one in sets:
        key, equals, text = one.partition("=")
        if not equals or not key:
            raise InputError(f"--set {one}: expected KEY=VALUE, as train.epochs=1")
        try:
            value = YAML().load(text)
        except YAMLError as error:
            raise InputError(f"--set {one}: the value is no YAML: {str(error).splitlines()[0]}") from None
        holder, last = _place(values, key, one, params)
        holder[last] = value
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def _place(values: Any, key: str, one: str, params: Path) -> tuple[Any, Any]:
    """The mapping or list that holds the key's last part, and that part."""
    parts, holder, last = key.split("."), None, None
    for number, part in enumerate(parts):
        there = range(len(values)) if isinstance(values, list) else values if isinstance(values, dict) else ()
        known = {str(name): name for name in there}
        if part not in known:
            at = ".".join(parts[:number])
            found = f"found: {', '.join(known)}" if known else f"{at} is {values!r}"
            raise InputError(f"--set {one}: {params} has no key {'.'.join(parts[: number + 1])!r}\n{found}")
        holder, last = values, known[part]
        values = holder[last]
    return holder, last


def _written(params: Path, text: str) -> dict[str, str]:
    """What `gradworks cells` would write for a changed params.yaml, by file name. Raises InputError."""
    values = parse_yaml(text, f"{params} with what is set")
    try:
        return cells.files(params, values)
    except InputError as error:
        raise InputError(str(error).replace(str(params), f"{params} with what is set")) from None
