"""Errors in values of params.yaml: what was found, what was expected, what may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NUMERIC = ("int_type", "float_type", "int_from_float")
_EXPECTED = {  # of pydantic's errors
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_too_short": "some text",
    "string_pattern_mismatch": "text of the form {pattern}",
    "literal_error": "{expected}",
}


def near(found: Any, known: Iterable[Any]) -> str:
    """`; did you mean reweight?`, or nothing."""
    # for SOURCE/SPLIT only the split, if the source is right
    folder, slash, last = str(found).lower().rpartition("/")
    names = {str(one).lower().removeprefix(folder + slash): str(one) for one in known}
    close = difflib.get_close_matches(last, names, 1, 0.6)
    return f"; did you mean {names[close[0]]}?" if close else ""


def unknown(where: str, found: Any, known: Iterable[Any]) -> str:
    """Two lines: what was found at `where`, and the known names."""
    known = list(known)
    return f"{where}: found {shown(found)}{near(found, known)}\nexpected one of: {', '.join(map(str, known)) or 'none'}"


def shown(value: Any) -> str:
    """The value as YAML, shortened."""
    text = {None: "nothing", True: "true", False: "false"}.get(value, "") if isinstance(value, bool | None) else ""
    text = text or repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _along(value: Any, place: Sequence[Any]) -> list[Any]:
    """The keys in pydantic's location, without names of union branches."""
    walked = []
    for part in place:
        there = isinstance(value, Mapping) and part in value
        there = there or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        if there:
            walked.append(part)
            value = value[part]
    return walked


def number(value: Any, error: Mapping[str, Any]) -> Any | None:
    """The value with a number that was written as text, or as 32.0 for 32; None for any other error."""
    found = error["input"]
    if error["type"] not in _NUMERIC:
        return None
    if isinstance(found, str) and _NUMBER.fullmatch(found.strip()):
        meant: Any = float(found)
    elif isinstance(found, float) and found == found // 1:
        meant = found
    else:
        return None
    if error["type"] != "float_type":
        if meant != meant // 1:
            return None
        meant = int(meant)
    return _with(value, _along(value, error["loc"]), meant)


def _with(value: Any, place: Sequence[Any], meant: Any) -> Any:
    if not place:
        return meant
    copy = dict(value) if isinstance(value, Mapping) else list(value)
    copy[place[0]] = _with(copy[place[0]], place[1:], meant)
    return copy


def said(errors: Sequence[Mapping[str, Any]], value: Any, model: Any, where: str) -> str:
    """The first of pydantic's errors. `where`: file and key of the value, which is no `model`."""
    # every branch of a union gives an error: the intended branch is the one that got furthest
    first = errors[0]
    place = _along(value, first["loc"])
    same = [one for one in errors if one["loc"][: len(place)] == first["loc"][: len(place)] and place]
    first = max(same, key=lambda one: len(_along(value, one["loc"])), default=first)
    place = _along(value, first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted(_fields(model, place[:-1]))
        return f"{_at(where, place)}: unknown key{near(place[-1], known)}\nexpected one of: {', '.join(known)}"
    if first["type"] == "missing":
        missing = [*place, first["loc"][-1]]
        return f"{_at(where, missing)}: missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        found = f" found {shown(first['input'])}" if place else ""  # do not print a whole section
        return f"{_at(where, place)}:{found}\n{message}"
    context = dict(first.get("ctx") or {})
    if "expected" in context:  # 'cpu', 'cuda' or 'auto'
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        return unknown(_at(where, place), first["input"], known)
    expected = [_expected(one) for one in same or [first] if _along(value, one["loc"]) == place]
    text = " or ".join(dict.fromkeys(filter(None, expected)))
    return f"{_at(where, place)}: found {shown(first['input'])}\n{'expected ' + text if text else message}"


def _expected(error: Mapping[str, Any]) -> str:
    form = _EXPECTED.get(error["type"])
    return form.format(**(error.get("ctx") or {})) if form else ""


def _at(where: str, place: Sequence[Any]) -> str:
    key = ".".join(map(str, place))
    return f"{where} {key}" if where.endswith(":") else f"{where}.{key}" if key else where


def _fields(model: Any, place: Sequence[Any]) -> list[str]:
    """The keys of the model at a location."""
    for part in place:
        fields = getattr(model, "model_fields", {})
        field = next((f for name, f in fields.items() if (f.alias or name) == part), None)
        model = _model(field.annotation if field else model)
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def _model(annotation: Any) -> Any:
    """The section in an annotation such as `Noise | None` or `list[Block]`."""
    if hasattr(annotation, "model_fields"):
        return annotation
    inner = (_model(one) for one in getattr(annotation, "__args__", ()))
    return next((one for one in inner if one is not None), None)
