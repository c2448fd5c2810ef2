"""Sources that lie elsewhere: a file behind a URL or in S3, checked by its SHA-256; a Parquet repository of the hub."""

from __future__ import annotations

import hashlib
import lzma
import re
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.base.progress import Progress
from gradworks.data import files, labels, layouts, records

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without a byte
_LITTER = ("__MACOSX", ".DS_Store")  # what macOS puts into archives
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def download(address: str, sha256: str, folder: Path) -> Path:
    """Download a file into `folder`: complete and checked, or not at all.

    Args:
        address: https://… or s3://BUCKET/KEY. S3 takes its credentials and AWS_ENDPOINT_URL as boto3 does.
        sha256: what the file must have, hexadecimal.

    Raises:
        InputError: it is not available, ends too early or has another digest.
    """
    name = address.partition("?")[0].rstrip("/").rpartition("/")[2]
    open_ = _s3 if address.startswith("s3://") else _url
    chunks, size = open_(address)
    state = hashlib.sha256()
    with artifacts.atomic_file(folder / name) as temporary:
        done = 0
        with temporary.open("wb") as file, Progress(f"download {name}", size, "B") as bar:
            for chunk in chunks:
                file.write(chunk)
                state.update(chunk)
                done += len(chunk)
                bar.advance(len(chunk))
        if size is not None and done != size:
            raise InputError(f"{address}: ended after {done} of {size} bytes\nthe connection broke: try again")
        if state.hexdigest() != sha256.lower():
            raise InputError(f"{address}: found sha256 {state.hexdigest()}\nexpected {sha256}")
    return folder / name


# not fsspec: its HTTP client decodes Content-Encoding and requotes URLs, so that digests and signed links break; its S3
# client drops the error code
def _url(address: str) -> tuple[Iterable[bytes], int | None]:
    try:
        answer = urllib.request.urlopen(address, timeout=_TIMEOUT)  # noqa: S310  the scheme is checked by the section
    except (urllib.error.URLError, OSError, HTTPException) as error:
        raise InputError(f"{address}: {getattr(error, 'reason', None) or error}") from None
    size = answer.headers.get("Content-Length")

    def chunks() -> Iterable[bytes]:
        with answer:
            try:
                while chunk := answer.read(_CHUNK):
                    yield chunk
            except (OSError, HTTPException) as error:
                raise InputError(f"{address}: {error}\nthe connection broke: try again") from None

    return chunks(), int(size) if size else None


def _s3(address: str) -> tuple[Iterable[bytes], int | None]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = address.removeprefix("s3://").partition("/")
    try:
        answer = boto3.session.Session().client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        found = error.response["Error"]
        raise InputError(f"{address}: {found.get('Code')}: {found.get('Message')}") from None
    except BotoCoreError as error:
        raise InputError(f"{address}: {error}") from None

    def chunks() -> Iterable[bytes]:
        try:
            yield from answer["Body"].iter_chunks(_CHUNK)
        except (BotoCoreError, OSError) as error:
            raise InputError(f"{address}: {error}\nthe connection broke: try again") from None

    return chunks(), answer["ContentLength"]


def unpack(file: Path, address: str) -> Path:
    """The folder of an archive's files, or of the single file; archives are unpacked beside themselves.

    Raises:
        InputError: it is damaged, or a name in it leads out of its folder.
    """
    if not file.name.endswith(_ARCHIVES):
        return file.parent
    folder = file.with_name(f"{file.name}.unpacked")
    folder.mkdir()
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
                        raise InputError(f"{address}: the archive's {name!r} leads out of its folder")
                archive.extractall(folder)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")  # refuses links and names that lead out
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{address}: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    while len(inside := [p for p in folder.iterdir() if p.name not in _LITTER]) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def hub(
    row: Kind, repository: str, revision: str, config: str | None, name: str, asked: records.Asked | None = None
) -> tuple[dict[str, records.Split], dict[str, str]]:
    """The splits of a hub repository at one commit.

    Args:
        row: the task.
        repository: OWNER/NAME, or a folder in the hub's layout.
        revision: a commit.
        config: of repositories that have several, for example `mrpc` of nyu-mll/glue.
        name: of the source.
        asked: what the source says of its columns and labels.

    Returns:
        As `files.read`.

    Raises:
        InputError: it cannot be had, is not stored as Parquet (a loading script would run foreign code), or no split
            has labels.
    """
    import datasets
    import pyarrow as pa

    datasets.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    address = f"hub:{repository}@{revision}"
    try:
        builder = datasets.load_dataset_builder(repository, config, revision=revision)
        if builder.info.builder_name != "parquet":
            raise InputError(f"{address}: stored as {builder.info.builder_name!r}\nexpected a Parquet repository")
        loaded = datasets.load_dataset(repository, config, revision=revision)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError, pa.ArrowInvalid) as error:
        if isinstance(error, InputError):
            raise
        cause = error.__cause__ or error  # "An error occurred while generating the dataset" says little
        raise InputError(f"{address}: {(str(cause).splitlines() or [type(cause).__name__])[0]}") from None
    asked = asked or records.Asked()

    def one(split: str, part: Any) -> records.Split:
        rows = _hub_rows(part, asked)
        header = [*part.column_names, *_group({"idx": part.features.get("idx")})]
        return records.read(row, rows, header, f"{address}/{split}", f"{name}/{split}", asked)

    return files.labelled({split: partial(one, split, part) for split, part in loaded.items()})


def _hub_rows(part: Any, asked: records.Asked) -> layouts.Rows:
    """Rows with the names of classes instead of their indices, because every repository orders them its own way; an
    index that the source gives a label keeps it.
    """
    import datasets

    named = {n: f.names for n, f in part.features.items() if isinstance(f, datasets.ClassLabel)}

    def name(column: str, value: Any) -> Any:
        names = named.get(column, ())
        known = isinstance(value, int) and 0 <= value < len(names) and labels.form(value) not in asked.labels
        return names[value] if known else value

    for number, found in layouts.rows_of(part.with_format("arrow")[:]):
        yield number, found if isinstance(found, str) else _group(found) | {n: name(n, v) for n, v in found.items()}


def _group(found: dict[str, Any]) -> dict[str, str]:
    """The question of an answer, as SuperGLUE's repository numbers it."""
    index = found.get("idx")
    if not isinstance(index, dict) or not {"paragraph", "question"} <= index.keys():
        return {}
    return {"group": f"{index['paragraph']}-{index['question']}"}
