"""Texts without labels as words with part-of-speech tags: an auxiliary task that any text has.

A tagger is a function of texts that yields the words of each with their universal tags, or why it has none, in words.
spacy_tagger.py has another. TextBlob's pattern tagger (https://textblob.readthedocs.io) tags by a lexicon that it ships
and by suffixes, with Penn Treebank tags; these become the twelve universal tags of Petrov, Das, McDonald, "A Universal
Part-of-Speech Tagset" (LREC 2012). Its tags are silver: where the word's tag depends on its neighbours it often errs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gradworks.base.errors import InputError

Tagger = Callable[[Iterable[str]], Iterator[list[tuple[str, str]] | str]]

TAGS = ("NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", ".", "X")

# by the first letters of a Penn tag; none begins as another
_PENN = (
    ("NN", "NOUN"), ("VB", "VERB"), ("MD", "VERB"), ("JJ", "ADJ"), ("RB", "ADV"), ("WRB", "ADV"), ("PRP", "PRON"),
    ("WP", "PRON"), ("EX", "DET"), ("DT", "DET"), ("PDT", "DET"), ("WDT", "DET"), ("IN", "ADP"), ("CD", "NUM"),
    ("CC", "CONJ"), ("POS", "PRT"), ("RP", "PRT"), ("TO", "PRT"),
)  # fmt: skip
_OTHER = ("FW", "LS", "SYM", "UH", "ADD", "AFX", "GW", "XX")  # four of the Treebank, four of OntoNotes
_MARKS = ("-LRB-", "-RRB-", "HYPH", "NFP")


def universal(penn: str) -> str | None:
    """The universal tag of a Penn Treebank tag; None for what is none."""
    for start, tag in _PENN:
        if penn.startswith(start):
            return tag
    if penn in _OTHER:
        return "X"
    return "." if penn in _MARKS or (penn and not any(map(str.isalnum, penn))) else None


def textblob(where: str) -> Tagger:
    """TextBlob's. InputError where the library is missing."""
    try:
        from textblob.en.taggers import PatternTagger
    except ModuleNotFoundError as error:
        if error.name != "textblob":
            raise
        raise InputError(f"{where}.tags: textblob is not installed\nexpected: pip install 'gradworks[tags]'") from None
    tagger = PatternTagger()
    return lambda texts: ([(word, _known(tag)) for word, tag in tagger.tag(text)] for text in texts)


def _known(tag: str) -> str:
    return universal(tag) or ("." if tag else "X")  # it gives marks tags of their own


def tagged(
    records: list[dict[str, Any]], column: str, tagger: Tagger
) -> tuple[list[dict[str, Any]], list[str], list[dict[str, Any]]]:
    """Records whose text is its words joined by blanks and whose label is their tags.

    Args:
        records: with a text in `column`.

    Returns:
        the records; the ids of those without a word; id and reason of those that the tagger does not tag.
    """
    made, without, bad = [], [], []
    for one, found in zip(records, tagger(one[column] for one in records), strict=True):
        if isinstance(found, str):
            bad.append({"id": one["id"], "reason": found})
            continue
        pairs = [(part, name) for word, name in found for part in word.split()]
        if not pairs:
            without.append(one["id"])
            continue
        words, tags = zip(*pairs, strict=True)
        made.append(one | {column: " ".join(words), "label": " ".join(tags)})
    return made, without, bad
