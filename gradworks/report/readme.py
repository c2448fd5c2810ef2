"""The generated parts of README.md, docs/methods.md and of the READMEs of benchmarks, between markers."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from gradworks.base import artifacts
from gradworks.base.errors import InputError

RESULTS = Path("report/results.json")
README, METHODS = Path("README.md"), Path("docs/methods.md")
SLOTS = {"objectives": "objective", "weightings": "weighting", "updates": "update"}


def write(root: Path) -> None:
    """Write the results into README.md and the entries into docs/methods.md of the project at `root`.

    Raises:
        InputError: a file, a pair of markers or report/results.json is missing; then nothing is written.
    """
    made = {}
    for file, name, part in ((README, "results", results(root)), (METHODS, "entries", entries(root))):
        path = root / file
        if not path.is_file():
            raise InputError(f"{path}: no such file\nexpected: markers {name}:begin and {name}:end in it")
        made[path] = replace(path.read_text(encoding="utf-8"), name, part, str(path))
    for path, text in made.items():
        with artifacts.atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_benchmark(folder: Path) -> None:
    """Write the results into README.md of a benchmark, pipelines/NAME, with what was published of it.

    Raises:
        InputError: the file, its markers or report/results.json is missing, or published.yaml does not fit; then
            nothing is written.
    """
    path = folder / README
    if not path.is_file():
        raise InputError(f"{path}: no such file\nexpected: markers results:begin and results:end in it")
    made = replace(path.read_text(encoding="utf-8"), "results", benchmark(folder), str(path))
    with artifacts.atomic_file(path) as temporary:
        temporary.write_text(made, encoding="utf-8")


def benchmark(folder: Path) -> str:
    """What differs from the source, the answer, published and measured, the tables of a benchmark."""
    from gradworks.report import form, page, published

    file = folder / RESULTS
    found, known = artifacts.read_json(file), published.read(folder)
    about: dict[str, Any] = {"results": found, "published": known, "rule": form.RULE}
    about["ledger"] = published.ledger(found, known, str(folder / published.FILE)) if known else []
    about |= {"tables": page.tables(found), "file": file.as_posix(), "md5": md5(file)}
    return page.template("benchmark.md.j2", **about)


def results(root: Path) -> str:
    """The answer and the tables of report/results.json, its md5 (as in dvc.lock) and the command."""
    from gradworks.report import page

    file = root / RESULTS
    found = artifacts.read_json(file)
    answer = "\n".join(f"- {page.escaped(line)}" for line in found["answer"])
    said = page.escaped(found["data"]["said"])
    made = f"Made by `make demo` and `make readme` from `{RESULTS.as_posix()}`, md5 `{md5(file)}`."
    return f"{said}\n\n{answer}\n\n{page.tables(found)}\n\n{made}"


def md5(file: Path) -> str:
    """As dvc.lock gives it."""
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def entries(root: Path) -> str:
    """Each slot's entries with the first line of their docstrings, without importing them."""
    lines = ["| Slot | Entry | |", "|---|---|---|"]
    for folder, slot in SLOTS.items():
        for file in sorted((root / "gradworks" / "methods" / folder).glob("[!_]*.py")):
            said = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            link = f"[`{file.stem}`]({os.path.relpath(file, (root / METHODS).parent)})"
            lines.append(f"| {slot} | {link} | {said.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def between(text: str, name: str, where: str = "README.md") -> str:
    """The text between the markers of a part. Raises InputError when they are missing."""
    return _find(text, name, where).group(2).strip()


def replace(text: str, name: str, part: str, where: str = "README.md") -> str:
    """`text` with another part between the markers. Raises InputError when they are missing."""
    found = _find(text, name, where)
    return f"{text[: found.end(1)]}\n{part}\n{text[found.start(3) :]}"


def _find(text: str, name: str, where: str) -> re.Match[str]:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    found = re.search(f"({re.escape(begin)})(.*?)({re.escape(end)})", text, re.S)
    if not found:
        raise InputError(f"{where}: no part {name!r}\nexpected: {begin} … {end}")
    return found
