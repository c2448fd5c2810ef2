"""The general slicing functions: sixteen kinds of hard sentences, and the two slices of the multi-task paper.

What they look for is after the list of the public code of Hancock et al. (2019), rewritten; where that code asks a
tagger for names, capitals and word lists stand in. "The second text" is the last that a model reads (the hypothesis);
functions of two texts are False for tasks of one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

from gradworks.data.functions import Function, Row, by_name, marked

LONG = 40  # words of both texts together
LOW = 0.1  # BLEU

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def _list(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WHO = _list("who whom whose")
_QUESTION = _WHO | _list("what which when where why how")
_MODALS = _list("can could may might must shall should will would ought")
_QUALIFIERS = _list(
    "about almost approximately around fairly few generally likely many maybe more most mostly nearly often only "
    "perhaps possibly probably quite rarely rather several some sometimes somewhat usually very"
)
_FUNCTION = _list("why because since therefore thus hence so")
_FIRST_SECOND = _list("i me my mine myself we us our ours ourselves you your yours yourself yourselves")
_PRONOUNS = _FIRST_SECOND | _list(
    "he she it they him her them his hers its their theirs himself herself itself themselves"
)
_PEOPLE = _list(
    "person people man men woman women boy boys girl girls child children kid kids baby babies lady ladies guy guys "
    "player players worker workers crowd family student students mr mrs ms dr president minister"
)
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|"
    r"eighty|ninety|hundred|thousand|million|billion|dozen)s?\b",
    re.IGNORECASE,
)
_CONTRACTION = re.compile(
    r"\b\w+(?:n['’]t|['’](?:re|ve|ll|d|m))\b|\b(?:it|he|she|that|there|what|who|let)['’]s\b", re.IGNORECASE
)
_QUOTES = re.compile(r"[\"“”«»]|``|''|(?:^|\s)['‘][^'’]+['’](?=\W|$)")
_DASH = re.compile(r"[-–—;]")


def _words(text: str) -> list[str]:
    return [one.lower() for one in _WORD.findall(text)]


def _both(row: Row) -> str:
    return "\n".join(row.texts)


def _any(row: Row, known: frozenset[str]) -> bool:
    return any(word in known for word in _words(_both(row)))


def _second(row: Row) -> str:
    return row.texts[-1]


def who(row: Row) -> bool:
    """The word "who" in any form."""
    return _any(row, _WHO)


def entity_in_second_only(row: Row) -> bool:
    """A capitalised word inside the second text, not at the start of a sentence, that the others do not have."""
    others = {word for text in row.texts[:-1] for word in _words(text)}
    inside = re.findall(r"(?<![.!?:]\s)(?<!^)(?<![\"“])\b[A-Z][\w-]+", _second(row))
    return any(word.lower() not in others for word in inside if word.lower() != "i")


def why_or_function_word(row: Row) -> bool:
    """Why, because, since, therefore, thus, hence, so."""
    return _any(row, _FUNCTION)


def numbers(row: Row) -> bool:
    """A digit or a number word."""
    return bool(_NUMBER.search(_both(row)))


def first_or_second_person(row: Row) -> bool:
    """A pronoun of the first or second person."""
    return _any(row, _FIRST_SECOND)


def contraction(row: Row) -> bool:
    """Don't, we've, it's."""
    return bool(_CONTRACTION.search(_both(row)))


def question_mark(row: Row) -> bool:
    """A question mark."""
    return "?" in _both(row)


def question_word(row: Row) -> bool:
    """Who, what, which, when, where, why, how, anywhere."""
    return _any(row, _QUESTION)


def quotes(row: Row) -> bool:
    """Quotation marks."""
    return bool(_QUOTES.search(_both(row)))


def modals(row: Row) -> bool:
    """Can, could, may, might, must, shall, should, will, would, ought."""
    return _any(row, _MODALS)


def qualifiers(row: Row) -> bool:
    """Words that weaken or bound a statement: almost, often, some, very."""
    return _any(row, _QUALIFIERS)


def long_sentence(row: Row) -> bool:
    """More than 40 words in all."""
    return len(_words(_both(row))) > LONG


def dash_or_semicolon(row: Row) -> bool:
    """A dash, a hyphen or a semicolon: 116 of the 277 dev rows of RTE (published: about 108 to 116)."""
    return bool(_DASH.search(_both(row)))


def ends_with_question_word(row: Row) -> bool:
    """A text whose last word is a question word."""
    return any(found[-1] in _QUESTION for text in row.texts if (found := _words(text)))


def more_people(row: Row) -> bool:
    """The second text has more words for people than the first."""
    first, second = (sum(word in _PEOPLE for word in _words(text)) for text in (row.texts[0], _second(row)))
    return second > first


def low_bleu(row: Row) -> bool:
    """BLEU of the second text against the first below 0.1: they share few words."""
    return bool(_words(_second(row))) and bleu(_words(row.texts[0]), _words(_second(row))) < LOW


def several_pronouns(row: Row) -> bool:
    """Two personal or possessive pronouns or more: 84 dev rows of RTE. The paper's "multiple pronouns" are 12 of them,
    by a rule that it does not say.
    """
    return sum(word in _PRONOUNS for word in _words(_both(row))) >= 2


def bleu(reference: list[str], found: list[str], most: int = 4) -> float:
    """BLEU of one sentence, 1 added to the counts of n-grams of two words and more (Lin and Och 2004)."""
    if not found:
        return 0.0
    total = 0.0
    for n in range(1, most + 1):
        ours, theirs = (Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (found, reference))
        same, of = sum((ours & theirs).values()) + (n > 1), sum(ours.values()) + (n > 1)
        if not same:
            return 0.0
        total += math.log(same / of) / most
    return math.exp(total + min(0.0, 1 - len(reference) / len(found)))


ALL: tuple[Callable[[Row], bool], ...] = (
    who, entity_in_second_only, why_or_function_word, numbers, first_or_second_person, contraction, question_mark,
    question_word, quotes, modals, qualifiers, long_sentence, dash_or_semicolon, ends_with_question_word, more_people,
    low_bleu, several_pronouns,
)  # fmt: skip


def functions() -> dict[str, Function]:
    """All of them by name."""
    return by_name([marked(one, "slicing") for one in ALL], "gradworks/data/slices_general.py")
