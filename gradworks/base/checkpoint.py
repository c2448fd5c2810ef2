"""Checkpoints of a stage that runs long: outside its outputs, found again by what the run depends on.

DVC deletes a stage's outputs before it runs the stage again, so checkpoints lie in .gradworks/checkpoints/KEY/, which
git and DVC ignore. A finished stage removes its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base.artifacts import MANIFEST, atomic_file, digest

if TYPE_CHECKING:
    from torch import Tensor

_FILE = "state.safetensors"
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

    It is one safetensors file whose metadata holds the tree, written beside the old one and put in its place, so that a
    kill at any moment leaves a whole one.

    Args:
        key: of `key`.
        root: the folder of all checkpoints.
    """

    def __init__(self, key: str, root: Path = Path(".gradworks/checkpoints")) -> None:
        self.path = root / key / _FILE

    def save(self, tree: Any) -> None:
        """Replace the checkpoint. Raises TypeError that names the place of a value of another type."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        plain = json.dumps(_flatten(tree, tensors, "tree"))
        about = {"tree": plain, "checksum": _checksum(plain, tensors)}
        with atomic_file(self.path) as temporary:
            save_file(tensors, temporary, about)

    def load(self) -> Any | None:
        """What was saved last, its tensors on the CPU; None when there is nothing, or when it is damaged."""
        from safetensors import SafetensorError, safe_open

        for left in self.path.parent.glob(".*"):  # of a kill in the middle of save
            left.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            if about.get("checksum") != _checksum(about["tree"], tensors):
                raise ValueError("wrong checksum")
            return _restore(json.loads(about["tree"]), tensors)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            print(f"{self.path}: damaged ({str(error).splitlines()[0]}); ignored, starting anew", file=sys.stderr)
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


def _flatten(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON of a tree, its tensors put into `tensors`. Dicts become pairs, for optimizers have numbers as keys."""
    import torch

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        for k in value:
            if not isinstance(k, str | int):
                raise TypeError(f"{where}: key {k!r}: expected text or a whole number")
        return {"dict": [[k, _flatten(v, tensors, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]}
    raise TypeError(
        f"{where}: found {type(value).__name__}, expected tensors, numbers, text, None, dict, list or tuple"
    )


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {k: _restore(v, tensors) for k, v in held}
    return (list if kind == "list" else tuple)(_restore(v, tensors) for v in held)


def _checksum(tree: str, tensors: dict[str, Tensor]) -> str:
    """CRC-32 over the tree and the bytes of every tensor: what a bad disk changes is seen, at memory speed."""
    import torch

    crc = zlib.crc32(tree.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"
