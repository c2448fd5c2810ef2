"""The `gradworks` command."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

_HELP = """Which gradient method helps on my data, by how much, and what does it cost?

examples:
  gradworks cells                       write cells.yaml after a change of params.yaml
  gradworks cells pipelines/reweighting/params.yaml
  gradworks run                         run the default benchmark, the table growing as cells finish
  gradworks report                      the report of the cells that are there, finished or not
  gradworks compare BEFORE.json         what a change did to each method, beyond chance or not
  gradworks readme                      write the generated parts of README.md
  gradworks run pipelines/reweighting/params.yaml
  gradworks storage up                  an S3 server on this machine, for dvc push and dvc pull
  gradworks artifacts ls                what the stages made, by name, in the DVC remote
  gradworks submit --runner docker      the benchmark, each stage in a container of its own
  gradworks submit --cluster mine.yaml --wait && gradworks runs
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "gradworks", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, said in (
        ("cells", "write cells.yaml, the grid of params.yaml written out, and hardware.yaml"),
        ("run", "run a benchmark through dvc repro"),
        ("report", "write the report of the cells that are there"),
    ):
        one = verbs.add_parser(verb, help=said, description=said)
        one.add_argument("params", type=Path, nargs="?", default=Path("params.yaml"), help="default: %(default)s")
        if verb == "run":
            one.add_argument("--jobs", type=int, default=2, help="`dvc repro` at once (default: %(default)s)")
    said = (
        "what a change of the code did to each method: two results.json; exit code 1 where one is worse beyond chance"
    )
    compare = verbs.add_parser("compare", help=said, description=said)
    compare.add_argument("before", type=Path, help="results.json of the base")
    compare.add_argument(
        "after", type=Path, nargs="?", default=Path("report/results.json"), help="default: %(default)s"
    )
    compare.add_argument("--base", default="base", help="what the base is called in the text")
    verbs.add_parser("readme", help="write the generated parts of README.md")
    said = "an S3 server on this machine: start it, stop it, say whether it runs, print what a shell needs to use it"
    storage = verbs.add_parser("storage", help=said, description=said)
    storage.add_argument("act", choices=("up", "down", "status", "env"))
    from gradworks.kubeflow import verbs as cluster
    from gradworks.kubeflow.artifacts import verbs as artifacts

    artifacts.add(verbs)
    cluster.add(verbs)
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.verb == "cells":
        from gradworks.stage import cells
        from gradworks.telemetry import hardware

        print(f"wrote {cells.write(args.params)}")
        hardware.write(args.params)
    elif args.verb == "run":
        from gradworks import run

        run.run(args.params, args.jobs)
    elif args.verb == "report":
        from gradworks import report

        here = args.params.parent
        results = report.build(args.params, here / "cells.yaml", here / "runs", here / "report")
        print(report.table(results), report.answer(results), f"report: {here / 'report' / 'report.html'}", sep="\n\n")
    elif args.verb == "compare":
        from gradworks.report import compare

        compare.say(args.before, args.after, args.base)
    elif args.verb == "readme":
        from gradworks.report import readme

        readme.write(Path("README.md"))
    elif args.verb == "storage":
        _storage(args.act)
    elif args.verb == "artifacts":
        from gradworks.kubeflow.artifacts import verbs as artifacts

        artifacts.run(args)
    else:
        from gradworks.kubeflow import verbs

        verbs.run(args)


def _storage(act: str) -> None:
    from gradworks import storage

    if act == "up":
        print(storage.described(storage.up()))
        return
    if act == "down":
        print("storage is down; its data stays" if storage.down() else "storage was not up")
        return
    server = storage.running()
    if act == "env" and server:
        print(storage.exports(server))
        return
    print(storage.described(server), file=sys.stdout if act == "status" else sys.stderr)
    if server is None:
        sys.exit(1)


def main() -> None:
    """Entry point of the console script."""
    args = _parser().parse_args()
    if importlib.util.find_spec("pydantic") is None:
        sys.exit("error: the command needs more than the library\ninstall it: pip install 'gradworks[stage]'")
    from gradworks import stage

    stage.run(lambda: _run(args))
