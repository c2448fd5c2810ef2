"""DVC's run cache keys of stages whose inputs are known by their hashes alone, without the files.

Like `dvc_compat`, this imports DVC's private parts: those of the releases that are named there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Unknown(Exception):
    """A key cannot be known before the stage's pod has started; the text says why."""


class Keys:
    """The run cache keys of one dvc.yaml.

    Args:
        root: of a checkout of the code alone, the current folder; its .dvc is written to.
        pipeline: path of the dvc.yaml in it.
        entries: of its stages, with everything expanded.
    """

    def __init__(self, root: Path, pipeline: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
        from dvc.dvcfile import ProjectFile
        from dvc.repo import Repo

        settings = {"no_scm": True, "site_cache_dir": str(root / ".dvc/tmp/site")}
        self._repo = Repo(str(root), config={"core": settings})
        self._file, self._entries = ProjectFile(self._repo, str(root / pipeline)), entries
        self._deps: dict[tuple[str, str], Any] = {}  # by the stage's folder and the path in dvc.yaml
        self._known: dict[str, dict[str, Any]] = {}
        self._values: dict[str, Any] = {}

    def __enter__(self) -> Keys:
        return self

    def __exit__(self, *_: object) -> None:
        self._repo.close()

    def key(self, stage: str, given: Mapping[str, str]) -> str:
        """The run cache key of a stage, as a pod finds it once it has the stage's inputs.

        Args:
            stage: as in dvc.lock.
            given: hashes by path from the root, for inputs that are not in the checkout.

        Raises:
            Unknown: DVC does not keep such a stage in the run cache, or an input is not there.
        """
        from dvc.dependency.param import ParamsDependency
        from dvc.exceptions import DvcException
        from dvc.stage.cache import _get_cache_hash
        from dvc.stage.loader import StageLoader
        from dvc.stage.serialize import _serialize_params_values, split_params_deps

        data = self._entries[stage]
        names = [(data.get("wdir") or "", name) for name in data.get("deps") or ()]
        new = [one for one in dict.fromkeys(names) if one not in self._deps]
        # the stage as DVC loads it, but for inputs that another one has, and dvc.lock, of which no key has anything
        found = StageLoader.load_stage(self._file, stage, {**data, "deps": [name for _, name in new]})
        params, loaded = split_params_deps(found)
        self._deps |= zip(new, loaded, strict=True)
        deps = [self._deps[one] for one in names]
        self._cacheable(found, [*params, *deps])
        try:
            for one in params:
                assert isinstance(one, ParamsDependency)
                self._read(one)
        except (DvcException, ValueError) as error:
            raise Unknown(str(error).splitlines()[0]) from None
        inputs = [self._dep(dep, given) for dep in sorted(deps, key=lambda dep: dep.def_path)]
        values = _serialize_params_values(params)
        outs = [{"path": out.def_path} for out in sorted(found.outs, key=lambda out: out.def_path)]
        entry = {"cmd": found.cmd, "deps": inputs, **({"params": values} if values else {}), "outs": outs}
        return str(_get_cache_hash(entry, key=True))

    def _read(self, one: Any) -> None:
        """`one.save()`, which parses and searches the whole file for each stage, but for names that lead to a value."""
        from dvc.utils.serialize import load_path
        from dvc_data.hashfile.hash_info import HashInfo

        if one.fs_path not in self._values and Path(one.fs_path).is_file():
            self._values[one.fs_path] = load_path(one.fs_path, self._repo.fs)
        found = {}
        for name in one.params or [""]:
            value = self._values.get(one.fs_path)
            for part in name.split("."):
                if not isinstance(value, dict) or part not in value:  # a pattern, a list, no such key
                    one.save()
                    return
                value = value[part]
            found[name] = value
        one.hash_info = HashInfo(one.PARAM_PARAMS, found)

    def _cacheable(self, stage: Any, deps: list[Any]) -> None:
        local = all(one.protocol == "local" and one.def_path for one in (*deps, *stage.outs))
        kept = not any(out.persist or not out.is_in_repo for out in stage.outs)
        if stage.always_changed or not (stage.cmd and deps and stage.outs and local and kept):
            raise Unknown("DVC keeps no such stage in its run cache")

    def _dep(self, dep: Any, given: Mapping[str, str]) -> dict[str, Any]:
        path = Path(dep.fs_path).relative_to(self._repo.root_dir).as_posix()
        if path in given:
            return {"path": dep.def_path, "hash": "md5", "md5": given[path]}
        if path not in self._known:
            self._known[path] = self._hashed(dep)
        return {"path": dep.def_path, **self._known[path]}

    def _hashed(self, dep: Any) -> dict[str, Any]:
        """As dvc.lock has it, of a file or folder in the checkout."""
        from dvc.exceptions import DvcException

        try:
            dep.save()
        except (DvcException, OSError) as error:
            raise Unknown(str(error).splitlines()[0]) from None
        return {"hash": "md5", "md5": str(dep.hash_info.value)}

    def listing(self, folder: str) -> list[dict[str, str]]:
        """The files of a folder of the checkout, as DVC lists them; [] where there is none."""
        from dvc.dependency import Dependency
        from dvc.stage.loader import StageLoader

        path = Path(self._repo.root_dir, folder)
        if not path.is_dir():
            return []
        dep = Dependency(StageLoader.load_stage(self._file, "listing", {"cmd": "-"}), str(path))
        dep.save()
        return list(dep.get_obj().as_list())


def folder_hash(files: Iterable[Mapping[str, str]]) -> str:
    """The hash of a folder: of the list of its files.

    Args:
        files: `md5` and `relpath` each.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    tree = Tree()
    for one in files:
        tree.add(tuple(one["relpath"].split("/")), None, HashInfo("md5", one["md5"]))
    tree.digest()
    return str(tree.oid)


def entry(text: str) -> dict[str, Any]:
    """An entry of the run cache. Raises ValueError if it is none."""
    from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
    from dvc.utils.serialize import ParseError, parse_yaml
    from voluptuous import Invalid

    try:
        return dict(COMPILED_LOCK_FILE_STAGE_SCHEMA(parse_yaml(text, "an entry of the run cache")))
    except (ParseError, Invalid, TypeError) as error:
        raise ValueError(str(error)) from error


def files(body: bytes) -> list[dict[str, str]]:
    """The list of a folder's files. Raises ValueError if it is none."""
    found = json.loads(body)
    fine = isinstance(found, list) and all(isinstance(one, dict) and {"md5", "relpath"} <= one.keys() for one in found)
    if not fine:
        raise ValueError("no list of files")
    return found
