"""With dvc_keys.py the only file that imports DVC, whose Python API is not public: adapt to a new release here.

Tested with the releases in TRIED; pyproject.toml allows no others. Imports are lazy, since `gradworks run` starts this
file many times.

`python -m gradworks.dvc_compat repro ...` is `dvc` with faster YAML: for each stage DVC reads dvc.yaml and dvc.lock
several times, once with a parser that keeps comments, and writes all of dvc.lock again, which takes seconds at a
hundred stages, with the project locked (https://github.com/treeverse/dvc/issues/10629). A dvc.lock has no comments, so
the plain parser gives the same data, and what did not change is neither parsed nor written again: see `dvc_text`. The
result is the same to the byte. `python -m gradworks.dvc_compat --serve MARK` does so for one command after another.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from gradworks import dvc_text

TRIED = ("3.67",)  # minor releases

_FILES = 16  # whose text is remembered
_AGAIN = 0.05  # seconds until the lock of a project is asked for again


def config(root: Path) -> dict[str, Any]:
    """The settings of a checkout's .dvc/config and config.local. Raises InputError where they cannot be parsed."""
    from dvc.config import Config, ConfigError

    from gradworks.base.errors import InputError

    try:
        return Config(str(root / ".dvc"), validate=False)
    except ConfigError as error:
        said = " ".join(str(error).split()).partition("config file error: ")[2] or str(error)
        raise InputError(
            f"{root / '.dvc/config'}: {said[:150]}\nexpected DVC's settings: are there marks of a merge conflict in it?"
        ) from None


