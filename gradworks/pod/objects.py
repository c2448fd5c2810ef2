"""A stage's data in the DVC remote, one stage at a time: fetch what it reads, push what it wrote, check what arrived.

DVC's own fetch and push work on an index of the whole project and on all of the run cache; these on one stage. Pushes
go through boto3, as to DVC an object that is there counts as pushed, whatever its bytes, and as it tries every file of
a folder for minutes when the store has gone: here each object is looked at, and the first that fails ends it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.dvc_compat import Project
from gradworks.store.places import Places
from gradworks.store.stages import Stage

_AT_ONCE = 8  # uploads


def fetch(project: Project, places: Places, pipeline: Path, stage: Stage, ups: dict[str, Stage]) -> int:
    """Get what a stage reads from its upstreams' outputs; returns how many objects that were.

    Raises:
        InputError: an object is missing or is not what its name says; names stage, file and object. A damaged one is
            put aside, so that the stage that made it makes it anew.
    """
    outs: list[tuple[str, Any]] = []
    for name in stage.ups:
        needed = {out.path for out in ups[name].outs if any(_overlap(out.path, dep) for dep in _read(stage))}
        outs += [(name, out) for path, out in project.outs(pipeline, name) if path in needed]
    for dep in stage.deps:
        for file in (Path(dep), *Path(dep).parents):
            tracked = Path(f"{file}.dvc")
            if tracked.is_file():
                outs += [(str(tracked), out) for _, out in project.outs(tracked)]
    # a folder is a list of files, which is an object itself and comes first
    makers = {out.hash_info: name for name, out in outs}
    _pull(project, places, makers)
    makers |= {info: name for name, out in outs for info in project.objects(out)}
    _pull(project, places, makers)
    for _, out in outs:
        if not out.exists:
            out.checkout()
    return len(makers)


def _read(stage: Stage) -> tuple[str, ...]:
    return (*stage.deps, *stage.params)


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")


def _pull(project: Project, places: Places, makers: dict[Any, str]) -> None:
    """Get objects that are not here yet; `makers` says which stage made each."""
    missing = [info for info in makers if not project.has(info.value)]
    if not missing:
        return
    failed: Exception | None = None
    try:
        project.pull(missing)
    except Exception as error:  # DVC tells of the first file that it has not got, not of the object's name or maker
        failed = error
    for info in missing:
        if project.has(info.value):
            continue
        key, maker = places.data_key(info.value), makers[info]
        if places.head(key) is None:
            raise InputError(f"{places.uri(key)}: missing\n{maker} made it: run {maker} again") from failed
        if failed is None:
            set_aside(places, key)
            raise InputError(f"{places.uri(key)}: damaged, now put aside\n{maker} made it: run {maker} again")
    if failed is not None:
        raise InputError(f"{makers[missing[0]]}: its outputs could not be pulled: {_first(failed)}") from failed


def set_aside(places: Places, key: str) -> None:
    """Move an object whose bytes are wrong to quarantine/, so that a push of the right ones takes place."""
    name = "-".join(key.rsplit("/", 2)[-2:])
    source = {"Bucket": places.bucket, "Key": key}
    places.client.copy_object(Bucket=places.bucket, Key=places.key("quarantine", name), CopySource=source)
    places.delete([key])


def fetch_run_cache(project: Project, places: Places, pipeline: Path, stage: Stage) -> None:
    """Get what the run cache has for a stage with these inputs."""
    key = project.run_cache_key(pipeline, stage.name)
    if key is None:
        return
    prefix = places.run_cache_key(key)
    for one in places.list(f"{prefix}/"):
        file = Path(project.run_cache_folder(key), one["Key"].rpartition("/")[2])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(places.get(one["Key"]) or b"")


def push(project: Project, places: Places, pipeline: Path, stage: Stage) -> int:
    """Put a stage's outputs and its run cache entry into the remote; returns how many objects it has.

    Raises:
        InputError: an object could not be pushed; names it. The others are given up at once.
    """
    infos = {info for _, out in project.outs(pipeline, stage.name) for info in project.objects(out)}
    for folders in (False, True):  # DVC takes the files of a folder for pushed when its list is: that comes last
        some = [info.value for info in infos if info.isdir == folders]
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            for _ in pool.map(lambda oid: _send(places, oid, project.path(oid)), some):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    try:
        project.push_run_cache()
    except Exception as error:
        raise InputError(f"{stage.name}: push of the run cache failed: {_first(error)}") from error
    return len(infos)


def _send(places: Places, oid: str, local: Path) -> None:
    """Put one object into the remote, unless it is there; one that is there with other bytes is put aside."""
    key = places.data_key(oid)
    found = places.head(key)
    if _right(found, local, oid):
        return
    if found is not None:
        set_aside(places, key)
    places.upload(key, local)
    if not _right(places.head(key), local, oid):
        raise InputError(f"{places.uri(key)}: not what was pushed")


def _right(found: dict[str, Any] | None, local: Path, oid: str) -> bool:
    """Whether an object has the bytes that were to be pushed, as far as S3 tells (`found`) without reading it."""
    if found is None or found["ContentLength"] != local.stat().st_size:
        return False
    tag = found["ETag"].strip('"')
    # an ETag is the md5 of what was uploaded at once and not encrypted with a key of its own
    plain = len(tag) == 32 and "aws:kms" not in found.get("ServerSideEncryption", "")
    return tag == oid.removesuffix(".dir") if plain else True


def _first(error: BaseException) -> str:
    while error.__cause__ is not None and not str(error).strip():
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
