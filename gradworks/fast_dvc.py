"""`dvc`, with dvc.lock read many times faster: `python -m gradworks.fast_dvc repro ...`.

For each stage that it has run DVC reads dvc.lock anew with a parser that keeps comments, which takes seconds where the
file has a hundred stages, and the whole project is locked meanwhile (https://github.com/treeverse/dvc/issues/10629).
A dvc.lock has no comments: DVC's plain parser gives the same data, and what is written is the same to the byte.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dvc.cli import main
from dvc.utils.serialize import _yaml


def parse_for_update(text: Any, path: Any) -> dict[str, Any]:
    """What DVC updates: dvc.lock with the plain parser, any other file (a dvc.yaml) with its comments."""
    return _yaml.parse_yaml(text, path, typ="safe" if Path(path).name == "dvc.lock" else "rt")


if __name__ == "__main__":
    _yaml.parse_yaml_for_update = parse_for_update
    sys.exit(main())
