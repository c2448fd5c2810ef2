"""The section `ensemble` of params.yaml: of which cells each ensemble is made."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from gradworks.base import Section, validate, words
from gradworks.base.errors import InputError


class Ensemble(Section):
    """An ensemble of every seed of some encoders, trained with one method on one condition (and mixture), or several.

    rule: how its predictions are made, see components/ensemble.py.
    """

    condition: str | Annotated[list[str], Field(min_length=1)]
    method: str | Annotated[list[str], Field(min_length=1)]
    mixture: str | None = None
    encoders: list[str] = Field(min_length=1)
    rule: Literal["mean", "scaled", "weighted", "greedy"] = "mean"

    @property
    def trained(self) -> tuple[list[str], list[str]]:
        """Conditions and methods."""
        given = (self.condition, self.method)
        return tuple([one] if isinstance(one, str) else list(one) for one in given)  # type: ignore[return-value]


class _Ensembles(RootModel[list[Ensemble]]):
    root: list[Ensemble] = Field(default_factory=list)


def expand(
    params: Path, values: dict[str, Any], cells: dict[str, dict[str, Any]], mixed: Collection[str], here: str
) -> dict[str, dict[str, str]]:
    """The items of the stage: name -> what it is made of, see `grid.expand`.

    Args:
        params: the params file, for messages.
        values: what it holds.
        cells: the items of the stage `train`.
        mixed: names of the mixtures.
        here: the folder of the params file, from the root.

    Raises:
        InputError: an ensemble names what no cell has, or is a duplicate.
    """
    made: dict[str, dict[str, str]] = {}
    folders: dict[str, list[str]] = {}
    asked = validate(values.get("ensemble") or [], _Ensembles, f"{params}: ensemble").root
    for number, one in enumerate(asked):
        where = f"{params}: ensemble.{number}"
        mixture = one.mixture or (next(iter(mixed)) if len(mixed) == 1 else None)
        if mixture not in (mixed or (None,)):
            raise InputError(words.unknown(f"{where}.mixture", mixture, mixed))
        conditions, methods = one.trained
        for name, given in (("encoders", one.encoders), ("condition", conditions), ("method", methods)):
            if len(set(given)) < len(given):
                raise InputError(f"{where}.{name}: found {given}\nexpected each once")
        own = [c for c in cells.values()
               if c["condition"] in conditions and c["method"] in methods and c.get("mixture") == mixture]  # fmt: skip
        there = {(c["condition"], c["method"], c["encoder"]) for c in own}
        for needed in itertools.product(conditions, methods, one.encoders):
            if needed not in there:
                raise InputError(f"{where}: no cell of {', '.join(needed)} in the grid")
        named = {"mixture": mixture} if mixture and len(mixed) > 1 else {}
        key = "-".join(["+".join(conditions), "+".join(methods), *named.values(), "+".join(one.encoders)])
        key += "" if one.rule == "mean" else f"-{one.rule}"
        if key in made:
            raise InputError(f"{where}: duplicate {key}, or another has these names\nrename one")
        seeds = dict.fromkeys(str(c["seed"]) for c in own if c["encoder"] in one.encoders)
        made[key] = {
            **{"condition": " ".join(conditions), "method": " ".join(methods), **named},
            **{"encoders": " ".join(one.encoders), "seeds": " ".join(seeds)},
        }
        each = itertools.product(conditions, methods)
        folders[key] = [f"{here}runs/evaluate/{'/'.join([*pair, *named.values()])}" for pair in each]
        if any(other.rule != "mean" for other in asked):
            made[key]["rule"] = "" if one.rule == "mean" else f" --rule {one.rule}"
    most = max(map(len, folders.values()), default=1)
    for key, own_folders in folders.items() if most > 1 else ():  # each has as many, the last again and again
        filled = [*own_folders, *own_folders[-1:] * (most - len(own_folders))]
        made[key]["folders"] = " ".join(map(shlex.quote, own_folders))
        made[key] |= {f"folder{i}": folder for i, folder in enumerate(filled)}
    return made


class Soup(Section):
    """A mean of the weights of every seed of some encoders, trained with one method on one condition (and mixture).

    rule: which of them are in it, see components/soup.py.
    """

    condition: str
    method: str
    mixture: str | None = None
    encoders: list[str] = Field(min_length=1)
    rule: Literal["uniform", "greedy"] = "uniform"


class _Soups(RootModel[list[Soup]]):
    root: list[Soup] = Field(default_factory=list)


def soups(
    params: Path, values: dict[str, Any], cells: dict[str, dict[str, Any]], mixed: Mapping[str, Any], here: str
) -> dict[str, dict[str, str]]:
    """The items of the stage `soup`, as those of `expand`; names end in `-uniform-soup` or `-greedy-soup`.

    Raises:
        InputError: as `expand`; or the members have heads for slices.
    """
    asked = validate(values.get("soup") or [], _Soups, f"{params}: soup").root
    made: dict[str, dict[str, str]] = {}
    for number, one in enumerate(asked):
        alone = {**values, "ensemble": [one.model_dump(exclude={"rule"}, exclude_none=True)]}
        try:
            ((key, item),) = expand(params, alone, cells, mixed, here).items()
        except InputError as error:
            raise InputError(str(error).replace(f"{params}: ensemble.0", f"{params}: soup.{number}")) from None
        mixture = one.mixture or next(iter(mixed), None)
        if mixture is not None and mixed[mixture].slices:
            where = f"{params}: soup.{number}.mixture"
            raise InputError(f"{where}: {mixture} has heads for slices\nexpected one without; `ensemble` takes these")
        key = f"{key}-{one.rule}-soup"
        if key in made:
            raise InputError(f"{params}: soup.{number}: duplicate {key}\nexpected each once")
        made[key] = {**item, "rule": one.rule}
    return made
