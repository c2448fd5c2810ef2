"""How the synthetic premises are built, and which overlapping hypotheses each construction offers.

A construction says which of its clauses are true, denied or left open, so the label is known when it is made; the rule
of grammar.py finds it again from the texts. Heuristics are those of McCoy et al. (2019): every word of the hypothesis
is in the premise (lexical_overlap), as a stretch of it (subsequence), as a clause of it (constituent).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from gradworks.data import lexicon as lx

E, N, C = "entailment", "neutral", "contradiction"
LEXICAL, SUBSEQUENCE, CONSTITUENT = "lexical_overlap", "subsequence", "constituent"
_PROFESSIONS = tuple(lx.KIND_OF)
Claim = tuple[str, str, str]  # hypothesis, label, heuristic


@dataclass(frozen=True)
class Fact:
    """Somebody did something, to somebody, with a place or time."""

    who: str
    verb: str
    whom: str | None = None
    where: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.who, lx.PAST[self.verb], self.whom, self.where)))

    @property
    def never(self) -> str:
        return " ".join(filter(None, (self.who, "never", lx.PAST[self.verb], self.whom, self.where)))

    @property
    def did_not(self) -> str:
        return " ".join(filter(None, (self.who, "did not", self.verb, self.whom, self.where)))

    def passive(self, negation: str = "") -> str:
        return " ".join(filter(None, (self.whom, "was", negation, lx.PAST[self.verb], "by", self.who, self.where)))

    @property
    def swapped(self) -> Fact:
        return replace(self, who=self.whom, whom=self.who)


@dataclass
class Premise:
    """A premise, what it says is true and what it denies, and the overlapping hypotheses that it offers."""

    text: str
    true: list[Fact] = field(default_factory=list)
    denied: list[Fact] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    adjective: tuple[str, str] | None = None  # whom it describes, and the adjective


class Draw:
    """Random words; no person twice in one premise."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.used: set[str] = set()

    def one(self, words):
        return words[self.random.randrange(len(words))]

    def person(self) -> str:
        while True:
            who = self.one(lx.NAMES) if self.random.random() < 0.3 else f"the {self.one(_PROFESSIONS)}"
            if who.lower().removeprefix("the ") not in self.used:
                self.used.add(who.lower().removeprefix("the "))
                return who

    def where(self, share: float = 0.3) -> str:
        return self.one((*lx.PLACES, *lx.TIMES)) if self.random.random() < share else ""

    def doing(self, where: float = 0.3) -> Fact:
        return Fact(self.person(), self.one(lx.INTRANSITIVE), None, self.where(where))

    def meeting(self, where: float = 0.3) -> Fact:
        return Fact(self.person(), self.one(lx.TRANSITIVE), self.person(), self.where(where))

    def fact(self, where: float = 0.0) -> Fact:
        return self.doing(where) if self.random.random() < 0.4 else self.meeting(where)


def _shorter(fact: Fact) -> list[Claim]:
    return [(str(replace(fact, where="")), E, SUBSEQUENCE)] if fact.where else []


def plain(d: Draw) -> Premise:
    f = d.meeting(0.6)
    claims = [*_shorter(f), (str(replace(f.swapped, where="")), N, LEXICAL)]
    if f.who.startswith("the ") and d.random.random() < 0.5:
        adjective = d.one(lx.ADJECTIVES)
        text = str(f).replace("the ", f"the {adjective} ", 1)
        return Premise(text, [f], [], [(str(f), E, LEXICAL), claims[-1]], (f.who, adjective))
    return Premise(str(f), [f], [], claims)


def doing(d: Draw) -> Premise:
    f = d.doing(1.0)
    return Premise(str(f), [f], [], _shorter(f))


def twin(d: Draw) -> Premise:
    f = Fact(d.person(), d.one(lx.TWIN_VERBS), d.one(tuple(lx.TWIN_OF)), d.where(0.6))
    return Premise(str(f), [f], [], _shorter(f))


def passive(d: Draw) -> Premise:
    f = d.meeting(0.6)
    bare = replace(f, where="")
    claims = [(bare.passive(), E, SUBSEQUENCE)] if f.where else []
    claims += [(str(bare.swapped), N, LEXICAL), (bare.swapped.passive(), N, LEXICAL)]
    return Premise(f.passive(), [f], [], claims)


def never(d: Draw) -> Premise:
    f = d.fact()
    swapped = [(f.swapped.never, N, LEXICAL)] if f.whom else []
    return Premise(f.never, [], [f], [(str(f), C, LEXICAL), *swapped])


def never_passive(d: Draw) -> Premise:
    f = d.meeting(0)
    return Premise(f.passive("never"), [], [f], [(f.passive(), C, LEXICAL), (str(f.swapped), N, LEXICAL)])


def did_not(d: Draw) -> Premise:
    f = d.fact()
    return Premise(f.did_not, [], [f], [])


def who_did(d: Draw) -> Premise:
    a, b = d.meeting(0), d.one(lx.INTRANSITIVE)
    main = Fact(a.who, b)
    claims = [(str(main), E, LEXICAL), (str(a), E, LEXICAL)]
    claims += [(str(Fact(a.whom, b)), N, SUBSEQUENCE), (str(a.swapped), N, LEXICAL)]
    return Premise(f"{a.who} who {lx.PAST[a.verb]} {a.whom} {lx.PAST[b]}", [main, a], [], claims)


def who_was(d: Draw) -> Premise:
    a, b = d.meeting(0), d.one(lx.INTRANSITIVE)
    main = Fact(a.whom, b)
    claims = [(str(main), E, LEXICAL), (str(a), E, LEXICAL), (str(a.swapped), N, LEXICAL)]
    return Premise(f"{a.whom} who {a.who} {lx.PAST[a.verb]} {lx.PAST[b]}", [main, a], [], claims)


