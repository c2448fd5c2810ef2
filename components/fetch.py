"""Turn a data set into Parquet splits with stable example ids.

A source becomes a folder with one SPLIT.parquet per split (id, the task's texts, label, other columns), bad_rows.json
and manifest.json.

examples:
  python -m components.fetch --source synthetic --out runs/fetch/synthetic
  python -m components.fetch --params pipelines/reweighting/params.yaml --source mnli --out runs/fetch/mnli

sources (section `fetch` of the parameter file):
  synthetic: {from: "synthetic:nli", seed: 1, rows: {train: 6000, validation: 1500, test: 3000}}
  mnli:      {from: "file:data/mnli"}                        # one file per split
  one:       {from: "file:data/reviews.csv"}                 # one file, the split one/all
  sst:       {from: "file:data/minbert", task: sst5, files: {train: ids-sst-train.csv, dev: ids-sst-dev.csv}}
  mine:      {from: "file:data/mine", columns: {premise: text_a, hypothesis: text_b, label: class}}
  coded:     {from: "file:data/coded", labels: {0: not_entailment, 1: entailment}}   # what the file's labels mean
  bare:      {from: "file:data/bare", header: [label, premise, hypothesis]}          # files whose first line is a row
  rte:       {from: "https://HOST/RTE.zip", sha256: …, files: {train: train.tsv}}    # or s3://BUCKET/KEY
  words:     {from: "file:data/reviews.csv", task: universal_pos, columns: {text: review}, tags: textblob}
  parts:     {from: "file:data/reviews.csv", task: universal_pos, columns: {text: review}, tags: "spacy:en_core_web_sm"}
  tones:     {from: "file:data/reviews.csv", task: tone, columns: {label: tone}, ids: words}  # other labels of its rows
  digits:    {from: "file:data/mnist", task: mnist}          # X-images-idx3-ubyte.gz, X.npz, or folders SPLIT/CLASS
  mrpc:      {from: "hub:nyu-mll/glue@COMMIT", config: mrpc, task: mrpc}             # Parquet repositories only
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import labels, layouts, records, taggers
from gradworks.telemetry import live

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_FILES = {"files", "layout", "columns", "labels", "header", "tags", "ids"}
_KEYS = {  # which keys go with which kind of source, besides task, seed and bad_rows
    "synthetic": {"rows"},
    "file": _FILES,
    "http": {"sha256", *_FILES},
    "https": {"sha256", *_FILES},
    "s3": {"sha256", *_FILES},
    "hub": {"config", "columns", "labels", "tags", "ids"},
}
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # of a split: it becomes a file
_SHOWN = 5  # bad rows on the screen; bad_rows.json has them all


class Source(base.Section):
    """A source: a key of the section `fetch`.

    Attributes:
        from_: synthetic:nli | file:FOLDER | file:FILE | https://… | s3://BUCKET/KEY | hub:OWNER/NAME@COMMIT.
        task: where it is not the project's task.
        seed, rows: of a synthetic source: its seed, and how many examples each split has.
        files: which file is which split; without it every file is the split of its name.
        layout: of the files, where it is not found out rightly.
        columns: a text column of the task, `label` or `id`, and the name that the file has for it.
        labels: a value of the file's label column, and its label. Without it class names are labels and whole numbers
            index the task's classes in their order, which is logged.
        header: the names of the columns, of files whose first line is a row.
        config: of a hub repository that has several.
        unlabelled: its rows have no labels, or none that are read; for labelling functions.
        tags: textblob or spacy:PIPELINE: its rows are texts, and their labels are part-of-speech tags that TextBlob or
            a pipeline of spaCy, a package or a folder, gives their words.
        ids: another source of the same files, whose name begins the ids in the place of this one's: splits, drawn by
            ids, then have the same rows.
        sha256: of what lies behind a URL or in S3.
        bad_rows: the share of malformed rows above which the stage stops.
    """

    from_: str = Field(alias="from", min_length=1)
    task: str | None = None
    seed: int = Field(default=0, ge=0)
    rows: dict[str, Annotated[int, Field(ge=1)]] | None = None
    files: dict[_Name, str] | None = None
    layout: layouts.Layout | None = None
    columns: dict[str, str] | None = None
    labels: dict[str, str | float] | None = None
    header: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    config: str | None = None
    unlabelled: bool | None = None
    tags: str | None = None
    ids: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    bad_rows: float = Field(default=0.001, ge=0, le=1)

    @property
    def kind(self) -> str:
        return self.from_.partition(":")[0]

    @field_validator("labels", mode="before")
    @classmethod
    def _forms(cls, given: Any) -> Any:
        """Keys and values as YAML gives them: 0, true and null are no text."""
        if not isinstance(given, dict):
            return given
        if len({labels.form(key) for key in given}) < len(given):
            raise ValueError("expected each value once: 0, 0.0 and '0' are the same")
        return {labels.form(k): labels.form(v) if isinstance(v, bool) else v for k, v in given.items()}

    @model_validator(mode="after")
    def _fits(self) -> Source:
        if self.kind not in _KEYS:
            raise ValueError("from: expected synthetic:nli, file:FOLDER, https://…, s3://… or hub:…")
        for key in ("rows", "files", "layout", "columns", "labels", "header", "config", "sha256", "tags", "ids"):
            if getattr(self, key) is not None and key not in _KEYS[self.kind]:
                raise ValueError(f"{key}: not for a source from {self.kind}:")
        if self.tags is not None and not re.fullmatch("textblob|spacy:.+", self.tags):
            raise ValueError(f"tags: found {self.tags!r}, expected textblob, spacy:PACKAGE or spacy:./FOLDER")
        if self.tags and (self.labels or self.unlabelled):
            raise ValueError("tags: expected neither `labels` nor `unlabelled` beside it: they are the labels")
        if self.unlabelled and (self.kind == "synthetic" or self.labels):
            raise ValueError("unlabelled: expected a source of files, and no `labels` that say what theirs mean")
        for key in {"rows", "sha256"} & _KEYS[self.kind]:
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; a source from {self.kind}: needs it")
        if self.header and len(set(self.header)) < len(self.header):
            raise ValueError("header: expected each name once")
        if self.kind == "synthetic" and self.from_ != "synthetic:nli":
            raise ValueError(f"from: expected synthetic:nli, not {self.from_!r}")
        if self.kind == "hub" and not re.fullmatch(r"hub:[^@]+@[0-9a-f]{40}", self.from_):
            raise ValueError(f"from: expected hub:OWNER/NAME@COMMIT with a commit of 40 digits, not {self.from_!r}")
        if self.kind in ("http", "https") and "@" in self.from_.split("/")[2]:
            raise ValueError("from: a password in it would end in lock files and logs; expected an address without")
        return self


def asked_of(source: Source, task: Kind, where: str) -> records.Asked:
    """What the source says of its files. InputError when `labels` or `tags` give what is no label of the task."""
    for key, label in (source.labels or {}).items():
        if not task.accepts(label):
            raise InputError(f"{where}.labels.{key}: found {label!r}\nexpected {task.expected()}")
    if source.tags and task.spec.kind != "tagging":
        raise InputError(f"{where}.tags: found task {task.name} of kind {task.spec.kind}\nexpected one of kind tagging")
    if source.tags and (missing := [tag for tag in taggers.TAGS if not task.accepts(tag)]):
        found = f"{where}.tags: the task {task.name} has no class {missing[0]!r}"
        raise InputError(f"{found}\nexpected the classes of the task universal_pos: {', '.join(taggers.TAGS)}")
    unread = bool(source.unlabelled or source.tags)
    return records.Asked(source.columns or {}, source.labels or {}, source.header, unread)


def _splits(source: Source, task: Kind, name: str, where: str) -> tuple[dict[str, records.Split], dict[str, str]]:
    """Read a source: its splits, and those left out with the reason. InputError when it is not as its section says."""
    from gradworks.data import files

    asked = asked_of(source, task, where)
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
        }, {}
    if source.kind == "file":
        folder = Path(rest)
        paths = files.splits_of(folder, source.files, where, task.reads)
        if folder.is_file():
            return files.read(task, paths, name, folder.parent, str(folder.parent), source.layout, asked, True)
        return files.read(task, paths, name, folder, rest.rstrip("/"), source.layout, asked, bool(source.files))
    from gradworks.data import remote

    if source.kind == "hub":
        repository, _, revision = rest.rpartition("@")
        return remote.hub(task, repository, revision, source.config, name, asked)
    with tempfile.TemporaryDirectory() as temporary:
        folder = remote.unpack(remote.download(source.from_, source.sha256, Path(temporary)), source.from_)
        paths = files.splits_of(folder, source.files, where, task.reads)
        return files.read(task, paths, name, folder, source.from_, source.layout, asked, bool(source.files))


def _report(splits: dict[str, records.Split], limit: float, given: bool, where: str) -> None:
    """Say which rows were left out and how labels were read; stop when too many rows are bad.

    Args:
        splits: what was read.
        limit: the share of bad rows above which to stop.
        given: the source says itself what its labels mean.
        where: params file and section, for messages.

    Raises:
        InputError: too many rows are bad, or a split has none that is good.
    """
    for split, read in splits.items():
        _show(split, read.bad)
        if read.unlabelled:
            first = read.unlabelled[0]["line"]
            print(f"{split}: {len(read.unlabelled)} rows without a gold label left out, the first at line {first}",
                  file=sys.stderr)  # fmt: skip
        if read.values and not given:
            said = ", ".join(f"{value} = {label}" for value, label in sorted(read.values.items()))
            print(f"{split}: labels read as {said}; `labels` of the source changes that", file=sys.stderr)
        if read.account and read.account.continued:
            account = read.account
            first, last = account.continued[0]
            print(f"{split}: {len(account.continued)} rows of several lines, {account.further} further lines, "
                  f"the first from line {first} to {last}: see bad_rows.json", file=sys.stderr)  # fmt: skip
    _stop_above(limit, splits, where)
    for split, read in splits.items():
        if not read.records:
            raise InputError(f"{where}: the split {split} is empty: expected at least one good row")


def _place(bad: dict[str, Any]) -> str:
    return f"{bad['file']}: line {bad['line']}" if "file" in bad else bad["id"]


def _show(split: str, found: list[dict[str, Any]]) -> None:
    for bad in found[:_SHOWN]:
        print(f"{_place(bad)}: {bad['reason']}; left out", file=sys.stderr)
    if len(found) > _SHOWN:
        print(f"{split}: {len(found) - _SHOWN} more bad rows left out: see bad_rows.json", file=sys.stderr)


def _stop_above(limit: float, splits: dict[str, records.Split], where: str) -> None:
    """InputError where the share of bad rows is above the limit."""
    bad = [one for read in splits.values() for one in read.bad]
    rows = len(bad) + sum(len(read.records) for read in splits.values())
    if len(bad) > limit * rows:
        first = bad[0]
        labelled = first["reason"].startswith("found label")
        raise InputError(
            f"{_place(first)}: {first['reason']}\n"
            f"{len(bad)} of {rows} rows are bad, more than {where}.bad_rows: {limit}"
            + ("\n`labels: {VALUE: LABEL}` of the source says what other values mean" if labelled else "")
        )


def _extents(read: records.Split) -> dict[str, Any]:
    """First and last line of every row of several lines."""
    continued = read.account.continued if read.account else []
    return {"continued": [{"line": first, "to": last} for first, last in continued]} if continued else {}


def _counts(read: records.Split, task: Kind, where: str) -> dict[str, Any]:
    """What a split has, for the manifest: where lines are rows, rows + bad + unlabelled + continued = lines.

    Raises:
        InputError: they are not; a fault of the reader.
    """
    made: dict[str, Any] = {"rows": len(read.records), "bad": len(read.bad), "unlabelled": len(read.unlabelled)}
    made["labels"] = task.count([record["label"] for record in read.records if record["label"] is not None])
    if read.values:
        made["label_values"] = read.values
    if read.account:
        account = read.account
        lines = account.lines - account.header - account.blank  # of rows
        made |= {"continued": account.further, "lines": lines, "header": account.header, "blank": account.blank}
        found = made["rows"] + made["bad"] + made["unlabelled"] + made["continued"]
        if found != lines:
            raise InputError(f"{where}: {lines} lines of rows, {found} accounted for: a fault of this reader")
    return made


def _tagger(source: Source, task: Kind, where: str) -> tuple[taggers.Tagger | None, dict[str, str]]:
    """The tagger that the source asks for, and what the manifest says of it. InputError where it is missing."""
    if source.tags is None:
        return None, {}
    asked_of(source, task, where)
    if source.tags == "textblob":
        return taggers.textblob(where), {}
    from gradworks.data import spacy_tagger

    return spacy_tagger.load(source.tags.removeprefix("spacy:"), where)


def _tag(splits: dict[str, records.Split], column: str, tagger: taggers.Tagger, limit: float, where: str) -> None:
    """Tags as labels. InputError where more rows than the limit have none, or a split has no word."""
    for split, read in splits.items():
        read.records, without, bad = taggers.tagged(read.records, column, tagger)
        read.bad += bad
        _show(split, bad)
        read.unlabelled += [{"id": key, "reason": "no word"} for key in without]
        if without:
            print(f"{split}: {len(without)} rows without a word left out, the first {without[0]}", file=sys.stderr)
    _stop_above(limit, splits, where)
    for split, read in splits.items():
        if not read.records:
            raise InputError(f"{where}: the split {split} has no word with a tag\nexpected texts in {column!r}")


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--source", required=True, help="a key of the section `fetch`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the splits")
    args = parser.parse_args()
    live.begin("fetch", args)
    key = f"fetch.{args.source}"
    source = base.section(args.params, key, Source)
    where = f"{args.params}: {key}"
    task = tasks.of(args.params, source.task)
    tagger, about = _tagger(source, task, where)  # before anything is downloaded
    splits, left_out = _splits(source, task, source.ids or args.source, where)
    for split, reason in left_out.items():
        print(f"{split}: left out: {reason}", file=sys.stderr)
    _report(splits, source.bad_rows, bool(source.labels), where)
    if tagger:
        _tag(splits, task.spec.texts[0], tagger, source.bad_rows, where)
    counts: dict[str, Any] = {}
    with artifacts.atomic_folder(args.out) as folder:
        for split, read in splits.items():
            artifacts.write_parquet(folder / f"{split}.parquet", records.to_tables(task, read.records))
            counts[split] = _counts(read, task, f"{where}: the split {split}")
        listed = {s: {"bad": r.bad, "unlabelled": r.unlabelled, **_extents(r)} for s, r in splits.items()}
        artifacts.write_json(folder / "bad_rows.json", listed)
        parameters = source.model_dump(by_alias=True, exclude_none=True)
        more = ({"left_out": left_out} if left_out else {}) | ({"tagger": about} if about else {})
        artifacts.write_manifest(folder, "fetch", {"task": task.name, **parameters}, splits=counts, **more)


if __name__ == "__main__":
    base.run(main)
