"""Reading and writing of model folders: JSON configuration, tokenizer.json, safetensors. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gradworks.base import artifacts
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG = "gradworks.json"  # ours; a transformer's own config.json, in the layout of Hugging Face, is beside it
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Our configuration of a model or encoder folder. Raises InputError that names folder or file."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder\nexpected: the output of the stage pretrain or train")
    path = folder / CONFIG
    config = artifacts.read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("model"), str):
        raise InputError(f"{path}: no key 'model'\nexpected: the output of the stage pretrain or train")
    return config


def read_tokenizer(folder: Path) -> Tokenizer:
    """Raises InputError that names the file."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise InputError(f"{path}: not a tokenizer: {str(error).splitlines()[0]}") from None


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json, without the length to which texts were cut last."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises InputError that names the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {str(error).splitlines()[0]}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The same bytes for the same tensors."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with artifacts.atomic_file(path) as temporary:
        save_file(plain, temporary, {"format": "pt"})


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, optional: Collection[str] = ()) -> None:
    """Copy tensors into a module of the same names and shapes.

    Args:
        module: its state is overwritten.
        tensors: one for every parameter and buffer, none besides.
        path: where they come from, for the error message.
        optional: names that may be missing.

    Raises:
        InputError: names the first tensor that is missing, extra or of another shape.
    """
    expected = module.state_dict()
    for name in sorted(expected.keys() - tensors.keys() - set(optional)):
        raise InputError(f"{path}: no tensor {name!r}\nexpected: shape {tuple(expected[name].shape)}")
    for name in sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{path}: tensor {name!r} belongs to no layer of this model")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"found shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            raise InputError(f"{path}: tensor {name!r}\n{shapes}")
    module.load_state_dict(tensors, strict=False)
