"""The command line of `gradworks artifacts`."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError

_SAID = "what the stages made, in the DVC remote: by stage, cell and path rather than by hash"
_EXAMPLES = """
examples:
  gradworks artifacts ls 'train@noise-*'                    the outputs of some cells
  gradworks artifacts ls --files runs/models                the files in a folder
  gradworks artifacts show runs/metrics/noise/erm/gru/0.json
  gradworks artifacts diff HEAD~1 HEAD                      what a commit changed
  gradworks artifacts verify                                read every object again
  gradworks artifacts url report/report.html --expires 1d   a link for somebody without a login
  gradworks artifacts prune --older-than 90d --dry-run
"""
_LINES = 40


def add(verbs: Any) -> None:
    """Add `artifacts` to the subcommands."""
    verb = verbs.add_parser(
        "artifacts", help=_SAID, description=_SAID, epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    acts = verb.add_subparsers(dest="act", required=True, metavar="ACT")

    def act(name: str, said: str, source: bool = True, as_json: bool = True) -> argparse.ArgumentParser:
        one = acts.add_parser(name, help=said, description=said)
        one.add_argument("--pipeline", type=Path, default=Path("dvc.yaml"), metavar="FILE", help="default: %(default)s")
        one.add_argument("--cluster", type=Path, metavar="PROFILE", help="take the object store's address from it")
        if as_json:
            one.add_argument("--json", action="store_true", help="all of it, for programs")
        if source:
            either = one.add_mutually_exclusive_group()
            either.add_argument("--rev", metavar="REV", help="the dvc.lock of a commit, not of the work tree")
            either.add_argument("--run", metavar="RUN", help="the lock entries of a run")
        return one

    one = act("ls", "list the outputs of the stages, and whether the store has them")
    one.add_argument("pattern", nargs="?", help="a stage, group, cell, path or folder; * ? [...] as in a shell")
    one.add_argument("--files", action="store_true", help="open folders")
    one.add_argument("--parameters", action="store_true", help="those of each stage as well")

    one = act("show", "what an output is, and the parameters of the stage that made it")
    one.add_argument("path", help="of an output or a file in one; or a stage")
    one.add_argument("--lines", type=int, default=_LINES, help="of a preview at most (default: %(default)s)")

    one = act("cat", "the bytes of a file", as_json=False)
    one.add_argument("path")

    one = act("diff", "parameters and metrics that differ between two revisions, or two runs", source=False)
    one.add_argument("a", metavar="A")
    one.add_argument("b", metavar="B", nargs="?", help="default: the work tree")
    one.add_argument("--runs", action="store_true", help="A and B are runs, also where a revision has the name")
    one.add_argument("--lines", type=int, default=_LINES, help="at most (default: %(default)s)")

    act("verify", "read every object again, and name each that is missing or damaged")

    one = act("url", "a link to a file that needs no credentials until it expires")
    one.add_argument("path")
    one.add_argument("--expires", default="1h", metavar="1h", help="30s, 15m, 1h, 7d (default: %(default)s)")

    one = act("prune", "remove old code bundles, lock entries, logs, records and checkpoints of runs", source=False)
    one.add_argument("--older-than", required=True, metavar="90d", help="age of what is removed")
    one.add_argument("--dry-run", action="store_true", help="say what would be removed")
    one.add_argument("--ended", action="append", default=[], metavar="RUN", help="it has, though its record says no")


def run(args: argparse.Namespace) -> None:
    """Run the subcommand. Raises InputError; exits with 1 where `verify` finds something wrong."""
    from gradworks.store import runs, stages
    from gradworks.store.artifacts.store import Store

    pipeline = args.pipeline
    with _address(args.cluster):
        store = Store(runs.places(stages.checkout(pipeline)))
        if args.act == "prune":
            _prune(args, store)
        elif args.act == "diff":
            _diff(args, store)
        elif args.act == "verify":
            _verify(args, store)
        else:
            gc.disable()  # halves the time that a large dvc.lock takes to read; the process ends soon
            try:
                _one(args, store)
            finally:
                gc.enable()


def _address(cluster: Path | None) -> AbstractContextManager[None]:
    if cluster is None:
        return nullcontext()
    from gradworks.cluster import profile

    return profile.store(profile.read(cluster))


def _one(args: argparse.Namespace, store: Any) -> None:
    """The subcommands that read one lock."""
    from gradworks.store.artifacts import listing, named, show, words

    lock, _ = _lock(args, store)
    if args.act == "ls":
        made = listing.rows(lock, store, args.pipeline, args.pattern, args.files)
        found: dict[str, Any] = {"source": lock.source, "artifacts": made}
        if args.parameters:
            found["parameters"] = {name: lock.parameters(name) for name in dict.fromkeys(o["stage"] for o in made)}
        _print(args, found, lambda: listing.table(made, lock, args.parameters))
    elif args.act == "show":
        about = show.read(lock, store, args.path)
        _print(args, about, lambda: show.shown(about, _at_least_one(args.lines)))
    elif args.act == "cat":
        named.cat(lock, store, args.path)
    else:
        link = named.url(lock, store, args.path, words.duration(args.expires, "--expires"))
        _print(args, link, lambda: link["url"])


def _lock(args: argparse.Namespace, store: Any) -> tuple[Any, list[str]]:
    """The lock that the arguments name, and the keys of a run's entries that are damaged."""
    from gradworks.store.artifacts import lock

    if args.run:
        found, damaged = lock.of_run(store.places, args.run)
        if damaged and args.act != "verify":
            raise InputError(
                f"{store.places.uri(damaged[0])}: damaged\nname the faults: gradworks artifacts verify --run {args.run}"
            )
        return found, damaged
    return (lock.revision(args.pipeline, args.rev) if args.rev else lock.work_tree(args.pipeline)), []


def _diff(args: argparse.Namespace, store: Any) -> None:
    from gradworks.store.artifacts import diff, lock

    a = diff.either(store, args.pipeline, args.a, args.runs)
    b = lock.work_tree(args.pipeline) if args.b is None else diff.either(store, args.pipeline, args.b, args.runs)
    found = diff.compare(a, b, store, args.pipeline)
    _print(args, found, lambda: diff.shown(found, _at_least_one(args.lines)))


def _verify(args: argparse.Namespace, store: Any) -> None:
    from gradworks.store.artifacts import lock, verify

    found, damaged = _lock(args, store)
    if not damaged:
        verify.raise_if_none(found)
    report = verify.check(found, store, lock.not_kept(args.pipeline), args.run)
    _print(args, report, lambda: verify.shown(report))
    if report["faults"]:
        sys.exit(1)


def _prune(args: argparse.Namespace, store: Any) -> None:
    from gradworks.store.artifacts import prune, words

    made = prune.plan(store.places, words.duration(args.older_than, "--older-than"), tuple(args.ended))
    if not args.dry_run:
        prune.remove(store.places, made)
    report = prune.summary(store.places, made, args.dry_run)
    _print(args, report, lambda: prune.shown(report))


def _at_least_one(lines: int) -> int:
    if lines < 1:
        raise InputError(f"--lines: found {lines}\nexpected 1 or more")
    return lines


def _print(args: argparse.Namespace, value: Any, text: Any) -> None:
    if args.json:
        print(json.dumps(value, indent=1, default=_json))
    else:
        print(text())


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
