"""Which stages of a commit were run before, by DVC's run cache in S3: a run needs no pod for them.

A stage's key in the run cache is made of its command, parameters and the hashes of its inputs. Those of the code are in
the checkout; those of outputs are in the lock entries of the stages above it. So stages are asked for from the top, and
below a stage that has to run nothing is known, unless `submit` runs it (`meta: {pod: submit}`). Nothing is downloaded
but lists of files.

`measure` reads hardware.yaml, which a pod writes of its own node. Its key is known where an earlier run of the same
cluster, with the same images and kind of GPU, says which hardware it was.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from gradworks import dvc_compat
from gradworks.base import read_yaml
from gradworks.cost import hardware
from gradworks.dvc_keys import Keys, Unknown, entry, files, folder_hash
from gradworks.store.places import Damaged, Places
from gradworks.store.runs import names
from gradworks.store.stages import Stage

_AT_ONCE = 16  # requests
_LISTED = 4000  # objects: a store of no more is listed, a thousand a request; of a larger one each object is asked for
_RUNS = 10  # the latest ones, that are asked for their hardware

Run = Callable[[Stage, Mapping[str, dict[str, Any]]], dict[str, Any]]  # a stage, the entries of all above it -> its own


def restored(
    root: Path, pipeline: Path, stages: Mapping[str, Stage], places: Places, machines: Sequence[str] = (),
    run: Run | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The entries of dvc.lock of the stages that a pod would restore, by stage.

    Args:
        root: of a checkout of the code alone, which is the current folder.
        pipeline: path of the dvc.yaml in it.
        stages: its stages, upstream first.
        places: the DVC remote.
        machines: hashes of hardware.yaml, the likeliest first; see `machines`.
        run: runs a stage with `pod: submit` that was not run before, of which all above has an entry.

    Raises:
        InputError: the store does not answer, or from `run`.
    """
    dvc_compat.faster()  # a hundred entries of the run cache are parsed
    found: dict[str, dict[str, Any]] = {}
    entries = {name: stage.entry for name, stage in stages.items()}
    with (
        Keys(root, pipeline, entries) as keys,
        ThreadPoolExecutor(_AT_ONCE) as pool,
        ThreadPoolExecutor(_AT_ONCE) as heads,
    ):
        store, left = _Store(places, heads, _LISTED), dict(stages)
        while left:
            ready = [stage for stage in left.values() if not any(up in left for up in stage.ups)]
            for stage in ready:
                del left[stage.name]
            # the keys need one thread, as DVC does; the store is asked by many
            asked = [
                (s, list(_keys(keys, s, stages, found, store, machines))) for s in ready if found.keys() >= {*s.ups}
            ]
            answers = pool.map(lambda one: _first(store, one[1]), asked)
            for (stage, _), entry in zip(asked, answers, strict=True):
                if entry is None and run is not None and stage.meta.pod == "submit":
                    entry = run(stage, found)
                if entry is not None:
                    found[stage.name] = entry
    return {name: found[name] for name in stages if name in found}


def machines(places: Places, like: Callable[[dict[str, Any]], bool]) -> list[str]:
    """The hashes of hardware.yaml in the latest run that has some.

    Args:
        like: of a run's record: whether its pods had the same nodes to run on.
    """
    seen: dict[str, None] = {}
    for run in itertools.islice(names(places), _RUNS):
        try:
            record = places.record(run) or {}
            if not like(record):
                continue
            entries = [places.entry(run, name) for name in record.get("measured", ())]
        except Damaged:
            continue
        for dep in (dep for one in entries if one for dep in one.get("deps", [])):
            if PurePosixPath(dep["path"]).name == hardware.NAME:
                seen.setdefault(dep["md5"])
        if seen:
            break
    return list(seen)


def there(places: Places, key: str) -> bool:
    """Whether the run cache has an entry of a key whose outputs are all in the store."""
    with ThreadPoolExecutor(_AT_ONCE) as heads:
        return _Store(places, heads).entry(key) is not None


def measured(stage: Stage) -> bool:
    """Whether a stage's results belong to the node that it runs on."""
    return any(PurePosixPath(dep).name == hardware.NAME for dep in stage.deps)


class _Listing:
    """The first objects under a prefix.

    Attributes:
        whole: whether these are all. tags: key -> ETag. folders: the keys in each folder, in the store's order.
    """

    def __init__(self, places: Places, prefix: str, most: int) -> None:
        found = list(itertools.islice(places.list(f"{prefix}/"), most + 1)) if most else []
        self.whole = 0 < most >= len(found)
        self.tags = {one["Key"]: one["ETag"].strip('"') for one in found}
        self.folders: dict[str, list[str]] = defaultdict(list)
        for key in self.tags:
            self.folders[key.rpartition("/")[0]].append(key)


