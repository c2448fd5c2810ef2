"""Functions of the user's own file, marked by a decorator and called with one row each: slicing and labelling ones."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base import names
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_loading: ContextVar[list[Function] | None] = ContextVar("functions of the file that is being read", default=None)


class Row(dict):
    """One row: column -> value, without the label.

    Attributes:
        texts: the texts that a model reads, in their order; of a task of one text the second is "".
    """

    def __init__(self, values: dict[str, Any], texts: tuple[str, ...]) -> None:
        super().__init__(values)
        self.texts = texts


@dataclass(frozen=True)
class Function:
    """A function that a decorator marked.

    Attributes:
        name: by which params.yaml, manifests and reports call it.
        call: of one row. kind: "slicing" or "labelling". file: where it lies, for messages.
    """

    name: str
    call: Callable[[Row], Any]
    kind: str
    file: str = "gradworks"

    def __call__(self, row: Row) -> Any:
        return self.call(row)


def marked(call: Callable[[Row], Any], kind: str, name: str | None = None) -> Function:
    """What a decorator makes of a function; noted where a file is being read."""
    code = getattr(call, "__code__", None)
    made = Function(name or call.__name__, call, kind, code.co_filename if code else "gradworks")
    found = _loading.get()
    if found is not None:
        found.append(made)
    return made


def read(file: Path, kind: str, where: str) -> dict[str, Function]:
    """The functions of a file by name, in their order. The file runs as a module of its own.

    Args:
        file: Python. Files that it imports are no dependencies of a stage: DVC sees this one alone.
        kind: "slicing" or "labelling"; functions of the other kind are left alone.
        where: params file and key, for messages.

    Raises:
        InputError: there is no file, it raises, it has no such function, or two of one name.
    """
    if not file.is_file():
        raise InputError(f"{where}: {file}: no such file\nexpected Python with functions under @{kind}_function")
    spec = importlib.util.spec_from_file_location(f"_gradworks_{kind}_functions", file)
    module = importlib.util.module_from_spec(spec)
    token, keep = _loading.set([]), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # nothing is written beside the user's file
    try:
        spec.loader.exec_module(module)
        found = [one for one in _loading.get() if one.kind == kind]
    except Exception as error:
        raise InputError(f"{file}: reading it raised {type(error).__name__}: {_said(error)}") from error
    finally:
        _loading.reset(token)
        sys.dont_write_bytecode = keep
    if not found:
        raise InputError(f"{file}: found no function under @{kind}_function\nexpected at least one")
    return by_name(found, str(file))


def by_name(functions: Iterable[Function], where: str) -> dict[str, Function]:
    """Raises InputError where two have one name, or a name that a file or a key cannot have."""
    made: dict[str, Function] = {}
    for one in functions:
        if one.name in made:
            raise InputError(f"{where}: found two {one.kind} functions called {one.name!r}\nexpected each name once")
        made[one.name] = one
    names.check(made, where)
    return made


def rows(table: pa.Table, texts: tuple[str, ...]) -> list[Row]:
    """The rows of a table as functions see them: without labels, which test examples would give away."""
    columns = {name: table[name].to_pylist() for name in table.column_names if name not in ("label", "distribution")}
    made = []
    for i in range(len(table)):
        values = {name: column[i] for name, column in columns.items()}
        made.append(Row(values, tuple(values[name] or "" for name in texts) + ("",) * (len(texts) == 1)))
    return made


def apply(function: Function, table: list[Row]) -> list[Any]:
    """What a function says of each row. Raises InputError that names file, function and row where it raises."""
    made = []
    for row in table:
        try:
            made.append(function(row))
        except Exception as error:
            said = f"{function.kind} function {function.name}: row {row.get('id')}: raised {type(error).__name__}"
            raise InputError(f"{function.file}: {said}: {_said(error)}") from error
    return made


def _said(error: BaseException) -> str:
    return (str(error).splitlines() or ["no message"])[0][:200]
