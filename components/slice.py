"""Find the examples of each slice: which ids of train, clean, selection and test a slicing function picks.

`slice.use` names slicing functions, of the file `slice.file` or general ones. Writes slices.parquet (id, slice) and a
manifest that counts the members by split. Nothing is written where a function raises, or a slice has no member in train
or test.

examples:
  python -m components.slice --data runs/corrupt/noise/0 --out runs/slice/noise/0
"""

from __future__ import annotations

import sys
from pathlib import Path

from gradworks import base, tasks
from gradworks.base import artifacts
from gradworks.base.place import place
from gradworks.data import members, slices, splits
from gradworks.metrics import SMALL
from gradworks.telemetry import live


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that `corrupt` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the slices")
    args = parser.parse_args()
    live.begin("slice", args)
    asked = base.section(args.params, "slice", slices.Slices)
    task = tasks.of(args.params)
    top, _ = place(args.params, base.read_yaml(args.params))
    chosen = slices.chosen(asked, top, f"{args.params}: slice")
    about = artifacts.check(args.data)
    tables = {name: artifacts.read_parquet(args.data / f"{name}.parquet", ["id", *task.spec.texts])
              for name in splits.NAMES}  # fmt: skip
    ids, counts = slices.sliced(chosen, tables, task.spec.texts)
    for name, found in counts.items():
        if found["test"] < SMALL:
            print(
                f"{name}: {found['test']} examples of test, fewer than {SMALL}: its score says little", file=sys.stderr
            )
    with artifacts.atomic_folder(args.out) as folder:
        artifacts.write_parquet(folder / members.FILE, slices.to_table(ids))
        parameters = {"task": task.name, **asked.model_dump(exclude_none=True)}
        of = {f"{name}.parquet": about["files"][f"{name}.parquet"]["sha256"] for name in splits.NAMES}
        rows = {name: len(table) for name, table in tables.items()}
        artifacts.write_manifest(folder, "slice", parameters, seed=about.get("seed"), slices=counts, rows=rows, of=of)


if __name__ == "__main__":
    base.run(main)