class _Store:
    """What the remote holds; each object is asked for once. `most`: objects that are listed rather; 0 = none are."""

    def __init__(self, places: Places, heads: ThreadPoolExecutor, most: int = 0) -> None:
        self.places, self._heads = places, heads
        self._lists: dict[str, list[dict[str, str]] | None] = {}
        self._there: dict[str, bool] = {}
        self.tracked = functools.cache(_tracked)  # the stages read the same files
        prefixes = (places.run_cache_key(""), places.data_key(""))
        self._runs, self._data = heads.map(lambda prefix: _Listing(places, prefix, most), prefixes)

    def listed(self, oid: str) -> list[dict[str, str]] | None:
        """The files of a folder; None where its list is missing or damaged."""
        if oid not in self._lists:
            body = self.places.get(self.places.data_key(oid))
            try:
                found = None if body is None else files(body)
            except ValueError:
                found = None
            self._lists[oid] = found if found is not None and folder_hash(found) == oid else None
        return self._lists[oid]

    def whole(self, oid: str) -> bool:
        """Whether an object is there with the bytes that its name says; of a folder, with all its files."""
        if oid.endswith(".dir"):
            listed = self.listed(oid)
            return listed is not None and all(self._heads.map(self.whole, [one["md5"] for one in listed]))
        key = self.places.data_key(oid)
        listed = self._data.tags.get(key)
        if listed == oid or (listed is None and self._data.whole):
            return listed == oid
        if oid not in self._there:
            head = self.places.head(key)
            tag = (head or {}).get("ETag", "").strip('"')
            # the ETag is the md5 unless the object was uploaded in parts or encrypted with a KMS key
            plain = len(tag) == 32 and "aws:kms" not in (head or {}).get("ServerSideEncryption", "")
            self._there[oid] = head is not None and (tag == oid or not plain)
        return self._there[oid]

    def entry(self, key: str) -> dict[str, Any] | None:
        """The run cache's entry of a key whose outputs are all there: the one that a pod would take."""
        folder = self.places.run_cache_key(key)
        if self._runs.whole:
            there = self._runs.folders.get(folder)
        else:
            there = [one["Key"] for one in self.places.list(f"{folder}/")]
        body = self.places.get(there[-1]) if there else None  # a pod writes them in this order and takes the newest
        try:
            found = entry((body or b"").decode())
            whole = all(self.whole(out["md5"]) for out in found["outs"])
        except (ValueError, KeyError):
            return None
        return found if whole else None


def _first(store: _Store, keys: Iterable[str]) -> dict[str, Any] | None:
    return next((found for found in map(store.entry, keys) if found is not None), None)


def _keys(
    keys: Keys, stage: Stage, stages: Mapping[str, Stage], entries: Mapping[str, dict[str, Any]], store: _Store,
    machines: Sequence[str],
) -> Iterator[str]:  # fmt: skip
    """The keys that a stage may have; more than one only for a measured one. `entries`: of all above it."""
    made = {out.path: md5 for up in stage.ups for out, md5 in _hashes(stages[up], entries[up])}
    for dep in stage.deps:
        made |= store.tracked(dep)
    try:
        if any(_overlap(path, file) for path in made for file in stage.params):
            raise Unknown("its parameters are another stage's output")
        given = {dep: _hash(dep, made, keys, store) for dep in stage.deps if any(_overlap(dep, path) for path in made)}
        for machine in machines if measured(stage) else [None]:
            own = {dep: machine for dep in stage.deps if machine and PurePosixPath(dep).name == hardware.NAME}
            yield keys.key(stage.name, given | own)
    except Unknown:
        return


def _hashes(stage: Stage, entry: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """Outputs of a stage with their hashes: an entry's paths are relative to the stage's wdir."""
    for out in entry["outs"]:
        path = _placed(stage.wdir, out["path"])
        yield next(one for one in stage.outs if one.path == path), out["md5"]


def _placed(folder: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(folder, path))


def _tracked(dep: str) -> dict[str, str]:
    """What .dvc files say of an input, or of a folder above it."""
    found = {}
    for path in (dep, *(parent.as_posix() for parent in PurePosixPath(dep).parents)):
        if Path(f"{path}.dvc").is_file():
            about = read_yaml(Path(f"{path}.dvc"))
            folder = _placed(PurePosixPath(path).parent.as_posix(), about.get("wdir", "."))
            found |= {_placed(folder, out["path"]): out["md5"] for out in about.get("outs", []) if "md5" in out}
    return found


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")


def _hash(path: str, made: Mapping[str, str], keys: Keys, store: _Store) -> str:
    """The hash of an input that outputs make up: one of them, a part of one, or a folder with some in it."""
    if path in made:
        return made[path]
    for out, oid in made.items():
        if path.startswith(f"{out}/"):
            return _part(path.removeprefix(f"{out}/"), _listed(oid, out, store))
    own = {one["relpath"]: one["md5"] for one in keys.listing(path)}
    for out, oid in made.items():
        if out.startswith(f"{path}/"):
            at = out.removeprefix(f"{path}/")
            inside = _listed(oid, out, store) if oid.endswith(".dir") else [{"md5": oid, "relpath": ""}]
            own |= {f"{at}/{one['relpath']}".rstrip("/"): one["md5"] for one in inside}
    return folder_hash([{"relpath": name, "md5": md5} for name, md5 in own.items()])


def _part(name: str, listed: list[dict[str, str]]) -> str:
    whole = {one["relpath"]: one["md5"] for one in listed}
    if name in whole:
        return whole[name]
    inside = [
        {"relpath": at.removeprefix(f"{name}/"), "md5": md5} for at, md5 in whole.items() if at.startswith(f"{name}/")
    ]
    if not inside:
        raise Unknown(f"{name}: in no output")
    return folder_hash(inside)


def _listed(oid: str, out: str, store: _Store) -> list[dict[str, str]]:
    found = store.listed(oid) if oid.endswith(".dir") else None
    if found is None:
        raise Unknown(f"{out}: the list of its files is not in the store")
    return found
