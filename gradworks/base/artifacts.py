"""Read and write artifact folders: atomically, and checked when read.

Every folder carries `manifest.json`: its origin (stage, parameters, seed), row counts and SHA-256 digests. Nothing in
it depends on time, host or revision, so that rerunning a stage gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds and is removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp gives 0600, which a container's other user could not read
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that replaces `path` if the block succeeds; otherwise `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*/"):  # left by a killed run; the parent may be a DVC dependency
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            _sync(file)
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys and no NaN (a metric that is not a number must be None)."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises InputError that names the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def write_parquet(path: Path, table: pa.Table | Iterator[pa.Table]) -> None:
    """One Parquet file, the same bytes for the same table; of an iterator's tables, one after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = iter([table]) if isinstance(table, pa.Table) else table
    with atomic_file(path) as temporary:
        first = next(tables)
        with pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
            while first is not None:
                writer.write_table(first)
                first = next(tables, None)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Raises InputError that names the file, and the column that it lacks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # group by group: what a file of pictures unpacks is in memory once
            groups = range(file.num_row_groups)
            table = pa.concat_tables(map(file.read_row_group, groups)) if len(groups) > 1 else file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    missing = [c for c in columns or [] if c not in table.column_names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}\nfound: {', '.join(table.column_names)}")
    return table


def write_manifest(folder: Path, stage: str, parameters: Mapping[str, Any], **more: Any) -> None:
    """Describe every file in `folder`; call it last. `more`: seed, rows, further details of the stage."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_json(
        folder / MANIFEST,
        {
            "stage": stage,
            "parameters": parameters,
            "files": {
                p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": digest(p)} for p in files
            },
            **more,
        },
    )


def check(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact folder, after checking all files against it.

    Raises:
        InputError: the folder or a file is missing, or a file has changed.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder\nexpected: the output of an earlier stage; `dvc repro` or `dvc pull` makes it"
        )
    manifest = read_json(folder / MANIFEST)
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file}: missing, though {MANIFEST} names it")
        if digest(file) != entry["sha256"]:
            raise InputError(f"{file}: damaged\nfound sha256 {digest(file)[:12]}…, expected {entry['sha256'][:12]}…")
    return manifest
