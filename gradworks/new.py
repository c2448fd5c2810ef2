"""`gradworks new NAME --from FILE_OR_FOLDER`: pipelines/NAME/params.yaml for data of one's own.

Each guess has a comment that says what was seen, and what to change where it is wrong.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradworks import parameters, tasks
from gradworks.base import names
from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError
from gradworks.base.words import near
from gradworks.data import files, look, look_texts

_ROLES = {  # of a folder's files
    "train": ("train", "training", "trn"),
    "dev": ("dev", "validation", "valid", "val", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
_NO_NAMES = ("id", "label", "yes", "no", "on", "off", "y", "n", "true", "false", "null")  # ours, and what YAML reads
_FEWEST = 20  # rows
_SEEN = 60_000  # examples that a cell trains on, about: minutes for all cells
_LARGE = 20_000  # training examples, of which no more are taken
_TEMPLATE = Path(__file__).parent / "new.yaml.j2"


@dataclass
class Data:
    """What was found.

    Attributes:
        source: what `fetch.NAME.from` says, and `roles`: split -> file name, empty for one file.
        files: split -> what its file holds. notes: what was left out.
    """

    source: str
    roles: dict[str, str]
    files: dict[str, look.File]
    notes: list[str]


def write(name: str, given: Path, label: str | None = None, texts: Sequence[str] = (), root: Path | None = None) -> str:
    """Write pipelines/NAME/params.yaml; returns what was seen and what to do next, in words.

    Args:
        name: of the benchmark, its task and its source.
        given: a file, or a folder with files named train, dev and test.
        label: the label's column; guessed without it. texts: those of texts, likewise.
        root: of the checkout; where the command runs, without it.

    Raises:
        InputError: the name is none or taken, nothing usable is there, or no column is a label or a text.
    """
    names.check([name], "gradworks new")
    top = Path.cwd() if root is None else root
    if not (top / "components").is_dir():
        raise InputError(f"{top}: no folder components/\nexpected the checkout of gradworks: run it there")
    params = top / "pipelines" / name / "params.yaml"
    if params.parent.exists():
        raise InputError(f"{params.parent.relative_to(top)}: exists already\nchoose another name, or remove it")
    data = _found(given, top)
    first = next(iter(data.files.values()))
    if first.rows < _FEWEST:
        raise InputError(f"{first.path}: found {first.rows} rows\nexpected {_FEWEST} at least, better some hundreds")
    column = look.label_of(first, label)
    texts, more = look_texts.texts_of(first, column, texts)
    _same_columns(data, [column, *texts])
    sure = label is not None or column.strip().lower() in look.USUAL
    found = look.labels_in(column, list(data.files.values()), sure)
    text = _text(name, data, found, texts, more)
    params.parent.mkdir(parents=True)
    try:
        with atomic_file(params) as temporary:
            temporary.write_text(text, encoding="utf-8")
        parameters.check(params, data=True)
    except BaseException:
        params.unlink(missing_ok=True)
        params.parent.rmdir()
        raise
    return _said(params.relative_to(top), data, found, texts, more)


def _found(given: Path, top: Path) -> Data:
    """The files that are there and what they hold."""
    if not given.exists():
        there = [one.name for one in given.parent.iterdir()] if given.parent.is_dir() else []
        raise InputError(f"--from: no file or folder {str(given)!r}{near(given.name, there)}")
    inside = given.resolve().is_relative_to(top.resolve())
    shown = os.path.relpath(given.resolve(), top.resolve()) if inside else str(given.resolve())
    if any(c in shown for c in "$\\") or not shown.isprintable():
        raise InputError(f"--from: found the path {shown!r}\nexpected none with $ or \\ in it: rename or link it")
    notes = [] if inside else ["outside the checkout: a cluster cannot read it; move it under data/"]
    if given.is_file():
        return Data(f"file:{shown}", {}, {files.WHOLE: look.read(given)}, notes)
    paths = files.splits_of(given, None, "--from")
    if len(paths) == 1:
        (path,) = paths.values()
        return Data(f"file:{shown}/{path.name}", {}, {files.WHOLE: look.read(path)}, notes)
    roles = {
        role: next((paths[stem] for stem in paths if stem.lower() in known), None) for role, known in _ROLES.items()
    }
    if roles["train"] is None:
        raise InputError(f"{given}: no file named train among {', '.join(p.name for p in paths.values())[:200]}\n"
                         "expected train, dev and test; or --from one file, which is then split")  # fmt: skip
    read = {role: look.read(path) for role, path in roles.items() if path}
    left = [path.name for path in paths.values() if path not in roles.values()]
    notes += [f"not used: {', '.join(left)}"] if left else []
    return Data(f"file:{shown}", {role: read[role].path.name for role in read}, read, notes)


def _same_columns(data: Data, needed: Sequence[str]) -> None:
    """Leave out a dev or test file without labels; raises InputError where another column is missing."""
    for role, file in list(data.files.items()):
        missing = [name for name in needed if name not in file.columns]
        unlabelled = missing == [needed[0]] or (not missing and not look.filled(file.columns[needed[0]]))
        if role in ("dev", "test") and unlabelled:
            data.notes.append(f"not used: {file.path.name} has no labels")
            del data.files[role], data.roles[role]
        elif missing:
            shown = ", ".join(map(repr, file.names[:12]))
            raise InputError(f"{file.path}: no column {missing[0]!r}, which the other files have\nfound: {shown}")


def _text(name: str, data: Data, found: look.Label, texts: Sequence[str], more: Sequence[str]) -> str:
    """The text of params.yaml."""
    import jinja2

    first = next(iter(data.files.values()))
    short = [look.slug(text, "text") for text in texts]
    short = [f"{one}_text" if one in _NO_NAMES else one for one in short]
    if len(set(short)) < len(short):
        short = [f"{one}_{number}" for number, one in enumerate(short, 1)]
    held = "all" not in data.files and "test" in data.files
    dev = "dev" in data.files
    part = 1.0 if dev and held else 0.8 if dev or held else 0.6
    train = int(first.rows * part)
    clean = int(first.rows * 0.1)
    lengths = sorted(len(str(v).split()) for text in texts for v in first.columns[text] if v is not None)
    longest = lengths[int(len(lengths) * 0.95)] * 1.3 + 4
    limit = 512 if longest > 256 else 256 if longest > 128 else 128 if longest > 64 else 64
    seen = min(train, _LARGE)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        **{"line_statement_prefix": "%%", "line_comment_prefix": "##", "keep_trailing_newline": True},
    )
    environment.filters["line"] = lambda value: " ".join(str(value).split())  # of a comment
    environment.filters["q"] = lambda value: json.dumps(value, ensure_ascii=False)
    empty, allowed = _without_text(data, found, texts)
    others = [n for n in first.names if n not in (found.column, *texts, *more)]
    most = max(found.counts.values()) / sum(found.counts.values()) if found.counts else 0.0
    taken = tasks.shipped()
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        name=name, empty=empty, bad_rows=allowed, task=f"my_{name}" if name in taken else name, data=data,
        first=first, label=found, columns=dict(zip(short, texts, strict=True)), others=others, more=more,
        train=train, large=train > _LARGE, cap=_LARGE, has_dev=dev, has_test=held, skewed=most > 0.7,
        epochs=max(2, min(20, _SEEN // max(1, seen))), batch=32 if train >= 400 else 8,
        clean_batch=max(1, min(32, clean // 2)), max_length=limit,
    ).lstrip("\n")  # fmt: skip


def _without_text(data: Data, found: look.Label, texts: Sequence[str]) -> tuple[int, float]:
    """Rows that `fetch` will leave out because a text is missing, and the share of bad rows that allows them.

    Raises:
        InputError: they are most of the rows.
    """
    empty, rows = 0, -found.missing
    for file in data.files.values():
        rows += file.rows
        columns = [file.columns[name] for name in texts]
        empty += sum(not all(isinstance(v, str) and v.strip() for v in one) for one in zip(*columns, strict=True))
        empty += file.bad
    if empty > 0.5 * rows:
        raise InputError(f"{next(iter(data.files.values())).path}: {empty} rows have no text in {', '.join(texts)}\n"
                         "`--text NAME` says which column has the texts")  # fmt: skip
    return empty, math.ceil(1000 * empty / max(1, rows)) / 1000


def _said(params: Path, data: Data, found: look.Label, texts: Sequence[str], more: Sequence[str]) -> str:
    lines = [f"wrote {params}"]
    for file in data.files.values():
        lines.append(f"  {file.path.name}: {file.rows} rows" + (f", {file.bad} of them unreadable" if file.bad else ""))
    lines.append(f"  text: {', '.join(map(repr, texts))}")
    if more:
        lines.append(f"  could be a text, too (--text): {', '.join(map(repr, more[:6]))}")
    if found.classes is None:
        lines.append(f"  label: {found.column!r}, numbers from {found.least:g} to {found.most:g}")
    else:
        some = ", ".join(f"{name} ({count})" for name, count in list(found.counts.items())[:6])
        more = f", and {len(found.classes) - 6} more" if len(found.classes) > 6 else ""
        lines.append(f"  label: {found.column!r}, {len(found.classes)} classes: {some}{more}")
    others = (
        []
        if found.sure
        else [name for name in look.candidates(next(iter(data.files.values()))) if name != found.column]
    )
    if others:
        lines.append(f"  could be the label, too (--label): {', '.join(map(repr, others[:6]))}")
    lines += [f"  {note}" for note in data.notes]
    lines += ["its guesses are marked `guess`; where one is wrong, change it there", "next:"]
    return "\n".join([*lines, f"  gradworks run {params}", f"  open {params.with_name('report') / 'report.html'}"])
