"""`gradworks artifacts ls`: the outputs of the stages, and whether they are in the store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gradworks.store.artifacts import words
from gradworks.store.artifacts.lock import AT_ONCE, Lock, Out, not_kept
from gradworks.store.artifacts.store import Fault, Found, Store


def rows(
    lock: Lock, store: Store, pipeline: Path, pattern: str | None = None, files: bool = False
) -> list[dict[str, Any]]:
    """A mapping for each output, or each file of one.

    Args:
        pattern: of a stage, a group of stages, a cell, a path or a folder; `*`, `?` and `[...]` as in a shell.
        files: list the files of folders.

    Raises:
        InputError: the lock or the store cannot be read.
    """
    outs = list(lock.outs())
    if not files:
        outs = [out for out in outs if _fits(out.stage, out.path, pattern)]
    objects = store.objects()
    made = list(_files(store, outs, objects) if files else (_row(out, objects) for out in outs))
    if files:
        made = [one for one in made if _fits(one["stage"], one["path"], pattern)]
    if any(one["state"] == "missing" for one in made):
        absent = not_kept(pipeline)
        for one in made:
            if one["state"] == "missing" and (one["stage"], one["path"]) in absent:
                one["state"] = "not kept"
    return made


def _fits(stage: str, path: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    group, _, cell = stage.partition("@")
    if any(fnmatchcase(one, pattern) for one in (stage, group, cell, path)):
        return True
    return path.startswith(pattern.rstrip("/") + "/")


def _row(out: Out, objects: dict[str, Found]) -> dict[str, Any]:
    found = objects.get(out.md5)
    wrong = found and not out.folder and out.size is not None and found.size != out.size
    return {
        "stage": out.stage, "cell": out.stage.partition("@")[2], "path": out.path, "md5": out.md5, "bytes": out.size,
        "files": out.files, "modified": found.modified if found else None,
        "state": "missing" if found is None else "damaged" if wrong else "ok",
    }  # fmt: skip


def _files(store: Store, outs: list[Out], objects: dict[str, Found]) -> Iterator[dict[str, Any]]:
    """As `_row`, with a folder replaced by its files, unless it cannot be opened."""

    def opened(out: Out) -> list[tuple[str, str]] | str:
        if not out.folder or out.md5 not in objects:
            return []
        try:
            return store.folder(out.md5)
        except Fault as fault:
            return fault.state

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for out, inside in zip(outs, pool.map(opened, outs), strict=True):
            if isinstance(inside, str):
                yield _row(out, objects) | {"state": inside}
            elif not inside:
                yield _row(out, objects)
            else:
                for path, md5 in inside:
                    found = objects.get(md5)
                    yield _row(Out(out.stage, f"{out.path}/{path}", md5, found.size if found else None, None), objects)


def table(made: list[dict[str, Any]], lock: Lock, parameters: bool = False) -> str:
    """The rows as text; `parameters`: each stage's before its outputs."""
    if not made:
        return f"{lock.source}: nothing of that name"
    lines = [("stage", "path", "size", "md5", "age", "store")]
    for one in made:
        cells = (words.plain(one["stage"]), words.plain(one["path"]))
        about = (words.size(one["bytes"]), one["md5"][:8], words.age(one["modified"]), one["state"])
        lines.append((*cells, *about))
    text = words.columns(lines, right=(2, 4))
    wrong = sum(one["state"] in ("missing", "damaged", "unreadable") for one in made)
    said = f"{len(made)} of {lock.source}, {words.size(sum(one['bytes'] or 0 for one in made))}"
    text += f"\n{said}" + (f"; {wrong} not as they should be: gradworks artifacts verify" if wrong else "")
    if parameters:
        for stage in dict.fromkeys(one["stage"] for one in made):
            values = "\n".join(f"  {words.plain(k)}: {words.short(v)}" for k, v in flat_parameters(lock, stage).items())
            text += f"\n\n{words.plain(stage)}\n{values or '  no parameters'}"
    return text


def flat_parameters(lock: Lock, stage: str) -> dict[str, Any]:
    """A stage's parameters by file and dotted key: params.yaml: train.epochs."""
    return {
        f"{file}: {key}": value
        for file, values in lock.parameters(stage).items()
        for key, value in words.flat(values).items()
    }
