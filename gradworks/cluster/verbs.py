"""The `gradworks` subcommands for clusters."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.cluster.early import Sure

_PROFILE = "the cluster's profile (an example: pipelines/cluster.example.yaml)"

_STORE = "take the object store's address from it, where the environment names none"


def add(verbs: Any) -> None:
    """Add the subcommands."""

    def verb(name: str, said: str, pipeline: bool = True) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=said, description=said)
        if pipeline:
            one.add_argument("pipeline", type=Path, nargs="?", default=Path("dvc.yaml"), help="default: %(default)s")
        return one

    one = verb(
        "compile", "write a dvc.yaml as a Kubeflow pipeline or its stages as components, or register it in Kubeflow"
    )
    one.add_argument("--cluster", type=Path, metavar="PROFILE", help=_PROFILE)
    one.add_argument("-o", "--output", type=Path, metavar="FILE.yaml", help="the pipeline")
    one.add_argument("--components", type=Path, metavar="DIR", help="a component.yaml for each stage")
    one.add_argument("--upload", action="store_true", help="register it in Kubeflow, a version a commit (--cluster)")

    one = verb("doctor", "try everything that a run on a cluster needs, a line each")
    one.add_argument("--cluster", type=Path, metavar="PROFILE", required=True, help=_PROFILE)

    one = verb("submit", "run a dvc.yaml on a cluster, or in containers on this machine")
    one.add_argument("--cluster", type=Path, metavar="PROFILE", help=_PROFILE)
    one.add_argument("--runner", choices=("cluster", "docker"), default="cluster", help="default: %(default)s")
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of params.yaml")
    one.add_argument("--dirty", action="store_true", help="take the work tree as it is, new files included")
    one.add_argument("--all", action="store_true", help="also the stages that are in the run cache")
    one.add_argument("--wait", action="store_true", help="follow the run to its end")
    said = "a recurring run instead, of this commit: minute hour day month weekday"
    one.add_argument("--every", metavar='"0 3 * * *"', help=said)
    said = "with --wait: leave a run of which no pod can start for so long, as 30s, 10m, 2h (default: %(default)s)"
    one.add_argument("--patience", default="10m", metavar="10m", help=said)

    one = verb("collect", "get the results of a run into dvc.lock and the work tree", pipeline=False)
    one.add_argument("run", metavar="RUN")
    one.add_argument("--cluster", type=Path, metavar="PROFILE", help=_STORE)
    one.add_argument("--force", action="store_true", help="replace entries of dvc.lock that are not committed")
    one.add_argument("--some", action="store_true", help="what there is of a run that failed or has not ended")

    one = verb("runs", "show submitted runs and their state", pipeline=False)
    one.add_argument("act", nargs="?", choices=("show", "remove"), help="show one run; end a schedule")
    one.add_argument("run", metavar="RUN", nargs="?")
    one.add_argument("--stage", metavar="S", help="one stage of it")
    one.add_argument("--cluster", type=Path, metavar="PROFILE", help=f"{_STORE}; and ask Kubeflow why stages wait")
    one.add_argument("--log", action="store_true", help="what the stage printed; without --stage, of what failed")

    one = verb("run-stage", "what a pod does for one stage of a run; in a checkout that is this run's alone")
    one.add_argument("--run", required=True, metavar="RUN", help="name of the run")
    one.add_argument("--stage", required=True, metavar="S", help="name of the stage, as in dvc.lock")
    one.add_argument("--remote", metavar="URL", help="s3://BUCKET/PREFIX (default: DVC's default remote)")
    one.add_argument("--here", action="store_true", help="in this machine's environment, as submit runs `pod: submit`")


def run(args: argparse.Namespace, sure: Sure = lambda: lambda: None) -> None:
    """Run one of the subcommands. `sure`: asked before `submit` begins anything."""
    if args.verb == "compile":
        _compile(args)
    elif args.verb == "doctor":
        from gradworks.cluster import doctor

        if not doctor.check(args.cluster, args.pipeline):
            sys.exit(1)
    elif args.verb == "submit":
        _submit(args, sure)
    elif args.verb == "collect":
        from gradworks.store import collect

        with _store(args.cluster):
            collect.collect(args.run, args.force, args.some)
    elif args.verb == "runs":
        from gradworks.cluster import profile

        of_cluster = profile.read(args.cluster) if args.cluster else None
        with profile.store(of_cluster) if of_cluster else nullcontext():
            _runs(args, of_cluster)
    elif args.verb == "run-stage":
        from gradworks.pod import run
        from gradworks.store import runs

        if not args.here and os.environ.get("GRADWORKS_IMAGE") is None:
            sys.exit("error: run-stage is for an image of `make images`, which sets GRADWORKS_IMAGE")
        remote = args.remote or runs.remote()
        sys.exit(run.run(run.Task(args.run, args.stage, args.pipeline.as_posix(), remote, here=args.here)))


def _store(cluster: Path | None) -> AbstractContextManager[None]:
    from gradworks.cluster import profile

    return profile.store(profile.read(cluster)) if cluster else nullcontext()


def _compile(args: argparse.Namespace) -> None:
    if not (args.output or args.components or args.upload):
        sys.exit("error: nothing to write; add -o FILE.yaml, --components DIR or --upload")
    if args.upload and args.cluster is None:
        sys.exit(f"error: upload to which cluster? add --cluster PROFILE, {_PROFILE}")
    from gradworks.cluster import compile, profile

    of_cluster = profile.read(args.cluster) if args.cluster else None
    if args.output:
        compile.write(args.pipeline, args.output, of_cluster)
        print(f"wrote {args.output}")
    if args.components:
        print(f"wrote {len(compile.write_components(args.pipeline, args.components, of_cluster))} components")
    if args.upload:
        from gradworks.cluster import standing

        standing.upload(args.pipeline, args.cluster)


def _submit(args: argparse.Namespace, sure: Sure) -> None:
    if args.every is not None and (args.wait or args.runner == "docker"):
        sys.exit("error: --every makes a recurring run of a cluster: without --wait and --runner docker")
    if args.runner == "docker":
        from gradworks.cluster import local

        local.submit(args.pipeline, args.set, args.dirty, args.all, sure)
    elif args.cluster is None:
        sys.exit(f"error: which cluster? add --cluster PROFILE, {_PROFILE}\nor --runner docker: on this machine")
    elif args.every is not None:
        from gradworks.cluster import standing

        standing.every(args.pipeline, args.cluster, args.every, args.set, args.dirty, sure)
    else:
        from gradworks.cluster import submit
        from gradworks.store.artifacts import words

        patience = words.duration(args.patience, "--patience")
        submit.submit(args.pipeline, args.cluster, args.set, args.dirty, args.wait, patience, args.all, sure)


def _runs(args: argparse.Namespace, of_cluster: Any) -> None:
    from gradworks.cluster import history
    from gradworks.store import runs

    def asked(record: dict[str, Any]) -> dict[str, str]:
        return history.ask(record, of_cluster, args.cluster)

    if args.act == "remove":
        if not (args.run and args.cluster):
            sys.exit("error: which schedule, on which cluster? gradworks runs remove NAME --cluster PROFILE")
        from gradworks.cluster import standing

        standing.remove(args.run, args.cluster)
        return
    places = runs.places()
    if args.act is None:
        print(history.listing(places))
    elif args.run is None:
        sys.exit("error: which run? gradworks runs lists them")
    elif args.log:
        for stage in [args.stage] if args.stage else history.failed(places, args.run):
            print(history.log(places, args.run, stage, asked), end="")
    else:
        print(history.shown(places, args.run, args.stage, asked))
