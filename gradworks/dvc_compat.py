"""`dvc`, which updates dvc.lock many times faster: `python -m gradworks.dvc_compat repro ...`.

For each stage that it has run DVC reads the whole dvc.lock with a parser that keeps comments and writes all of it anew,
which takes seconds where the file has a hundred stages, and the project is locked meanwhile
(https://github.com/treeverse/dvc/issues/10629). A dvc.lock has no comments, so that DVC's plain parser gives the same
data; and the text of a stage that did not change stays. What is written is the same to the byte.
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from dvc.cli import main
from dvc.utils.serialize import _yaml

_STAGES = "stages:\n"
_ANCHOR = re.compile(r" [&*]id\d")
_plain_dump = _yaml._dump


class _Lock(dict[str, Any]):
    """The data of a dvc.lock.

    Attributes:
        head: the text before the first stage.
        texts: stage -> its data as it was read, and its text.
    """

    head: str
    texts: dict[str, tuple[Any, str]]


def parse_for_update(text: Any, path: Any) -> dict[str, Any]:
    """What DVC updates: dvc.lock with the plain parser, any other file (a dvc.yaml) with its comments."""
    if Path(path).name != "dvc.lock":
        return _yaml.parse_yaml(text, path, typ="rt")
    lock = _Lock(_yaml.parse_yaml(text, path))
    stages = lock.get("stages") or {}
    head, begin, rest = text.partition(_STAGES)
    texts = re.split(r"^(?=  \S)", rest, flags=re.M)[1:]  # a stage begins at two spaces
    lock.head, lock.texts = head + begin, {}
    if list(lock) == ["schema", "stages"] and len(texts) == len(stages):
        lock.texts = {name: (stage, one) for (name, stage), one in zip(stages.items(), texts, strict=True)}
    return lock


def dump(data: dict[str, Any], stream: TextIO) -> None:
    """Write as DVC does; a stage whose data is still the object that was read keeps its text."""
    texts = _texts(data) if isinstance(data, _Lock) and data.texts else None
    if texts is None:
        _plain_dump(dict(data) if isinstance(data, _Lock) else data, stream)
    else:
        stream.writelines(texts)


def _texts(lock: _Lock) -> list[str] | None:
    """The parts of the file; None where a stage that changed has or had anchors, which are numbered over the file."""
    made = [lock.head]
    for name, stage in lock["stages"].items():
        before, text = lock.texts.get(name, (None, ""))
        if before is not stage:
            alone = StringIO()
            _plain_dump({"stages": {name: stage}}, alone)
            new = alone.getvalue().removeprefix(_STAGES)
            if _ANCHOR.search(text + new):
                return None
            text = new
        made.append(text)
    return made


if __name__ == "__main__":
    _yaml.parse_yaml_for_update, _yaml._dump = parse_for_update, dump
    sys.exit(main())
