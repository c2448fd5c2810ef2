"""Stop a run whose params.yaml has a mistake, or whose cells.yaml is not what it asks for.

The first stage of the pipeline: cells.yaml (which DVC reads) is written from params.yaml (which people edit) by
`gradworks cells`. The output does not depend on the grid, so that a new seed reruns nothing after it.
hardware.yaml, which says what machine this is, is written where it is not there: in a fresh clone, before `measure`
asks for it.

examples:
  python -m components.cells --params params.yaml --out runs/cells.json
"""

from pathlib import Path

from gradworks import base, parameters
from gradworks.base import artifacts, cells
from gradworks.cost import hardware
from gradworks.telemetry import live


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a file that says the grid was checked")
    args = parser.parse_args()
    live.begin("cells", args)
    parameters.check(args.params)
    cells.check(args.params)
    hardware.write(args.params)
    artifacts.write_json(args.out, {"checked": True})


if __name__ == "__main__":
    base.run(main)
