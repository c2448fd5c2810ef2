"""Previews of files: Parquet, safetensors, JSON, text. Content is untrusted; none causes a traceback."""

from __future__ import annotations

import io
import json
import math
from pathlib import PurePosixPath
from typing import Any

from gradworks.base.errors import InputError
from gradworks.store.artifacts.words import columns, flat, plain, short, tidy

_ROWS = 5  # of a table
_HEADER = 100_000_000  # bytes of a safetensors header, the format's own limit
_TEXT = 1_000_000  # bytes read of a text
_JSON = 8_000_000  # bytes of the largest JSON file that is read


def read(name: str, file: io.BufferedIOBase) -> dict[str, Any]:
    """A file as a mapping: `kind` and its details.

    Args:
        name: its path; the suffix gives the format.

    Raises:
        InputError: it is not of the format of its suffix.
    """
    suffix = PurePosixPath(name).suffix
    if suffix == ".parquet":
        return _parquet(name, file)
    if suffix == ".safetensors":
        return _safetensors(name, file)
    if suffix == ".json":
        return _json(name, file)
    body = file.read(_TEXT)
    if b"\0" in body:
        return {"kind": "binary", "begins": body[:64].hex(" ")}
    return {"kind": "text", "text": body.decode(errors="replace")}


def _parquet(name: str, file: io.BufferedIOBase) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        first = next(opened.iter_batches(batch_size=_ROWS), None)
        return {
            "kind": "Parquet",
            "rows": opened.metadata.num_rows,
            "columns": [{"name": one.name, "type": str(one.type)} for one in opened.schema_arrow],
            "first": tidy(first.to_pylist()) if first is not None else [],
        }
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{plain(name)}: not a readable Parquet file: {plain(error)[:200]}") from None


def _safetensors(name: str, file: io.BufferedIOBase) -> dict[str, Any]:
    try:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _HEADER:
            raise ValueError(f"its header would have {length} bytes")
        header = json.loads(file.read(length))
        about = header.pop("__metadata__", {})
        tensors = [
            {"name": k, "dtype": str(v["dtype"]), "shape": [int(n) for n in v["shape"]]} for k, v in header.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{plain(name)}: not a safetensors file: {plain(error)[:200]}") from None
    count = sum(math.prod(one["shape"]) for one in tensors)
    return {"kind": "safetensors", "parameters": count, "tensors": tensors, "metadata": tidy(about)}


def _json(name: str, file: io.BufferedIOBase) -> dict[str, Any]:
    body = file.read(_JSON)
    if file.read(1):
        return {"kind": "text", "text": body[:_TEXT].decode(errors="replace")}
    try:
        return {"kind": "JSON", "value": tidy(json.loads(body))}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{plain(name)}: not valid JSON: {plain(error)[:200]}") from None


def shown(preview: dict[str, Any], lines: int) -> str:
    """The result of `read` as text: at most `lines` lines, and one with the number of further ones."""
    kind = preview["kind"]
    if kind == "Parquet":
        text = f"Parquet, {preview['rows']} rows\n" + _table(preview)
    elif kind == "safetensors":
        rows = [(plain(t["name"]), plain(t["dtype"]), " x ".join(map(str, t["shape"]))) for t in preview["tensors"]]
        text = f"safetensors, {preview['parameters']} numbers in {len(rows)} tensors\n" + (
            columns(rows) if rows else ""
        )
    elif kind == "JSON":
        text = _value(preview["value"])
    elif kind == "binary":
        text = f"not text; it begins with {preview['begins']}"
    else:
        text = plain(preview["text"], lines=True)
    return bounded(text, lines)


def _table(preview: dict[str, Any]) -> str:
    rows = [
        (plain(one["name"]), plain(one["type"]), *(short(row.get(one["name"]), 30) for row in preview["first"]))
        for one in preview["columns"]
    ]
    names = ("column", "type", *(f"row {i}" for i in range(len(preview["first"]))))
    return columns([names, *rows])


def _value(value: Any) -> str:
    """JSON unchanged; metrics (mappings with a `value` each) one per line."""
    leaves = flat(value)
    if any(name.rpartition(".")[2] == "value" for name in leaves):
        rows = [(plain(name), short(leaf)) for name, leaf in leaves.items()]
        return columns(rows)
    return plain(json.dumps(value, indent=1, ensure_ascii=False), lines=True)


def bounded(text: str, lines: int) -> str:
    found = text.rstrip("\n").split("\n")
    if len(found) > lines:
        found = [*found[:lines], f"... {len(found) - lines} more lines: --lines N shows them"]
    return "\n".join(one if len(one) <= 2000 else f"{one[:2000]}…" for one in found)