def resolved(pipeline: Path, root: Path) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.yaml, name -> entry, with `foreach`, `matrix` and `${...}` expanded.

    Args:
        pipeline: the path of a dvc.yaml; root: of the checkout, whose settings say how values become text.

    Raises:
        InputError: no such file, it is not valid, or a parameter is missing.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import LocalFileSystem
    from dvc.parsing import DataResolver
    from dvc.schema import COMPILED_MULTI_STAGE_SCHEMA
    from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError, load

    from gradworks.base.errors import InputError

    if not pipeline.is_file():
        raise InputError(f"{pipeline}: no such file\nexpected a dvc.yaml")
    try:
        content, _ = load(str(pipeline), COMPILED_MULTI_STAGE_SCHEMA)
        # the part of a Repo that the resolver uses; a full one would read every dvc.yaml
        repo = SimpleNamespace(fs=LocalFileSystem(), config=config(root))
        resolver = DataResolver(repo, str(pipeline.absolute().parent), content)
        return {name: resolver.resolve_one(name)[name] for name in resolver.get_keys()}
    except YAMLValidationError as error:
        first = error.exc.errors[0]
        raise InputError(f"{pipeline}: {'.'.join(map(str, first.path))}: {first.error_message}") from None
    except YAMLSyntaxError as error:
        mark, problem = (getattr(error.__cause__, name, None) for name in ("problem_mark", "problem"))
        raise InputError(f"{pipeline}: line {mark.line + 1 if mark else '?'}: {problem or error}") from None
    except (DvcException, OSError) as error:
        said = re.sub(r" in '[^']*dvc\.yaml'", "", str(error))  # the file name, given already
        raise InputError("\n".join(f"{pipeline}: {said}".splitlines()[:3])) from None


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML as DVC does. Raises ValueError if it is not valid."""
    from dvc.utils.serialize import ParseError, parse_yaml

    try:
        return parse_yaml(text, source)
    except ParseError as error:
        raise ValueError(str(error)) from error


def read_lock(lock: Path) -> dict[str, Any]:
    """The stages of a dvc.lock."""
    from dvc.utils.serialize import load_yaml

    return load_yaml(str(lock))["stages"]


def write_lock(lock: Path, stages: dict[str, Any]) -> None:
    """Write a dvc.lock as DVC does."""
    from dvc.utils.serialize import dump_yaml

    dump_yaml(str(lock), {"schema": "2.0", "stages": stages})


class Failed(Exception):
    """DVC could not reproduce a stage; the text is the first line of the error at its root."""


class Project:
    """A checkout through DVC's Repo: `with Project(root) as project`."""

    def __init__(self, root: Path) -> None:
        from dvc.repo import Repo

        self._repo = Repo(str(root))
        self._cache, self._run_cache = self._repo.cache.local, self._repo.stage_cache
        self._run_cache.pull = lambda *_, **__: []  # DVC would fetch the whole run cache; `pod` fetches one entry

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self._repo.close()

    def outs(self, file: Path, stage: str | None = None) -> list[tuple[str, Any]]:
        """(path from the root, DVC's output) of a stage of a dvc.yaml, or of a .dvc file."""
        outs = self._repo.stage.load_one(str(file), stage).outs
        return [(Path(out.fs_path).relative_to(self._repo.root_dir).as_posix(), out) for out in outs]

    def objects(self, out: Any) -> set[Any]:
        """DVC's hash infos of an output: of the file, or of the folder's list and each file in it."""
        return {info for infos in out.get_used_objs().values() for info in infos}

    def has(self, oid: str) -> bool:
        """Whether the cache holds an object."""
        return self._cache.exists(oid)

    def path(self, oid: str) -> Path:
        """Where the cache holds an object."""
        return Path(self._cache.oid_to_path(oid))

    def pull(self, infos: Iterable[Any]) -> None:
        """Fetch objects from the default remote into the cache."""
        self._repo.cloud.pull(infos)

    def run_cache_key(self, pipeline: Path, stage: str) -> str | None:
        """The run cache key of a stage with its current inputs; None for one that is never cached."""
        from dvc.stage.cache import _can_hash, _get_stage_hash

        loaded = self._repo.stage.load_one(str(pipeline), stage)
        loaded.save_deps(allow_missing=True)
        return _get_stage_hash(loaded) if _can_hash(loaded) else None

    def run_cache_folder(self, key: str) -> Path:
        """Where the run cache holds the entries of a key."""
        return Path(self._run_cache.cache_dir, key[:2], key)

    def push_run_cache(self) -> None:
        """Push the run cache of this checkout to the default remote."""
        self._run_cache.push(None)

    def reproduce(self, address: str, unrestorable: Callable[[str], None]) -> bool:
        """Run one stage, or restore it from the run cache.

        Args:
            address: PIPELINE:STAGE.
            unrestorable: called with the reason where an entry of the run cache cannot be restored; the stage then
                runs.

        Returns:
            Whether the stage ran.

        Raises:
            Failed: it did not succeed.
        """
        from dvc.exceptions import DvcException
        from dvc.stage.cache import RunCacheNotFoundError

        restored, real = [], self._run_cache.restore

        def restore(*args: Any, **more: Any) -> None:
            try:
                real(*args, **more)
            except RunCacheNotFoundError:
                raise
            except Exception as error:  # the cached result was damaged or removed
                unrestorable(str(error).splitlines()[0])
                raise RunCacheNotFoundError(args[0]) from error
            restored.append(True)

        self._run_cache.restore = restore
        try:
            self._repo.reproduce(address, single_item=True, pull=True)
        except DvcException as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise Failed(str(cause).splitlines()[0]) from error
        finally:
            self._run_cache.restore = real
        return not restored


class _Lock(dict[str, Any]):
    """The data of a dvc.lock. `texts`: stage -> its data as read, and its text."""

    texts: dict[str, tuple[Any, str]]


