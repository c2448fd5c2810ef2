"""`dvc`, which updates dvc.lock many times faster: `python -m gradworks.fast_dvc repro ...`.

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
_plain_dump = _yaml._dump


class _Lock(dict[str, Any]):
    """The data of a dvc.lock.

    Attributes:
        texts: stage -> its data as it was read, and its text.
    """

    texts: dict[str, tuple[Any, str]]


def parse_for_update(text: Any, path: Any) -> dict[str, Any]:
    """What DVC updates: dvc.lock with the plain parser, any other file (a dvc.yaml) with its comments."""
    if Path(path).name != "dvc.lock":
        return _yaml.parse_yaml(text, path, typ="rt")
    lock = _Lock(_yaml.parse_yaml(text, path))
    stages = lock.get("stages") or {}
    texts = re.split(r"^(?=  \S)", text.partition(_STAGES)[2], flags=re.M)[1:]  # a stage begins at two spaces
    lock.texts = {}
    if list(lock) == ["schema", "stages"] and len(texts) == len(stages):
        lock.texts = {name: (stage, one) for (name, stage), one in zip(stages.items(), texts, strict=True)}
    return lock


def dump(data: dict[str, Any], stream: TextIO) -> None:
    """Write as DVC does; a stage whose data is still the object that was read keeps its text."""
    if not isinstance(data, _Lock) or not data.texts:
        _plain_dump(dict(data) if isinstance(data, _Lock) else data, stream)
        return
    for i, (name, stage) in enumerate(data["stages"].items()):
        before, text = data.texts.get(name, (None, ""))
        if i == 0 or before is not stage:
            alone = StringIO()
            _plain_dump({**data, "stages": {name: stage}}, alone)
            head, begin, text = alone.getvalue().partition(_STAGES)
            if i == 0:
                stream.write(head + begin)
        stream.write(text)


if __name__ == "__main__":
    _yaml.parse_yaml_for_update, _yaml._dump = parse_for_update, dump
    sys.exit(main())
