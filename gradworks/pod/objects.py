"""A stage's data in the DVC remote: fetch its inputs, push its outputs, check what arrived.

DVC's own fetch and push index the whole project and the whole run cache; these handle one stage. Pushes go through
boto3: DVC does not verify existing objects; we do. And where the store is unreachable, DVC retries every file of a
folder for minutes; here the first failure ends the push.
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
    """Fetch the upstream outputs that a stage reads; returns the number of objects.

    Raises:
        InputError: an object is missing or is not what its name says; names stage, file and object. A damaged one is
            quarantined, so that running its stage again replaces it.
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
    """Fetch missing objects; `makers`: the stage that made each."""
    missing = [info for info in makers if not project.has(info.value)]
    if not missing:
        return
    failed: Exception | None = None
    try:
        project.pull(missing)
    except Exception as error:  # DVC names the first missing file, not its object or stage
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
    """Move a damaged object to quarantine/, so that it can be pushed again."""
    name = "-".join(key.rsplit("/", 2)[-2:])
    source = {"Bucket": places.bucket, "Key": key}
    places.client.copy_object(Bucket=places.bucket, Key=places.key("quarantine", name), CopySource=source)
    places.delete([key])


def fetch_run_cache(project: Project, places: Places, pipeline: Path, stage: Stage) -> None:
    """Fetch the run cache's entries for a stage with these inputs."""
    key = project.run_cache_key(pipeline, stage.name)
    if key is None:
        return
    prefix = places.run_cache_key(key)
    for one in places.list(f"{prefix}/"):
        file = Path(project.run_cache_folder(key), one["Key"].rpartition("/")[2])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(places.get(one["Key"]) or b"")


def push(project: Project, places: Places, pipeline: Path, stage: Stage) -> int:
    """Push a stage's outputs and its run cache entry; returns the number of objects.

    Raises:
        InputError: an object could not be pushed; names it. The remaining ones are not tried.
    """
    infos = {info for _, out in project.outs(pipeline, stage.name) for info in project.objects(out)}
    for folders in (False, True):  # to DVC a folder is pushed once its list is: lists go last
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
    """Push one object unless it exists; an existing one with other bytes is quarantined."""
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
    """Whether an object matches the local file, by its S3 metadata (`found`) alone."""
    if found is None or found["ContentLength"] != local.stat().st_size:
        return False
    tag = found["ETag"].strip('"')
    # the ETag is the md5 unless the object was uploaded in parts or encrypted with a KMS key
    plain = len(tag) == 32 and "aws:kms" not in found.get("ServerSideEncryption", "")
    return tag == oid.removesuffix(".dir") if plain else True


def _first(error: BaseException) -> str:
    while error.__cause__ is not None and not str(error).strip():
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
