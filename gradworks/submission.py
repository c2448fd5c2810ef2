"""`gradworks glue` and `superglue`: answers to official test sets, which have no labels, and the zip."""

from __future__ import annotations

import argparse
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, glue, superglue, tasks
from gradworks.base import artifacts, words
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind

_INDEX = ("index", "id")  # of QQP it is `id`


def add(verbs: Any) -> None:
    """The two verbs and their acts."""
    said = "the GLUE benchmark: scores, and files for its leaderboard"
    acts = verbs.add_parser("glue", help=said, description=said).add_subparsers(
        dest="act", required=True, metavar="ACT"
    )
    said = "the score of some tasks: the mean of their official metrics"
    one = acts.add_parser("score", help=said, description=said)
    one.add_argument("metrics", nargs="+", metavar="TASK=FILE", help="a task, and the metrics that `evaluate` wrote; "
                     "nli-m and nli-mm are the two sets of MNLI")  # fmt: skip
    _acts(acts, glue.TESTS, "NAME.tsv", "; WNLI gets its majority class")
    said = "the SuperGLUE benchmark: files for its leaderboard"
    acts = verbs.add_parser("superglue", help=said, description=said).add_subparsers(
        dest="act", required=True, metavar="ACT"
    )
    _acts(acts, superglue.TESTS, "NAME.jsonl", "")


def _acts(acts: Any, names: Iterable[str], file: str, more: str) -> None:
    said = f"answers of one model, or the mean of several, to an official test file: {file}"
    one = acts.add_parser("predict", help=said, description=said)
    one.add_argument("name", metavar="NAME", help=f"of the test set: {', '.join(names)}")
    one.add_argument("--test", type=Path, required=True, help="the official file, without labels")
    one.add_argument("--model", type=Path, nargs="+", required=True, help="folders of runs/models")
    one.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    one.add_argument("--out", type=Path, required=True, help="folder of the files of a submission")
    said = f"check these files and put them into the zip that the leaderboard takes{more}"
    one = acts.add_parser("zip", help=said, description=said)
    one.add_argument("folder", type=Path)
    one.add_argument("--out", type=Path, default=Path("submission.zip"), help="default: %(default)s")
    one.add_argument("--partial", action="store_true", help="test sets may be missing")


def run(args: argparse.Namespace) -> None:
    """Do what was asked for, and say it."""
    board = superglue if args.verb == "superglue" else glue
    if args.act == "score":
        print(said(glue.score(dict(map(_metrics, args.metrics)))))
    elif args.act == "predict":
        print(f"wrote {predict(args.name, args.test, args.model, args.params, args.out, board)}")
    else:
        missing = zipped(board, args.folder, args.out, args.partial)
        print(f"wrote {args.out}" + (f"; missing, so no leaderboard takes it: {', '.join(missing)}" if missing else ""))


def said(found: dict[str, Any]) -> str:
    """A line a task, then the average and what it lacks."""
    rows = [f"{glue.NAMES[task]:8}{value:.3f}" for task, value in found["tasks"].items()]
    of = "GLUE" if found["whole"] else f"mean of {len(found['tasks'])}, not the GLUE score; missing: "
    return "\n".join([*rows, f"{found['average']:.3f}   {of}{', '.join(found['missing'])}"])


def _metrics(given: str) -> tuple[str, dict[str, float | None]]:
    task, equals, file = given.partition("=")
    if not equals:
        raise InputError(f"found {given!r}\nexpected TASK=FILE, as in rte=runs/metrics/clean/erm/uncased/0.json")
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file\nexpected the metrics that `evaluate` or `ensemble` wrote")
    found = artifacts.read_json(Path(file))
    part = found.get("parts", {}).get(task, found.get("mean", found))
    return task, {name: one["value"] for name, one in part.get("overall", {}).items()}


def read(path: Path, task: Kind) -> pa.Table:
    """The rows of an official test file as a table of the task; the label of each means nothing.

    Raises:
        InputError: a column is not there, a row cannot be read, or the index is not 0, 1, 2, ...
    """
    import pyarrow as pa

    from gradworks.data import layouts, records

    if not path.is_file():
        raise InputError(f"{path}: no such file\nexpected an official test file")

    def whole(fields: dict[str, str]) -> bool:
        return all((fields.get(name) or "").strip() for name in columns.values())

    names = layouts.read(path, "tsv").names
    columns = {}
    for text in task.spec.texts:
        candidates = records.TEXTS.get(text, (text,))
        found = next((name for name in candidates if name in names), None)
        if found is None:
            raise InputError(f"{path}: no column for {text}: expected {' or '.join(candidates)}\n"
                             f"found: {', '.join(names[:12])}")  # fmt: skip
        columns[text] = found
    own = next((name for name in _INDEX if name in names), None)
    values: dict[str, list[Any]] = {text: [] for text in columns}
    for number, (line, fields) in enumerate(layouts.read(path, "tsv", whole=whole).rows):
        if isinstance(fields, str):
            raise InputError(f"{path}: line {line}: {fields}\nexpected every row of the test set: each needs an answer")
        if own and str(fields[own]) != str(number):
            raise InputError(f"{path}: line {line}: found {own} {fields[own]!r}\nexpected {number}: rows in order, none left out")  # fmt: skip  # noqa: E501
        for text, name in columns.items():
            try:
                values[text].append(task.take(fields.get(name), name))
            except ValueError as error:
                raise InputError(f"{path}: line {line}: {error}\nexpected an answer for each row") from None
    n = len(next(iter(values.values())))
    label = pa.array([task.spec.classes[0] if task.spec.classes else 0.0] * n, task.label_type)
    made = {text: task.column(of) for text, of in values.items()}
    return pa.table({"id": [str(i) for i in range(n)], **made, "label": label})


