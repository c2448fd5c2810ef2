"""The `gradworks` command."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_HELP = """Which gradient method helps on my data, by how much, and what does it cost?

examples:
  gradworks cells                       write cells.yaml after a change of params.yaml
  gradworks cells pipelines/reweighting/params.yaml
  gradworks new mine --from FILE.csv    a benchmark on your own data, pipelines/mine
  gradworks run                         run the default benchmark, the table growing as cells finish
  gradworks report                      the report of the cells that are there, finished or not
  gradworks compare BEFORE.json         what a change did to each method, beyond chance or not
  gradworks readme                      write the generated parts of README.md and docs/methods.md
  gradworks run pipelines/reweighting/params.yaml
  gradworks storage up                  an S3 server on this machine, for dvc push and dvc pull
  gradworks artifacts ls                what the stages made, by name, in the DVC remote
  gradworks glue predict RTE --test RTE/test.tsv --model runs/models/CELL --out submission
  gradworks submit --runner docker      the benchmark, each stage in a container of its own
  gradworks submit --cluster mine.yaml --wait && gradworks runs
"""


_PARAMS = "a params file, or the folder that it lies in (default: %(default)s)"


def _params(given: str) -> Path:
    """The params file that a person means by it, by its folder or by the dvc.yaml beside it."""
    path = Path(given)
    if path.is_dir():
        return path / "params.yaml"
    return path.with_name("params.yaml") if path.name in ("dvc.yaml", "cells.yaml") else path


def _jobs(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"found {given!r}, expected a whole number of at least 1")
    return int(given)


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
        one.add_argument("params", type=_params, nargs="?", default=Path("params.yaml"), help=_PARAMS)
        if verb == "run":
            said = "stages at once (default: what cores and memory have room for, at the `threads` of the file)"
            one.add_argument("--jobs", type=_jobs, metavar="N", help=said)
    said = (
        "write pipelines/NAME/params.yaml for data of your own: a CSV, TSV, JSON or Parquet file, or a folder of them"
    )
    new = verbs.add_parser("new", help=said, description=said)
    new.add_argument("name", metavar="NAME")
    new.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE_OR_FOLDER")
    new.add_argument("--label", metavar="COLUMN", help="the column of labels; guessed by default")
    new.add_argument("--text", metavar="COLUMN", action="append", default=[], help="a column of texts; may be repeated")
    said = (
        "what a change of the code did to each method: two results.json; exit code 1 where one is worse beyond chance"
    )
    compare = verbs.add_parser("compare", help=said, description=said)
    compare.add_argument("before", type=Path, help="results.json of the base")
    compare.add_argument(
        "after", type=Path, nargs="?", default=Path("report/results.json"), help="default: %(default)s"
    )
    compare.add_argument("--base", default="base", help="what the base is called in the text")
    said = "write the generated parts of README.md and docs/methods.md, or of the README of benchmarks"
    readme = verbs.add_parser("readme", help=said, description=said)
    readme.add_argument("folders", metavar="FOLDER", type=Path, nargs="*", help="pipelines/NAME: its README only")
    said = "an S3 server on this machine: start it, stop it, say whether it runs, print what a shell needs to use it"
    storage = verbs.add_parser("storage", help=said, description=said)
    storage.add_argument("act", choices=("up", "down", "status", "env"))
    from gradworks import submission
    from gradworks.cluster import artifacts
    from gradworks.cluster import verbs as cluster

    submission.add(verbs)
    artifacts.add(verbs)
    cluster.add(verbs)
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.verb == "cells":
        from gradworks import parameters
        from gradworks.base import cells
        from gradworks.cost import hardware

        parameters.check(args.params)
        print(f"wrote {cells.write(args.params)}")
        hardware.write(args.params)
        for missing in parameters.not_there(args.params):
            print(f"not there yet: {missing}")
    elif args.verb == "new":
        from gradworks import new

        print(new.write(args.name, args.source, args.label, args.text))
    elif args.verb == "run":
        from gradworks import run

        run.run(args.params, args.jobs)
    elif args.verb == "report":
        from gradworks import done, report

        here, old = args.params.parent, done.outdated(args.params)
        results = report.build(args.params, here / "cells.yaml", here / "runs", here / "report", outdated=old)
        print(report.table(results), report.answer(results), f"report: {here / 'report' / 'report.html'}", sep="\n\n")
    elif args.verb == "compare":
        from gradworks.report import compare

        compare.say(args.before, args.after, args.base)
    elif args.verb == "readme":
        from gradworks.report import readme

        for folder in args.folders:
            readme.write_benchmark(folder)
        if not args.folders:
            readme.write(Path())
    elif args.verb == "storage":
        _storage(args.act)
    elif args.verb in ("glue", "superglue"):
        from gradworks import submission

        submission.run(args)
    elif args.verb == "artifacts":
        from gradworks.cluster import artifacts

        artifacts.run(args)
    else:
        from gradworks.cluster import verbs

        if args.verb in ("compile", "submit") and args.pipeline.is_dir():
            args.pipeline /= "dvc.yaml"
        if args.verb == "compile":
            _check(args.pipeline)
        if args.verb == "submit":
            _submit(args)
        else:
            verbs.run(args)


def _submit(args: argparse.Namespace) -> None:
    """Submit, with the parameters checked in a process beside: it imports torch, which takes as long as all else."""
    import functools
    import multiprocessing

    from gradworks.base.errors import InputError
    from gradworks.cluster import verbs

    @functools.cache
    def begun() -> Connection:
        context = multiprocessing.get_context("spawn")
        answer, there = context.Pipe(duplex=False)
        # a daemon: ended with this process, which does not wait until torch is unloaded
        context.Process(target=_beside, args=(there, args.pipeline, args.set), daemon=True).start()
        there.close()
        return answer

    @functools.cache
    def found() -> Exception | None:
        try:
            return begun().recv()
        except EOFError:
            return InputError("the check of the parameters was killed\nexpected memory for one more process")

    def answered() -> None:
        error = found()
        if error is not None:
            raise error

    def sure() -> Callable[[], None]:
        begun()
        return answered

    try:
        verbs.run(args, sure)
    except InputError:
        answered()  # a mistake in the parameters is named before what follows from it
        raise


def _beside(there: Connection, pipeline: Path, sets: Sequence[str]) -> None:
    """Send what `_check` raises, or None."""
    import signal
    import traceback

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends it with the process that began it
    try:
        _check(pipeline, sets)
        there.send(None)
    except Exception as error:
        error.add_note(traceback.format_exc())  # which is lost on the way
        there.send(error)


def _check(pipeline: Path, sets: Sequence[str] = ()) -> None:
    """Check the params file of a benchmark of ours, with what --set makes of it. Raises InputError."""
    from gradworks import base, parameters
    from gradworks.cluster.sets import changed

    params = pipeline.with_name("params.yaml")
    if params.is_file() and params.with_name("cells.yaml").is_file():
        text = changed(params, sets) if sets else None
        parameters.check(params, base.parse_yaml(text, f"{params} with what is set") if text else None)


def _storage(act: str) -> None:
    from gradworks.store import storage

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
    from gradworks import base

    base.clean_end(lambda: _run(args))
