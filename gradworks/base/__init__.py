"""Shared by all stage programs: arguments, parameters, clear errors, a clean end."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gradworks.base import words
from gradworks.base.errors import InputError


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversion, finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


T = TypeVar("T", bound=BaseModel)


class _Refusing:
    """Refuses a key given twice (PyYAML keeps the last one silently)."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no plain word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Unique(_Refusing, yaml.SafeLoader):
    """Safe YAML."""


class _Fast(_Refusing, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The same with libyaml's parser, which says less of what is wrong, in a tenth of the time."""


for _one in (_Unique, _Fast):  # YAML 1.1 reads 1e-3 as text; people mean a number
    _one.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )

_kept: dict[Path, dict[str, Any]] | None = None  # as a stage program first read them; later edits are ignored


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; the same for a whole stage program. Raises InputError that names the line."""
    if _kept is None:
        return fresh_yaml(path)
    if path not in _kept:
        _kept[path] = fresh_yaml(path)
    return copy.deepcopy(_kept[path])


def fresh_yaml(path: Path) -> dict[str, Any]:
    """`read_yaml` of the file as it is now."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: found a folder, expected a file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping that a YAML text holds. `where`: its file. Raises InputError that names the line."""
    try:
        try:
            values = yaml.load(text, _Fast)  # noqa: S506  a subclass of SafeLoader
        except (yaml.YAMLError, ValueError):
            values = yaml.load(text, _Unique)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"{where}: line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not allow; a date such as 2024-13-01
        raise InputError(f"{where}: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a mapping of sections, found {type(values).__name__}")
    return values


class Params:
    """A params file, read once.

    Args:
        path: the file.

    Raises:
        InputError: it cannot be read, or is no mapping.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.values = path, read_yaml(path)

    def __str__(self) -> str:
        return str(self.path)

    def value(self, key: str) -> Any:
        """What is under a dotted key (`pretrain.gru.model`). Raises InputError where nothing is."""
        found: Any = self.values
        walked = []
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                near = ", ".join(map(str, found)) if isinstance(found, dict) else repr(found)
                raise InputError(f"{self}: no key {'.'.join([*walked, part])!r}\nfound: {near}")
            found = found[part]
            walked.append(part)
        return found

    def section(self, key: str, model: type[T]) -> T:
        """One section, validated.

        Args:
            key: dotted key of the section.
            model: the pydantic model of the section.

        Raises:
            InputError: the section is missing, a key is unknown, a type is wrong, a value is impossible.
        """
        found = self.value(key)
        return validate({} if found is None else found, model, f"{self}: {key}")

    def optional(self, key: str, model: type[T]) -> T:
        """`section`, or the model's defaults if the file has none."""
        return self.section(key, model) if key in self.values else validate({}, model, f"{self}: {key}")


def value(path: Path, key: str) -> Any:
    """`Params.value`."""
    return Params(path).value(key)


def section(path: Path, key: str, model: type[T]) -> T:
    """`Params.section`."""
    return Params(path).section(key, model)


def optional(path: Path, key: str, model: type[T]) -> T:
    """`Params.optional`."""
    return Params(path).optional(key, model)


def validate(value: Any, model: type[T], where: str) -> T:
    """`value` as `model`; numbers that YAML reads as text are converted.

    Args:
        value: from YAML.
        model: the pydantic model.
        where: file and key, for the error message.

    Raises:
        InputError: what was found and what was expected.
    """
    while True:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            errors = error.errors()
        number = next((found for one in errors if (found := words.number(value, one)) is not None), None)
        if number is None:
            raise InputError(words.said(errors, value, model, where))
        value = number


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 65535")
    return int(text)


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose help is the module's docstring, examples included."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (default: %(default)s)")
    said = "answer with metrics for Prometheus while the stage runs; 0: a free port (default: GRADWORKS_METRICS_PORT)"
    given = os.environ.get("GRADWORKS_METRICS_PORT") or None
    made.add_argument("--metrics-port", type=_port, default=given, metavar="PORT", help=said)
    return made


_SHELLS = ("sh", "ash", "bash", "dash", "ksh", "zsh")


class Stopping:
    """`with Stopping() as stop:` SIGINT and SIGTERM set a flag that `stop()` reads; a second SIGINT ends at once.

    A second SIGTERM does not: one request comes several times where a process group gets it and its first process (the
    program of a pod, torchrun) passes it on, and the checkpoint would be lost.
    A stage whose `dvc repro` was killed is asked to stop too: the next one must not meet it still writing.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._above = self._shell = None
        if "DVC_STAGE" in os.environ:
            import psutil

            self._shell = psutil.Process(os.getppid())
            if self._shell.name() not in _SHELLS:
                self._shell = None
            self._above = self._ancestors()

    def __call__(self) -> bool:
        return self.signal != 0 or (self._above is not None and self._ancestors() != self._above)

    def _ancestors(self) -> tuple[int, int]:
        """The parent and, where that is the shell in which DVC ran the command, the shell's: some shells stay between,
        some put the command in their place.
        """
        parent = os.getppid()
        if self._shell is None or parent != self._shell.pid:
            return parent, 0
        return parent, self._shell.ppid()

    def _ask(self, number: int, _: Any) -> None:
        if self.signal and number == signal.SIGINT:
            raise SystemExit(128 + number)
        self.signal = self.signal or number

    def __enter__(self) -> Stopping:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keeping() -> Iterator[None]:
    """Guarantee that DVC records what the stage read: see `held`."""
    global _kept
    from gradworks.base import held

    _kept = {}
    try:
        now = held.begin(sys.argv[1:])
        yield
        if now is not None:
            now.check()
    finally:
        _kept = None


def run(main: Callable[[], None]) -> None:
    """Run a stage program: as `clean_end`, with an error if DVC would record other inputs than it read."""

    def program() -> None:
        with _keeping():
            main()

    clean_end(program)


def clean_end(main: Callable[[], None]) -> None:
    """Run a command: InputError in three lines at most and exit 2; Ctrl-C and SIGTERM quietly, 130 and 143."""

    def terminate(*_):
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, terminate)
    try:
        main()
    except InputError as error:
        print("error: " + "\n".join(str(error).splitlines()[:3]), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