def read_objects(path: Path, task: Kind) -> pa.Table:
    """The rows of an official SuperGLUE test file as a table of the task, `id` its idx; the label means nothing.

    Raises:
        InputError: a column is not there, a row cannot be read, or an idx is missing or there twice.
    """
    import pyarrow as pa

    from gradworks.data import layouts, records

    if not path.is_file():
        raise InputError(f"{path}: no such file\nexpected an official test file")
    table = layouts.read(path)
    rows = list(table.rows)
    ids = Counter(one.get("idx", one.get("id")) for _, one in rows if isinstance(one, dict))
    key, times = max(ids.items(), key=lambda pair: (pair[0] is None, pair[1]), default=(None, 0))
    if rows and (key is None or times > 1):
        said = f"{path}: found {times} rows with the idx {key}"
        raise InputError(f"{said}\nexpected one of its own for each: answers are matched by it")
    found = records.read(task, rows, table.names, str(path), "", records.Asked(unlabelled=True))
    lacking = next((one for one in found.bad), None)
    label = task.spec.classes[0] if task.spec.classes else None
    for one in found.records:
        one["label"] = label or one[task.spec.texts[-1]].split("\n")[:1]
        if lacking is None and (reason := task.fault(one)):
            lacking = {"line": one["id"].removeprefix("-"), "reason": reason}
    if lacking:
        said = f"{path}: row {lacking['line']}: {lacking['reason']}"
        raise InputError(f"{said}\nexpected every row of the test set: each needs an answer")
    made = pa.concat_tables(records.to_tables(task, found.records))
    return made.set_column(0, "id", pa.array([one.removeprefix("-") for one in made["id"].to_pylist()]))


def predict(name: str, test: Path, models: list[Path], params: Path, out: Path, board: Any = glue) -> Path:
    """Answers to a test set as a file of a submission; of several models the mean, as the stage `ensemble` has it.

    Args:
        board: the benchmark, gradworks.glue or gradworks.superglue.

    Raises:
        InputError: no such test set, a model was trained on another task, or the file is not as `read` needs it.
    """
    if name not in board.TESTS:
        raise InputError(words.unknown("NAME", name, board.TESTS))
    official = board.TESTS[name]
    task = tasks.of(params, official.task)
    table = read(test, task) if board is glue else read_objects(test, task)
    import numpy as np

    from gradworks import models as encoders
    from gradworks.base.device import set_up
    from gradworks.data.tables import to_examples
    from gradworks.predict import answers

    for folder in models:
        ran = artifacts.check(folder)["parameters"]
        trained = ran.get("mixture", {}).get("parts") or [ran.get("task")]
        if official.task not in trained:
            raise InputError(f"{folder}: a model of {', '.join(map(str, trained))}\nexpected one of {official.task}")
        if "slices" in ran:
            raise InputError(
                f"{folder}: a model with heads of slices\nexpected one without: slices are of labelled rows"
            )
    device = set_up(base.value(params, "threads"), base.value(params, "device"))
    made = []
    for folder in models:
        length = artifacts.read_json(folder / artifacts.MANIFEST)["parameters"]["train"]["max_length"]
        model = encoders.load(folder).to(device)
        examples = to_examples(table, task, model, length, str(test)).to(device)
        made.append(answers(model, task, examples, name=f"{name} {folder.name}"))
    columns = task.predictions(task.mean(np.stack(made)))
    column = columns["value"] if "value" in columns else columns["prediction"]
    if board is superglue:
        return superglue.write(official, table["id"].to_pylist(), column.to_pylist(), out, str(test))
    return glue.write(official, column.to_pylist(), out, str(test))


def zipped(board: Any, folder: Path, out: Path, partial: bool = False) -> list[str]:
    """Write a submission: the files of `folder` in the official names.

    Args:
        board: the benchmark, gradworks.glue or gradworks.superglue.
        folder: of NAME.tsv or NAME.jsonl.
        out: the zip.
        partial: test sets may be missing, which the leaderboard refuses.

    Returns:
        The names of the missing ones.

    Raises:
        InputError: a file is missing or not as the leaderboard takes it; nothing is written.
    """
    there = {name: path for name in board.TESTS if (path := folder / f"{name}.{board.SUFFIX}").is_file()}
    texts = board.made()
    missing = [name for name in board.TESTS if name not in there and name not in texts]
    if not there or (missing and not partial):
        lacking = ", ".join(f"{name}.{board.SUFFIX}" for name in missing)
        verb = board.__name__.rpartition(".")[2]
        raise InputError(
            f"{folder}: no {lacking}\nexpected a file for each test set: gradworks {verb} predict NAME\n"
            "`--partial` leaves them out"
        )
    wrong = [one for name, path in there.items() if (one := board.fault(board.TESTS[name], path))]
    if wrong:
        more = [f"and {len(wrong) - 1} more files"] * (len(wrong) > 1)
        raise InputError("\n".join([f"{folder}: {wrong[0]}", *more]))
    texts |= {name: path.read_text(encoding="utf-8") for name, path in there.items()}
    with artifacts.atomic_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name in (one for one in board.TESTS if one in texts):  # the same files, the same bytes
            file.writestr(zipfile.ZipInfo(f"{name}.{board.SUFFIX}", (1980, 1, 1, 0, 0, 0)), texts[name])
    return missing
