"""Write the report of a benchmark: report.html (one file, no network), report.md and results.json.

Cells that have not run, ran out of memory or diverged are shown as such. results.json depends on the inputs alone.

examples:
  python -m components.report --cells cells.yaml --runs runs --out report
"""

from pathlib import Path

from gradworks import base, report
from gradworks.telemetry import live


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="cells.yaml, which names the cells")
    parser.add_argument("--runs", type=Path, required=True, help="folder of what the other stages wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    args = parser.parse_args()
    live.begin("report", args)
    report.build(args.params, args.cells, args.runs, args.out)


if __name__ == "__main__":
    base.run(main)
