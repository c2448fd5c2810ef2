"""Checkpoints of long stages: outside their outputs, keyed by everything the run depends on.

DVC deletes a stage's outputs before rerunning it, so checkpoints are in .gradworks/checkpoints/KEY/, which
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
_LIBRARIES = ("torch", "transformers", "tokenizers")  # other versions may compute other numbers


def key(stage: str, folders: Sequence[Path], parameters: Any) -> str:
    """Digest of everything a run depends on: 32 hexadecimal digits.

    Args:
        stage: its name.
        folders: the inputs: their manifests or, in a folder without one, the files themselves.
        parameters: any JSON value.

    The digest covers the source of gradworks and of the stage programs and the versions of libraries: a checkpoint of
    other code is never resumed.
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

    One file of `torch.save`, replaced atomically, so that a kill at any moment leaves a complete one. It is read with
    `weights_only`: only tensors and plain types are unpickled.

    Args:
        key: of `key`.
        root: the folder of all checkpoints.
    """

    def __init__(self, key: str, root: Path = Path(".gradworks/checkpoints")) -> None:
        self.path = root / key / _FILE

    def save(self, tree: Any) -> None:
        """Replace the checkpoint. Raises TypeError that names the position of a value of another type."""
        import torch

        plain = _plain(tree, "tree")
        with atomic_file(self.path) as temporary:
            torch.save(plain, temporary)

    def load(self) -> Any | None:
        """The last checkpoint, with tensors on the CPU; None if there is none or it is damaged."""
        import torch

        for left in self.path.parent.glob(".*"):  # left by a kill during save
            left.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as file:
                damaged = file.testzip()  # torch.load does not check the checksums
            if damaged is not None:
                raise ValueError(f"wrong checksum of {damaged}")
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # the file may hold any bytes and cause any error
            why = (str(error) or type(error).__name__).splitlines()[0]
            print(f"{self.path}: damaged ({why}); ignored, starting over", file=sys.stderr)
            return None

    def remove(self) -> None:
        """Remove it; the run is finished."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _described(folder: Path) -> list[Path]:
    """Manifests of a folder and of the artifact folders in it; all files if there is none."""
    return sorted(folder.rglob(MANIFEST)) or sorted(p for p in folder.rglob("*") if p.is_file())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: Any, where: str) -> Any:
    """The tree in plain types, which `torch.load` reads with `weights_only`. Raises TypeError if that is impossible."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole else value.clone()  # torch.save writes the whole storage of a view
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
