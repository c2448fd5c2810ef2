"""Shared by the models of `meta` and of cluster profiles: text types and clear errors."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from gradworks.base import Section, validate
from gradworks.base.errors import InputError

T = TypeVar("T", bound=BaseModel)


class CamelSection(Section):
    """As Section, with keys in Kubernetes' spelling: nodeSelector."""

    model_config = ConfigDict(alias_generator=to_camel)


def text(pattern: str, expected: str, numbers: Any = None) -> Any:
    """The type of a text that matches a pattern.

    Args:
        pattern: a regular expression for the whole text.
        expected: in words, for the error message.
        numbers: types of positive numbers that are allowed too.
    """

    def check(value: Any) -> Any:
        good = value > 0 if isinstance(value, int) else re.fullmatch(pattern, str(value))
        if not good:
            raise ValueError(f"expected {expected}")
        return value

    schema: dict[str, Any] = {"type": "string", "pattern": f"^({pattern})$", "description": expected}
    if numbers:
        schema = {"anyOf": [schema, {"type": "integer" if numbers is int else "number", "exclusiveMinimum": 0}]}
    return Annotated[numbers | str if numbers else str, AfterValidator(check), WithJsonSchema(schema)]


def validated(value: Any, model: type[T], where: str) -> T:
    """As `base.validate`, but unknown keys are reported first, with the known ones of that section.

    Raises:
        InputError: a key is unknown or missing, a value impossible.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        unknown = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
        if not unknown:
            return validate(value, model, where)
        inner: Any = model
        for part in unknown[0][:-1]:
            inner = _inner(inner, part)
        known = sorted(field.alias or name for name, field in inner.model_fields.items())
        at = ".".join((where, *map(str, unknown[0])))
        raise InputError(f"{at}: unknown key\nexpected one of: {', '.join(known)}") from None


def _inner(kind: Any, part: str | int) -> Any:
    """The model of a key: for a model that of the field, for a container of models the container's."""
    fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    found = fields.get(part, kind)
    while not (isinstance(found, type) and issubclass(found, BaseModel)):  # list[X], dict[str, X], X | None
        found = next(one for one in reversed(get_args(found)) if one is not type(None))
    return found