class _Fast:
    """DVC's functions for YAML, faster: what was parsed before is not parsed again, of a dvc.lock stage by stage.

    Args:
        yaml: DVC's module of YAML, as it is.
    """

    def __init__(self, yaml: Any) -> None:
        self._yaml, self._parse, self._dump = yaml, yaml.parse_yaml, yaml._dump
        self._entries = dvc_text.Entries(self._plain)
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._valid: set[tuple[str, int]] = set()

    def _plain(self, text: str) -> Any:
        return self._parse(text, "dvc.lock")

    def parse(self, text: Any, path: Any, typ: str = "safe") -> Any:
        """`parse_yaml`; the data is the caller's own."""
        if typ != "safe" or not isinstance(text, str):
            return self._parse(text, path, typ)
        if Path(path).name == "dvc.lock" and (found := self._entries.load(text)):
            return found[0]
        if text not in self._known:
            self._known[text] = self._parse(text, path)
            if len(self._known) > _FILES:
                self._known.popitem(last=False)
        return dvc_text.own(self._known[text])

    def parse_for_update(self, text: Any, path: Any) -> Any:
        """`parse_yaml_for_update`; any other file than dvc.lock (a dvc.yaml) keeps its comments."""
        if Path(path).name != "dvc.lock":
            return self._parse(text, path, "rt")
        found = self._entries.load(text)
        lock = _Lock(found[0] if found else self._parse(text, path))
        lock.texts = found[1] if found else {}
        return lock

    def dump(self, data: Any, stream: TextIO) -> None:
        """`_dump`; a stage whose data is still the object that was read keeps its text."""
        text = self._text(data) if isinstance(data, _Lock) and data.texts else None
        if text is None:
            self._dump(dict(data) if isinstance(data, _Lock) else data, stream)
        else:
            stream.write(text)

    def _text(self, lock: _Lock) -> str | None:
        entries = []
        for name, stage in lock["stages"].items():
            before, entry = lock.texts.get(name, (None, ""))
            if before is not stage:
                alone = StringIO()
                self._dump({"stages": {name: stage}}, alone)
                entry = alone.getvalue().partition("\n")[2]
            entries.append(entry)
        return dvc_text.joined(entries, self._plain) if list(lock) == ["schema", "stages"] else None

    def validate(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """`strictyaml.validate`; a text that fits its schema is not looked at again."""

        def validate(data: Any, schema: Any, text: str | None = None, path: Any = None, rev: Any = None) -> Any:
            if text is None:
                return real(data, schema, text, path, rev)
            if (text, id(schema)) not in self._valid:  # a schema is a constant of DVC's
                real(data, schema, text, path, rev)
                if len(self._valid) >= _FILES:
                    self._valid.clear()
                self._valid.add((text, id(schema)))
            return data

        return validate


@functools.cache
def faster() -> None:
    """Put `_Fast` and `_wait` in the place of what DVC has, for the rest of this process."""
    from dvc.lock import Lock
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml

    fast = _Fast(_yaml)
    _yaml.parse_yaml = strictyaml.parse_yaml = fast.parse
    _yaml.parse_yaml_for_update, _yaml._dump = fast.parse_for_update, fast.dump
    strictyaml.validate = fast.validate(strictyaml.validate)
    Lock.lock = _wait(Lock.lock)


def _wait(plain: Callable[[Any], None]) -> Callable[[Any], None]:
    """`Lock.lock`, which asks every half a second whether the project is free, longer than DVC has it for a stage."""

    def lock(self: Any) -> None:
        from dvc.lock import LockError

        while self._wait:
            try:
                return self._do_lock()
            except LockError:
                time.sleep(_AGAIN)
        return plain(self)

    return lock


def serve(commands: TextIO, mark: str) -> None:
    """Run DVC with the arguments of each line, a JSON list; after each print the mark and the exit code.

    So that DVC starts once, and reads dvc.lock once. Ends where the lines do, as when the process that writes them has.
    """
    from dvc.cli import main

    faster()
    for line in commands:
        try:
            code = main(json.loads(line))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        sys.stderr.flush()
        print(f"\n{mark} {code}", flush=True)


def main() -> int:
    """`dvc` with the faster YAML; returns its exit code. `--serve MARK`: see `serve`."""
    if sys.argv[1:2] == ["--serve"]:
        # the stages get no input
        with os.fdopen(os.dup(0), encoding="utf-8") as commands:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            serve(commands, sys.argv[2])
        return 0
    from dvc.cli import main

    faster()
    return main()


if __name__ == "__main__":
    sys.exit(main())
