"""Checkpoints of a stage that runs long: outside its outputs, found again by what the run depends on.

DVC deletes a stage's outputs before it runs the stage again, so checkpoints lie in .gradworks/checkpoints/KEY/, which
git and DVC ignore. A finished stage removes its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from gradworks.base.artifacts import MANIFEST, atomic_file, digest

_FILE = "state.pt"
_LIBRARIES = ("torch", "transformers", "tokenizers")  # another version may compute other numbers


def key(stage: str, folders: Sequence[Path], parameters: Any) -> str:
    """Digest of all that a run depends on: 32 hexadecimal digits.

    Args:
        stage: its name.
        folders: the inputs; their manifests count or, in a folder that has none, the files themselves.
        parameters: anything that JSON can hold.

    The source of gradworks and of the stage programs and the versions of the libraries count too: a checkpoint of other
    code is never resumed.
    """
    root = Path(__file__).parent.parent
    source = sorted((*root.rglob("*.py"), *(root.parent / "components").glob("*.py")))
    parts = {
        "stage": stage,
        "folders": [[(p.relative_to(folder).as_posix(), digest(p)) for p in _described(folder)] for folder in folders],
        "parameters": parameters,
        "source": [(p.relative_to(root.parent).as_posix(), digest(p)) for p in source],
        "versions": {name: _version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Checkpoint:
    """The one checkpoint of a run: a tree of dicts, lists and tuples of tensors, numbers, strings and None.

    One file of `torch.save`, written beside the old one and moved to its place, so that a kill at any moment leaves a
    whole one. It is read with `weights_only`: nothing is unpickled but tensors and plain types.

    Args:
        key: of `key`.
        root: the folder of all checkpoints.
    """

    def __init__(self, key: str, root: Path = Path(".gradworks/checkpoints")) -> None:
        self.path = root / key / _FILE

    def save(self, tree: Any) -> None:
        """Replace the checkpoint. Raises TypeError that names the place of a value of another type."""
        import torch

        plain = _plain(tree, "tree")
        with atomic_file(self.path) as temporary:
            torch.save(plain, temporary)

    def load(self) -> Any | None:
        """What was saved last, its tensors on the CPU; None when there is nothing, or when it is damaged."""
        import torch

        for left in self.path.parent.glob(".*"):  # of a kill in the middle of save
            left.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as file:
                damaged = file.testzip()  # torch.load does not look at the checksums
            if damaged is not None:
                raise ValueError(f"wrong checksum of {damaged}")
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # any bytes may be in the file, so any error may come of them
            why = (str(error) or type(error).__name__).splitlines()[0]
            print(f"{self.path}: damaged ({why}); ignored, starting over", file=sys.stderr)
            return None

    def remove(self) -> None:
        """Remove it; the run is finished."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _described(folder: Path) -> list[Path]:
    """Manifests of a folder and of the artifact folders in it; all of its files when there is none."""
    return sorted(folder.rglob(MANIFEST)) or sorted(p for p in folder.rglob("*") if p.is_file())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: Any, where: str) -> Any:
    """The tree in plain types, which `torch.load` reads with `weights_only`. Raises TypeError where that cannot be."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole else value.clone()  # torch.save writes all of the memory that a view is a part of
    if isinstance(value, dict):
        for k in value:
            if not isinstance(k, str | int):
                raise TypeError(f"{where}: key {k!r}: expected text or a whole number")
        return {k: _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # of NumPy's too
    if value is None:
        return None
    raise TypeError(
        f"{where}: found {type(value).__name__}, expected tensors, numbers, text, None, dict, list or tuple"
    )
