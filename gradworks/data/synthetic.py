"""A language inference data set that teaches a model a wrong rule and tests whether it learned it.

In the in-distribution part, as in real data, a hypothesis whose words are all in the premise is nearly always
entailed (`ENTAILED` of such pairs), and other cues (negation, opposites, places) tell neutral from contradiction. In
the challenge part every hypothesis overlaps, and under each of three heuristics the labels are equally frequent, so the
overlap says nothing there. Names and acronyms differ from common words only by case (Hope and hope, US and us).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from random import Random

from gradworks.base.errors import InputError
from gradworks.data import lexicon as lx
from gradworks.data.constructions import (
    CONSTITUENT,
    CONSTRUCTIONS,
    LEXICAL,
    SUBSEQUENCE,
    C,
    Claim,
    Draw,
    E,
    N,
    Premise,
    twin,
)
from gradworks.data.grammar import rule

OVERLAPPING = 1 / 3  # of the in-distribution pairs
ENTAILED = 0.9  # of the overlapping ones
TWINS = 0.1  # of the entailed and of the neutral pairs: nothing but case tells the ones from the others
_TRIES = 10_000  # without a new pair before the grammar counts as exhausted


def words(text: str) -> list[str]:
    """The words of a sentence, the first in the case that it has inside one."""
    found = re.findall(r"\w+", text)
    if found and found[0] not in lx.NAMES:
        found[0] = found[0].lower()
    return found


def overlaps(premise: str, hypothesis: str) -> bool:
    """Whether every word of the hypothesis is in the premise; case matters."""
    return set(words(hypothesis)) <= set(words(premise))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _kind(d: Draw, who: str) -> str:
    kind = lx.KIND_OF.get(who.removeprefix("the "), "person")
    if kind == "person" or d.random.random() < 0.3:
        return "someone"
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _meanings(verb: str) -> set[str]:
    return {verb, lx.IMPLIES.get(verb, verb)}


def _unrelated(verb: str, other: str) -> bool:
    """Whether doing `verb` says nothing about doing `other`."""
    opposites = {lx.OPPOSITE.get(one) for one in _meanings(verb)}
    return other not in _meanings(verb) and not opposites & _meanings(other)


def _entailed(d: Draw, p: Premise) -> Iterator[str]:
    """Hypotheses that follow from a premise and bring new words."""
    for f in p.true:
        yield str(replace(f, who=_kind(d, f.who)))
        if f.whom and f.whom not in lx.TWIN_OF:
            yield f.passive()
            yield str(replace(f, whom=_kind(d, f.whom)))
        if f.verb in lx.IMPLIES:
            yield str(replace(f, verb=lx.IMPLIES[f.verb]))
        if f.verb in lx.OPPOSITE:
            yield replace(f, verb=lx.OPPOSITE[f.verb]).did_not
    for f in p.denied:
        yield f.did_not
    if p.adjective:
        yield "{} was {}".format(*p.adjective)


def _neutral(d: Draw, p: Premise) -> Iterator[str]:
    """Hypotheses that a premise leaves open and that bring new words."""
    for f in p.true:
        yield str(replace(f, where=d.one([w for w in (*lx.PLACES, *lx.TIMES) if w != f.where])))
        yield str(replace(f, who=d.person(), where=""))
        verbs = lx.TRANSITIVE if f.whom else lx.INTRANSITIVE
        yield str(replace(f, verb=d.one([v for v in verbs if _unrelated(f.verb, v)]), where=""))
        if f.whom in lx.TWIN_OF:
            yield str(replace(f, whom=lx.TWIN_OF[f.whom], where=""))
        elif f.whom:
            yield str(replace(f, whom=d.person(), where=""))
            yield replace(f.swapped, where="").passive()
        if f.who.startswith("the "):
            said = (p.adjective or ("", ""))[1]
            yield f"{f.who} was {d.one([a for a in lx.ADJECTIVES if a not in (said, lx.OPPOSITE.get(said))])}"
    for _ in p.denied:
        yield str(d.fact(0.5))


def _contradicted(d: Draw, p: Premise) -> Iterator[str]:
    """Hypotheses that a premise denies and that bring new words."""
    for f in p.true:
        yield f.did_not
        yield f.never
        yield str(replace(f, who="nobody"))
        if f.verb in lx.OPPOSITE:
            yield str(replace(f, verb=lx.OPPOSITE[f.verb]))
        if f.whom and f.whom not in lx.TWIN_OF:
            yield f.passive("not")
    for f in p.denied:
        yield str(f)
        if f.whom:
            yield f.passive()
    if p.adjective:
        yield f"{p.adjective[0]} was {lx.OPPOSITE[p.adjective[1]]}"


_NEW_WORDS = {E: _entailed, N: _neutral, C: _contradicted}


def _offering() -> dict[tuple[str, str], list]:
    """Which constructions offer a hypothesis of a heuristic and label; found by trying."""
    found: dict[tuple[str, str], dict] = {}
    for make in CONSTRUCTIONS:
        for trial in range(40):
            for _, label, heuristic in make(Draw(Random(trial))).claims:  # noqa: S311  data, not secrets
                found.setdefault((heuristic, label), {})[make] = None
    return {key: list(makes) for key, makes in found.items()}


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.offering = _offering()

    def overlapping(self, label: str, heuristics: tuple[str, ...]) -> tuple[str, str, str]:
        """A pair with overlap, and its heuristic."""
        heuristic = heuristics[self.random.randrange(len(heuristics))]
        while True:
            d = Draw(self.random)
            premise = d.one(self.offering[heuristic, label])(d)
            claims: list[Claim] = [c for c in premise.claims if c[1:] == (label, heuristic)]
            if claims:
                return premise.text, d.one(claims)[0], heuristic

    def with_new_words(self, label: str) -> tuple[str, str, str]:
        """A pair whose hypothesis has a word that its premise lacks."""
        while True:
            d = Draw(self.random)
            premise = d.one(CONSTRUCTIONS)(d)
            offers = list(_NEW_WORDS[label](d, premise))
            if not offers or (not any(c[1] == E for c in premise.claims) and self.random.random() < 0.5):
                continue
            hypothesis = d.one(offers)
            if not overlaps(_sentence(premise.text), _sentence(hypothesis)):
                return premise.text, hypothesis, "none"

    def twins(self, label: str) -> tuple[str, str, str]:
        """A pair that is entailed when the object is kept, neutral when its case is changed (Hope, hope)."""
        f = twin(Draw(self.random)).true[0]
        said = replace(f, where=f.where if self.random.random() < 0.5 else "")
        return str(f), str(said if label == E else replace(said, whom=lx.TWIN_OF[f.whom])), "none"

    def in_distribution(self, label: str) -> tuple[str, str, str]:
        if label != C and self.random.random() < TWINS:
            return self.twins(label)
        share = OVERLAPPING * (ENTAILED if label == E else (1 - ENTAILED) / 2) * 3  # of this label's pairs
        if self.random.random() < share:
            return *self.overlapping(label, (LEXICAL, SUBSEQUENCE, CONSTITUENT))[:2], "none"
        return self.with_new_words(label)


def generate(seed: int, rows: dict[str, int]) -> dict[str, list[dict[str, str]]]:
    """Make the splits.

    Args:
        seed: other seeds give other data, the same seed the same.
        rows: how many pairs each split has. `train` is in-distribution, of the others half is challenge.

    Returns:
        For each split its rows: premise, hypothesis, label, set (in_distribution, challenge), heuristic (none,
        lexical_overlap, subsequence, constituent), rule (the label that the true rule derives from the texts alone). No
        pair occurs twice, in one split or in two.

    Raises:
        InputError: the grammar has no more pairs.
    """
    seen: set[tuple[str, str]] = set()
    made: dict[str, list[dict[str, str]]] = {}
    for split, count in rows.items():
        random = Random(f"{seed}/{split}")  # noqa: S311  data, not secrets
        maker = _Maker(random)
        challenge = 0 if split == "train" else count // 2
        asked = [(label, None) for label in islice(cycle((E, N, C)), count - challenge)]
        cells = [(label, (h,)) for h in (LEXICAL, SUBSEQUENCE, CONSTITUENT) for label in (E, N, C)]
        asked += islice(cycle(cells), challenge)
        random.shuffle(asked)
        made[split] = [_new_pair(maker, label, heuristics, seen, split) for label, heuristics in asked]
    return made


def _new_pair(
    maker: _Maker, label: str, heuristics: tuple[str, ...] | None, seen: set[tuple[str, str]], split: str
) -> dict[str, str]:
    for _ in range(_TRIES):
        pair = maker.overlapping(label, heuristics) if heuristics else maker.in_distribution(label)
        texts = _sentence(pair[0]), _sentence(pair[1])
        if texts not in seen:
            seen.add(texts)
            return {
                "premise": texts[0], "hypothesis": texts[1], "label": label,
                "set": "challenge" if heuristics else "in_distribution", "heuristic": pair[2], "rule": rule(*texts),
            }  # fmt: skip
    raise InputError(f"rows.{split}: the grammar has no {len(seen) + 1} different pairs: expected fewer rows")
