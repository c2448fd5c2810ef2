"""Label rows by labelling functions: their votes, a label model, and the rows with a probability of each class.

`label.NAME` names a file of labelling functions and the rows that they read. Writes train.parquet (rows with a vote;
`label` is the most probable class, `distribution` the probability of each), votes.parquet and a manifest with coverage,
overlap, conflict and accuracy of each function. `corrupt.splits.train: {from: NAME/train}` trains on it: a loss is then
the expected one. Nothing is written where a function raises, returns no class, or abstains on all rows.

examples:
  python -m components.label --name weak --data runs/fetch --out runs/label/weak
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.base.place import place
from gradworks.data import functions, labelling
from gradworks.telemetry import live

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind


def _table(path: str, data: Path, task: Kind, where: str) -> pa.Table:
    """A split of a source, checked against its manifest."""
    source, split = path.split("/")
    manifest = artifacts.check(data / source)
    if f"{split}.parquet" not in manifest["files"]:
        raise InputError(f"{where}: found {path!r}\n{source} has: {', '.join(manifest['splits'])}")
    return artifacts.read_parquet(data / source / f"{split}.parquet", ["id", *task.spec.texts, "label"])


def main() -> None:
    import numpy as np
    import pyarrow as pa

    from gradworks.data.labelling_model import MODELS
    from gradworks.metrics._shared.scores import wilson

    parser = base.parser(__doc__)
    parser.add_argument("--name", required=True, help="a key of the section `label`")
    parser.add_argument("--data", type=Path, required=True, help="what `fetch` wrote: a folder of sources")
    parser.add_argument("--out", type=Path, required=True, help="folder for the labelled rows")
    args = parser.parse_args()
    live.begin("label", args)
    key = f"label.{args.name}"
    asked, where = base.section(args.params, key, labelling.Weak), f"{args.params}: {key}"
    task = tasks.of(args.params)
    labelling.check(task, where)
    classes = task.drawn_from(where)
    top, _ = place(args.params, base.read_yaml(args.params))
    chosen = labelling.chosen(asked, top, where)
    table = _table(asked.from_, args.data, task, f"{where}.from")
    cast = labelling.votes(chosen, functions.rows(table, task.spec.texts), classes)
    if asked.model == "dawid_skene":
        labelling.check_overlap(list(chosen), cast, where)
    probabilities = MODELS[asked.model](cast, len(classes))
    gold = None
    if asked.gold:
        held = _table(asked.gold, args.data, task, f"{where}.gold")
        truth = task.indices(np.array([task.spec.collapse.get(one, one) for one in held["label"].to_pylist()]))
        gold = labelling.votes(chosen, functions.rows(held, task.spec.texts), classes, every=False), truth
    known = (cast != labelling.NONE).any(1)
    left_out = int((~known).sum())
    if left_out:
        print(f"{args.name}: {left_out} of {len(table)} rows have no vote and are left out", file=sys.stderr)
    labels = [classes[i] for i in probabilities.argmax(1)]
    made = table.set_column(table.column_names.index("label"), "label", pa.array(labels, pa.string()))
    made = made.append_column("distribution", pa.array(probabilities.tolist(), pa.list_(pa.float64())))
    made = made.filter(pa.array(known))
    each = pa.table({"id": table["id"], **{
        name: pa.array([None if v == labelling.NONE else classes[v] for v in cast[:, j]], pa.string())
        for j, name in enumerate(chosen)}})  # fmt: skip
    about = {
        "rows": {"read": len(table), "labelled": len(made), "without_votes": left_out},
        "functions": labelling.described(list(chosen), cast, probabilities, gold, wilson),
        "splits": {labelling.SPLIT: {"rows": len(made), "labels": task.count(made["label"].to_pylist())}},
        "mean": dict(zip(classes, probabilities[known].mean(0).tolist(), strict=True)),
    }
    if asked.model == "dawid_skene":
        for said in labelling.doubted(about["functions"]):
            print(f"{args.name}: {said}", file=sys.stderr)
    with artifacts.atomic_folder(args.out) as folder:
        artifacts.write_parquet(folder / f"{labelling.SPLIT}.parquet", made)
        artifacts.write_parquet(folder / "votes.parquet", each)
        parameters = {"task": task.name, **asked.model_dump(by_alias=True, exclude_none=True)}
        artifacts.write_manifest(folder, "label", parameters, **about)


if __name__ == "__main__":
    base.run(main)