def who_never(d: Draw) -> Premise:
    a, b = d.meeting(0), d.one(lx.INTRANSITIVE)
    other = Fact(a.who, b)
    claims = [(str(other), C, LEXICAL), (str(a), E, LEXICAL), (str(a.swapped), N, LEXICAL)]
    return Premise(f"{a.who} who never {lx.PAST[b]} {lx.PAST[a.verb]} {a.whom}", [a], [other], claims)


def _two_subjects(d: Draw, join: str, lead: str, first: bool, second: bool) -> Premise:
    a = d.fact(0.3)
    b = replace(a, who=d.person())
    verb = str(a).removeprefix(a.who)
    claims = [(str(a), E if first else C, LEXICAL), (str(b), E if second else C, SUBSEQUENCE)]
    facts = [(a, first), (b, second)]
    text = f"{lead}{a.who} {join} {b.who}{verb}"
    return Premise(text, [f for f, true in facts if true], [f for f, true in facts if not true], claims)


def both(d: Draw) -> Premise:
    return _two_subjects(d, "and", "", True, True)


def one_not_other(d: Draw) -> Premise:
    return _two_subjects(d, "but not", "", True, False)


def neither(d: Draw) -> Premise:
    return _two_subjects(d, "nor", "neither ", False, False)


def two_objects(d: Draw) -> Premise:
    a = d.meeting(0)
    b = replace(a, whom=d.person())
    return Premise(f"{a} and {b.whom}", [a, b], [], [(str(a), E, SUBSEQUENCE), (str(b), E, LEXICAL)])


def one_object(d: Draw) -> Premise:
    a = d.meeting(0)
    b = replace(a, whom=d.person())
    return Premise(f"{a} but not {b.whom}", [a], [b], [(str(a), E, SUBSEQUENCE), (str(b), C, LEXICAL)])


def beside(d: Draw) -> Premise:
    a = d.fact(0.3)
    other, verb = d.person(), str(a).removeprefix(a.who)
    claims = [(str(a), E, LEXICAL), (str(replace(a, who=other)), N, SUBSEQUENCE)]
    return Premise(f"{a.who} {d.one(lx.BESIDE)} {other}{verb}", [a], [], claims)


def believed(d: Draw) -> Premise:
    b = d.fact()
    a = Fact(d.person(), d.one(lx.CLAUSAL), b.who)
    return Premise(f"{a.who} {lx.PAST[a.verb]} {b}", [], [], [(str(a), N, SUBSEQUENCE), (str(b), N, CONSTITUENT)])


def _clauses(d: Draw) -> tuple[Fact, Fact]:
    return d.fact(0.2), d.fact(0.2)


def _joined(d: Draw, words: tuple[str, ...], label: str) -> Premise:
    a, b = _clauses(d)
    word = d.one(words)
    first = d.random.random() < 0.5
    text = f"{word} {a}, {b}" if first else f"{a} {word} {b}"
    claims = [(str(a), label, CONSTITUENT), (str(b), label, CONSTITUENT)]
    return Premise(text, [a, b] if label == E else [], [], claims)


def two_clauses(d: Draw) -> Premise:
    a, b = _clauses(d)
    claims = [(str(a), E, CONSTITUENT), (str(b), E, CONSTITUENT)]
    if a.whom and not a.where:  # `A called B and C slept` does not say that A called C
        claims.append((str(replace(a, whom=b.who)), N, LEXICAL))
    return Premise(f"{a} and {b}", [a, b], [], claims)


def never_and(d: Draw) -> Premise:
    a, b = d.fact(), d.fact(0.2)
    kept = [(a.never, E, CONSTITUENT), (str(b), E, CONSTITUENT), (str(a), C, LEXICAL)]
    text, heard = (f"{a.never} and {b}", b) if d.random.random() < 0.5 else (f"{b} and {a.never}", b)
    return Premise(text, [heard], [a], kept)


def because(d: Draw) -> Premise:
    return _joined(d, lx.BECAUSE, E)


def if_(d: Draw) -> Premise:
    return _joined(d, lx.IF, N)


def either(d: Draw) -> Premise:
    a, b = _clauses(d)
    return Premise(f"either {a} or {b}", claims=[(str(a), N, CONSTITUENT), (str(b), N, CONSTITUENT)])


def _opened(d: Draw, opener: str, label: str) -> Premise:
    f = d.fact(0.3)
    facts = {E: ([f], []), N: ([], []), C: ([], [f])}[label]
    return Premise(f"{opener} {f}", *facts, [(str(f), label, CONSTITUENT)])


def surely(d: Draw) -> Premise:
    return _opened(d, d.one(lx.SURELY), E)


def perhaps(d: Draw) -> Premise:
    return _opened(d, d.one(lx.PERHAPS), N)


def falsely(d: Draw) -> Premise:
    return _opened(d, d.one(lx.FALSELY), C)


def knew(d: Draw) -> Premise:
    return _opened(d, f"{d.person()} {d.one(lx.KNEW)}", E)


def said(d: Draw) -> Premise:
    return _opened(d, f"{d.person()} {d.one(lx.SAID)}", N)


def pretended(d: Draw) -> Premise:
    return _opened(d, f"{d.person()} {d.one(lx.PRETENDED)}", C)


CONSTRUCTIONS: tuple[Callable[[Draw], Premise], ...] = (
    plain, doing, twin, passive, never, never_passive, did_not, who_did, who_was, who_never, both, one_not_other,
    neither, two_objects, one_object, beside, believed, two_clauses, never_and, because, if_, either, surely, perhaps,
    falsely, knew, said, pretended,
)  # fmt: skip
