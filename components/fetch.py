"""Turn a data set into Parquet splits with stable example ids.

A source becomes a folder with one SPLIT.parquet per split (id, the task's texts, label, other columns), bad_rows.json
and manifest.json.

examples:
  python -m components.fetch --source synthetic --out runs/fetch/synthetic
  python -m components.fetch --params pipelines/reweighting/params.yaml --source mnli --out runs/fetch/mnli

sources (section `fetch` of the parameter file):
  synthetic: {from: "synthetic:nli", seed: 1, rows: {train: 6000, validation: 1500, test: 3000}}
  mnli:      {from: "file:data/mnli"}                        # one file per split
  sst:       {from: "file:data/minbert", task: sst5, files: {train: ids-sst-train.csv, dev: ids-sst-dev.csv}}
  mine:      {from: "file:data/mine", columns: {premise: text_a, hypothesis: text_b, label: class}}
  rte:       {from: "https://HOST/RTE.zip", sha256: …, files: {train: train.tsv}}    # or s3://BUCKET/KEY
  mrpc:      {from: "hub:nyu-mll/glue@COMMIT", config: mrpc, task: mrpc}             # Parquet repositories only
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from gradworks import stage
from gradworks.data import layouts, records
from gradworks.stage import artefacts
from gradworks.stage.errors import InputError
from gradworks.tasks import Row, row
from gradworks.telemetry import live

_FILES = {"files", "layout", "columns"}
_KEYS = {  # which keys go with which kind of source, besides task, seed and bad_rows
    "synthetic": {"rows"},
    "file": _FILES,
    "http": {"sha256", *_FILES},
    "https": {"sha256", *_FILES},
    "s3": {"sha256", *_FILES},
    "hub": {"config", "columns"},
}
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # of a split: it becomes a file
_SHOWN = 5  # bad rows on the screen; bad_rows.json has them all


class Source(stage.Section):
    """A source: a key of the section `fetch`.

    Attributes:
        from_: synthetic:nli | file:FOLDER | https://… | s3://BUCKET/KEY | hub:OWNER/NAME@COMMIT.
        task: where it is not the project's task.
        seed, rows: of a synthetic source: its seed, and how many examples each split has.
        files: which file is which split; without it every file is the split of its name.
        layout: of the files, where it is not found out rightly.
        columns: a text column of the task, `label` or `id`, and the name that the file has for it.
        config: of a hub repository that has several.
        sha256: of what lies behind a URL or in S3.
        bad_rows: the share of malformed rows above which the stage stops.
    """

    from_: str = Field(alias="from", min_length=1)
    task: str | None = None
    seed: int = 0
    rows: dict[str, Annotated[int, Field(ge=1)]] | None = None
    files: dict[_Name, str] | None = None
    layout: layouts.Layout | None = None
    columns: dict[str, str] | None = None
    config: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    bad_rows: float = Field(default=0.001, ge=0, le=1)

    @property
    def kind(self) -> str:
        return self.from_.partition(":")[0]

    @model_validator(mode="after")
    def _fits(self) -> Source:
        if self.kind not in _KEYS:
            raise ValueError("from: expected synthetic:nli, file:FOLDER, https://…, s3://… or hub:…")
        for key in ("rows", "files", "layout", "columns", "config", "sha256"):
            if getattr(self, key) is not None and key not in _KEYS[self.kind]:
                raise ValueError(f"{key}: not for a source from {self.kind}:")
        for key in {"rows", "sha256"} & _KEYS[self.kind]:
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; a source from {self.kind}: needs it")
        if self.kind == "synthetic" and self.from_ != "synthetic:nli":
            raise ValueError(f"from: expected synthetic:nli, not {self.from_!r}")
        if self.kind == "hub" and not re.fullmatch(r"hub:[^@]+@[0-9a-f]{40}", self.from_):
            raise ValueError(f"from: expected hub:OWNER/NAME@COMMIT with a commit of 40 digits, not {self.from_!r}")
        if self.kind in ("http", "https") and "@" in self.from_.split("/")[2]:
            raise ValueError("from: a password in it would end in lock files and logs; expected an address without")
        return self


def _splits(source: Source, task: Row, name: str, where: str) -> dict[str, records.Split]:
    """Read a source. Raises InputError when it is not what the section says."""
    from gradworks.data import files

    rest = source.from_.partition(":")[2]
    if source.kind == "synthetic":
        from gradworks.data import synthetic

        if task.name != "nli":
            raise InputError(f"{where}.from: synthetic:nli is a source of the task nli, not of {task.name}\n"
                             f"`task: nli` under {where}, where the project's task folds its labels")  # fmt: skip
        made = synthetic.generate(source.seed, source.rows)
        return {
            split: records.Split([{"id": f"{name}/{split}-{i}", **one} for i, one in enumerate(rows)])
            for split, rows in made.items()
        }
    if source.kind == "file":
        folder = Path(rest)
        paths = files.splits_of(folder, source.files, where)
        return files.read(task, paths, name, folder, rest.rstrip("/"), source.layout, source.columns)
    from gradworks.data import remote

    if source.kind == "hub":
        repository, _, revision = rest.rpartition("@")
        return remote.hub(task, repository, revision, source.config, name, source.columns)
    with tempfile.TemporaryDirectory() as temporary:
        folder = remote.unpack(remote.download(source.from_, source.sha256, Path(temporary)), source.from_)
        paths = files.splits_of(folder, source.files, where)
        return files.read(task, paths, name, folder, source.from_, source.layout, source.columns)


def _report(splits: dict[str, records.Split], limit: float, where: str) -> None:
    """Say which rows were left out; stop when they are too many."""
    for split, read in splits.items():
        for bad in read.bad[:_SHOWN]:
            print(f"{bad['file']}: line {bad['line']}: {bad['reason']}; left out", file=sys.stderr)
        if len(read.bad) > _SHOWN:
            print(f"{split}: {len(read.bad) - _SHOWN} more bad rows left out: see bad_rows.json", file=sys.stderr)
        if read.unlabelled:
            print(f"{split}: {len(read.unlabelled)} rows without a gold label left out", file=sys.stderr)
    bad = [one for read in splits.values() for one in read.bad]
    rows = len(bad) + sum(len(read.records) for read in splits.values())
    if len(bad) > limit * rows:
        first = bad[0]
        raise InputError(
            f"{first['file']}: line {first['line']}: {first['reason']}\n"
            f"{len(bad)} of {rows} rows are bad, more than {where}.bad_rows: {limit}"
        )
    for split, read in splits.items():
        if not read.records:
            raise InputError(f"{where}: the split {split} is empty: expected at least one good row")


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("--source", required=True, help="a key of the section `fetch`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the splits")
    args = parser.parse_args()
    live.begin("fetch", args)
    key = f"fetch.{args.source}"
    source = stage.section(args.params, key, Source)
    where = f"{args.params}: {key}"
    task = row(source.task or stage.value(args.params, "task"))
    splits = _splits(source, task, args.source, where)
    _report(splits, source.bad_rows, where)
    counts: dict[str, Any] = {}
    with artefacts.atomic_folder(args.out) as folder:
        for split, read in splits.items():
            artefacts.write_parquet(folder / f"{split}.parquet", records.to_table(task, read.records))
            labels = Counter(record["label"] for record in read.records) if task.classes else {}
            counts[split] = {
                "rows": len(read.records),
                "bad": len(read.bad),
                "unlabelled": len(read.unlabelled),
                "labels": dict(labels),
            }
        artefacts.write_json(
            folder / "bad_rows.json", {s: {"bad": r.bad, "unlabelled": r.unlabelled} for s, r in splits.items()}
        )
        parameters = source.model_dump(by_alias=True, exclude_none=True)
        artefacts.write_manifest(folder, "fetch", {"task": task.name, **parameters}, splits=counts)


if __name__ == "__main__":
    stage.run(main)
