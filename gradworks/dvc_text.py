"""The text of a dvc.lock, stage by stage, so that only what changed is parsed and written.

DVC reads the whole file several times for each stage and writes all of it again after each. The entry of a stage that
did not change keeps its text and its data. Anchors (`&id001`) are numbered over the whole file: an entry's own follow
those of the entries before it. Every function says None where a text is not one that DVC wrote; then the plain parser
and writer are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_HEAD, _STAGES = "schema: '2.0'\n", "stages:\n"
_PERHAPS = re.compile(r"[ -][&*]id\d")  # in an entry with anchors, and in a few without
_MARK = re.compile(r"(?<= )([&*])id(\d{3,})(?=[ \n])")
_MANY = 8  # entries that are new: the whole file is parsed as fast

Parse = Callable[[str], Any]


def split(text: str) -> list[str] | None:
    """The entries of a dvc.lock, each a text that begins with its name."""
    head, stages, rest = text.partition(_STAGES)
    if head != _HEAD or not stages:
        return None
    before, *entries = re.split(r"^(?=  [^ \n])", rest, flags=re.M)  # a name begins at two spaces
    return entries if entries and not before else None


def own(data: Any, made: dict[int, Any] | None = None) -> Any:
    """A copy of plain data, in which is shared what was shared: DVC writes that with an anchor."""
    if type(data) not in (dict, list):
        return data
    made = {} if made is None else made
    if id(data) not in made:
        if type(data) is dict:
            made[id(data)] = {key: own(value, made) for key, value in data.items()}
        else:
            made[id(data)] = [own(value, made) for value in data]
    return made[id(data)]


class Entries:
    """The entries of a dvc.lock as data, each parsed once.

    Args:
        parse: a text of YAML as data. Raises for what is no valid YAML.
    """

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        self._known: dict[str, dict[str, Any]] = {}  # entry -> {name: data}

    def load(self, text: str) -> tuple[dict[str, Any], dict[str, tuple[Any, str]]] | None:
        """The file as data of the caller's own, and of each stage that data and its text."""
        entries = split(text)
        if entries is None:
            return None
        new = [one for one in entries if one not in self._known]
        found = self._whole(text, entries) if len(new) > _MANY else self._each(new)
        if found is None:
            return None
        self._known = {one: found[one] if one in found else self._known[one] for one in entries}
        stages, texts = {}, {}
        for one in entries:
            ((name, data),) = own(self._known[one]).items()
            stages[name], texts[name] = data, (data, one)
        return ({"schema": "2.0", "stages": stages}, texts) if len(stages) == len(entries) else None

    def _whole(self, text: str, entries: list[str]) -> dict[str, dict[str, Any]] | None:
        lock = self._parse(text)
        if not isinstance(lock, dict) or list(lock) != ["schema", "stages"] or not isinstance(lock["stages"], dict):
            return None
        if len(lock["stages"]) != len(entries):
            return None
        return {one: {name: data} for one, (name, data) in zip(entries, lock["stages"].items(), strict=True)}

    def _each(self, new: list[str]) -> dict[str, dict[str, Any]] | None:
        try:
            found = {one: self._parse(one) for one in new}
        except Exception:  # an alias of an anchor in another entry, or no YAML at all: the plain parser says
            return None
        return found if all(isinstance(data, dict) and len(data) == 1 for data in found.values()) else None


def joined(entries: list[str], parse: Parse) -> str | None:
    """The text of a dvc.lock.

    Args:
        entries: the text of each stage, its anchors numbered from anywhere.
        parse: as in `Entries`, to see that what looks like an anchor is one.
    """
    made, last = [_HEAD, _STAGES], 0
    for entry in entries:
        if not _PERHAPS.search(entry):
            made.append(entry)
            continue
        numbered = _numbered(entry, last, parse)
        if numbered is None:
            return None
        text, last = numbered
        made.append(text)
    return "".join(made)


def _numbered(entry: str, last: int, parse: Parse) -> tuple[str, int] | None:
    """An entry with its anchors numbered after `last`, and its own last number."""
    anchors = {int(number) for mark, number in _MARK.findall(entry) if mark == "&"}
    used = {int(number) for _, number in _MARK.findall(entry)}
    if len(_MARK.findall(entry)) != len(_PERHAPS.findall(entry)) or used != anchors:
        return None
    if not anchors or anchors != set(range(min(anchors), min(anchors) + len(anchors))):
        return None
    by = last + 1 - min(anchors)
    text = _MARK.sub(lambda found: f"{found[1]}id{int(found[2]) + by:03}", entry)
    try:
        same = not by or parse(text) == parse(entry)
    except Exception:  # an anchor of the entry is the text of a value
        same = False
    return (text, last + len(anchors)) if same else None
