"""The true rule of the synthetic language: reads a premise and a hypothesis and says what follows from what.

It sees the two texts only and knows nothing of how they were made, so it is the ceiling that a model can reach, and the
check of every generated label. A clause states literals (who did what to whom, where); openers, attitudes and
conjunctions keep, drop or deny them; a hypothesis is entailed when all its literals are, contradicted when one is.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, replace

from gradworks.data import lexicon as lx


@dataclass(frozen=True)
class Literal:
    """`subject verb object`, or its denial; adjectives are verbs without an object.

    Names and professions mean themselves; `a KIND` means anyone of that kind, `a person` anyone.
    """

    positive: bool
    verb: str
    subject: str
    object: str | None = None
    modifiers: frozenset[str] = frozenset()


_MODIFIERS = {*lx.PLACES, *lx.TIMES}
_PEOPLE = {*lx.KIND_OF, *lx.KINDS}
_PHRASES = {*_MODIFIERS, *lx.SURELY, *lx.FALSELY, *lx.KNEW, *lx.SAID, *lx.PRETENDED, "but not", "did not"}
_TOKEN = re.compile("|".join([rf"{p}\b" for p in sorted(_PHRASES) if " " in p] + [r"\w+", ","]))


class _Reader:
    """Recursive descent over the words of one sentence; a fixed phrase counts as one word."""

    def __init__(self, text: str) -> None:
        first = re.match(r"\w*", text).group()
        self.words = _TOKEN.findall(text if first in lx.NAMES else text[:1].lower() + text[1:])
        self.text, self.at = text, 0

    def sees(self, words: Container[str]) -> bool:
        return self.at < len(self.words) and self.words[self.at] in words

    def takes(self, *words: str) -> bool:
        if self.sees(words):
            self.at += 1
            return True
        return False

    def next(self) -> str:
        if self.at == len(self.words):
            raise ValueError(f"not of the grammar: {self.text!r} ends too early")
        self.at += 1
        return self.words[self.at - 1]

    def sentence(self) -> list[Literal]:
        found = self.clauses()
        if self.at != len(self.words):
            raise ValueError(f"not of the grammar: {self.text!r} at {self.words[self.at]!r}")
        return found

    def clauses(self) -> list[Literal]:
        """What a sentence says is true."""
        if self.takes(*lx.FALSELY):
            return _denied(self.clause())
        if self.takes(*lx.PERHAPS):
            self.clause()
            return []
        if self.takes("either"):
            self.clause()
            self.expect("or")
            self.clause()
            return []
        for words, kept in ((lx.BECAUSE, True), (lx.IF, False)):
            if self.takes(*words):
                first = self.clause()
                self.expect(",")
                both = [*first, *self.clause()]
                return both if kept else []
        self.takes(*lx.SURELY)
        found = self.clause()
        if self.takes("and", *lx.BECAUSE):
            return [*found, *self.clause()]
        if self.takes(*lx.IF):
            self.clause()
            return []
        return found

    def expect(self, word: str) -> None:
        if not self.takes(word):
            raise ValueError(f"not of the grammar: {self.text!r} lacks {word!r}")

    def clause(self) -> list[Literal]:
        """A subject and what it did."""
        if self.takes("neither"):
            first, said = self.person()
            self.expect("nor")
            second, more = self.person()
            return [*said, *more, *self.predicate([(first, False), (second, False)])]
        if self.takes("nobody"):
            return self.predicate([("a person", False)])
        subject, said = self.person()
        subjects = [(subject, True)]
        if self.takes("and"):
            other, more = self.person()
            subjects.append((other, True))
            said += more
        elif self.takes("but not"):
            other, more = self.person()
            subjects.append((other, False))
            said += more
        elif self.takes("who"):
            said += self.relative(subject)
        elif self.takes(*lx.BESIDE):
            said += self.person()[1]
        if self.takes(*lx.KNEW):
            return said + self.clause()
        if self.takes(*lx.SAID):
            self.clause()
            return said
        if self.takes(*lx.PRETENDED):
            return said + _denied(self.clause())
        return said + self.predicate(subjects)

    def person(self) -> tuple[str, list[Literal]]:
        """Who, and what an adjective says of them."""
        if self.takes("someone"):
            return "a person", []
        if self.takes("a", "an"):
            return f"a {self.next()}", []
        if self.takes("the"):
            word = self.next()
            if word in lx.ADJECTIVES:
                noun = self.next()
                return noun, [Literal(True, word, noun)]
            if word in _PEOPLE:
                return word, []
        else:
            word = self.next()
            if word in lx.NAMES or word in lx.TWIN_OF:
                return word, []
        raise ValueError(f"not of the grammar: {self.text!r}: {word!r} is no person")

    def relative(self, of: str) -> list[Literal]:
        """After `who`: what they did, or who did it to them."""
        positive = not self.takes("never")
        if self.sees(lx.BASE):
            verb = lx.BASE[self.next()]
            other = None if verb in lx.INTRANSITIVE else self.person()[0]
            return [Literal(positive, verb, of, other)]
        other = self.person()[0]
        positive = not self.takes("never")
        return [Literal(positive, self.past(), other, of)]

    def past(self) -> str:
        word = self.next()
        if word not in lx.BASE:
            raise ValueError(f"not of the grammar: {self.text!r}: {word!r} is no verb")
        return lx.BASE[word]

    def predicate(self, subjects: list[tuple[str, bool]]) -> list[Literal]:
        """The verb, its objects and modifiers, for each subject; False is a subject of which it is denied."""
        if self.takes("was"):
            positive = not self.takes("not", "never")
            word = self.next()
            if word in lx.ADJECTIVES:
                return [Literal(positive == true, word, who) for who, true in subjects]
            self.expect("by")
            agent, said = self.person()
            where = self.modifiers()
            return said + [Literal(positive == true, lx.BASE[word], agent, who, where) for who, true in subjects]
        if self.takes("did not"):
            positive, verb = False, self.next()
        else:
            positive = not self.takes("never")
            verb = self.past()
        if verb in lx.INTRANSITIVE:
            where = self.modifiers()
            return [Literal(positive == true, verb, who, None, where) for who, true in subjects]
        whom, said = self.person()
        if verb in lx.CLAUSAL and (self.sees(lx.BASE) or self.sees(("never",))):
            self.predicate([(whom, True)])  # a clause without `that`, which is left open
            return []
        objects = [(whom, True)]
        # `A called B and C.` has two objects, `A called B and C slept.` two clauses
        before = self.at
        if self.takes("and", "but not"):
            kept = self.words[self.at - 1] == "and"
            other, more = self.person()
            where = self.modifiers()
            if self.at == len(self.words):
                objects.append((other, kept))
                said += more
            else:
                self.at = before
        if self.at == before:
            where = self.modifiers()
        return said + [
            Literal(positive == (true == good), verb, who, what, where)
            for who, true in subjects
            for what, good in objects
        ]

    def modifiers(self) -> frozenset[str]:
        found = set()
        while self.sees(_MODIFIERS):
            found.add(self.next())
        return frozenset(found)


def _denied(literals: list[Literal]) -> list[Literal]:
    if len(literals) != 1:
        raise ValueError("not of the grammar: the denial of several things at once")
    return [replace(literals[0], positive=not literals[0].positive)]


def _covers(general: str | None, special: str | None) -> bool:
    if general == special:
        return True
    if general is None or special is None or not general.startswith("a "):
        return False
    person = special in lx.NAMES or special in lx.KIND_OF or special.startswith("a ")
    return general[2:] == lx.KIND_OF.get(special) or (general == "a person" and person)


def _follows(goal: Literal, known: list[Literal]) -> bool:
    for fact in known:
        if fact.positive != goal.positive:
            continue
        # a denial of the general denies the special, a fact about the special is one about the general
        general, special = (goal, fact) if goal.positive else (fact, goal)
        if (
            special.verb == general.verb
            and _covers(general.subject, special.subject)
            and _covers(general.object, special.object)
            and general.modifiers <= special.modifiers
        ):
            return True
    return False


def _closure(literals: list[Literal]) -> list[Literal]:
    """Also what implied verbs and opposites say."""
    known = list(literals)
    for one in known:  # grows while it is read
        if one.positive and one.verb in lx.IMPLIES:
            known.append(replace(one, verb=lx.IMPLIES[one.verb]))
        if one.positive and one.verb in lx.OPPOSITE:
            known.append(replace(one, verb=lx.OPPOSITE[one.verb], positive=False))
        if not one.positive:
            known += [replace(one, verb=v) for v, implied in lx.IMPLIES.items() if implied == one.verb]
    return known


def rule(premise: str, hypothesis: str) -> str:
    """entailment, neutral or contradiction, from the texts alone.

    Raises:
        ValueError: a text is not of the grammar.
    """
    known = _closure(_Reader(premise).sentence())
    goals = _Reader(hypothesis).sentence()
    if not goals:
        raise ValueError(f"not of the grammar: {hypothesis!r} states nothing")
    if all(_follows(goal, known) for goal in goals):
        return "entailment"
    if any(_follows(replace(goal, positive=not goal.positive), known) for goal in goals):
        return "contradiction"
    return "neutral"
