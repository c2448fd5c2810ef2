"""Published layouts whose rows are not the file's lines: passages with questions, sentences with a word a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError

Rows = Iterator[tuple[int, dict[str, Any] | str]]
FIELDS = {
    "multirc": ("id", "passage", "group", "question", "answer", "label"),
    "record": ("id", "passage", "query", "entities", "answers"),
    "eraser": ("id", "question", "label", "passage"),
    "wsc": ("id", "text", "span1_text", "span2_text", "label"),
    "conll": ("tokens", "tags"),
    "squad": ("id", "title", "question", "context", "answers"),
}


def multirc(rows: Rows) -> Rows:
    """One row per answer; `group` names its question."""
    for number, found in rows:
        if isinstance(found, str):
            yield number, found
            continue
        try:
            for question in found["passage"]["questions"]:
                for answer in question["answers"]:
                    group = f"{found['idx']}-{question['idx']}"
                    yield number, {
                        "id": f"{group}-{answer['idx']}", "passage": found["passage"]["text"], "group": group,
                        "question": question["question"], "answer": answer["text"], "label": answer.get("label"),
                    }  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            yield number, f"not a MultiRC passage: {error} is missing"


def record(rows: Rows) -> Rows:
    """ReCoRD: one row per question, with the texts of the passage's entities; the last character belongs to them."""
    for number, found in rows:
        if isinstance(found, str):
            yield number, found
            continue
        try:
            text, places = found["passage"]["text"], found["passage"]["entities"]
            entities = [text[one["start"] : one["end"] + 1] for one in places]
            blank = next((one for one, name in zip(places, entities, strict=True) if not name.strip()), None)
            for question in found["qas"]:
                if blank is not None:
                    yield number, f"an entity without text, from character {blank['start']} to {blank['end']}"
                    continue
                answers = question.get("answers")
                yield number, {
                    "id": question["idx"], "passage": text, "query": question["query"], "entities": entities,
                    "answers": answers and [one["text"] for one in answers],
                }  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            yield number, f"not a ReCoRD passage: {error} is missing"


def eraser(rows: Rows) -> Rows:
    """BoolQ as ERASER has it: the evidence is the passage."""
    for number, found in rows:
        if isinstance(found, str):
            yield number, found
            continue
        try:
            yield number, {
                "id": str(found["annotation_id"]), "question": found["query"], "label": found["classification"],
                "passage": " ".join(part["text"] for group in found["evidences"] for part in group),
            }  # fmt: skip
        except (KeyError, TypeError) as error:
            yield number, f"not an ERASER annotation: {error} is missing"


def wsc(rows: Rows) -> Rows:
    """SuperGLUE's Winograd schemas: the noun and the pronoun stand inside `target`."""
    for number, found in rows:
        if isinstance(found, str):
            yield number, found
            continue
        try:
            target = found["target"]
            yield number, {
                "id": str(found["idx"]), "text": found["text"], "label": found.get("label"),
                "span1_text": target["span1_text"], "span2_text": target["span2_text"],
            }  # fmt: skip
        except (KeyError, TypeError) as error:
            yield number, f"not a WSC row: {error} is missing"


def squad(path: Path, advance: Callable[[int], None]) -> Rows:
    """One row per question, counted from 1 (the file is one line); one that is impossible has no answers."""
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no SQuAD file: {error}\nexpected an object with `data`") from None
    advance(path.stat().st_size)
    number = 0
    for article in articles:
        for paragraph in _get(article, "paragraphs"):
            for question in _get(paragraph, "qas"):
                number += 1
                try:
                    yield number, {
                        "id": question["id"], "title": article.get("title"), "question": question["question"],
                        "context": paragraph["context"],
                        "answers": [] if question.get("is_impossible") else question.get("answers"),
                    }  # fmt: skip
                except (KeyError, TypeError, AttributeError) as error:
                    yield number, f"not a SQuAD question: {error} is missing"


def _get(found: Any, name: str) -> list[Any]:
    return found.get(name) or [] if isinstance(found, dict) else []


def conll(lines: Iterable[tuple[int, str]], broken: dict[int, str]) -> Rows:
    """One row per sentence: a word a line, its tag the last column, a blank line between sentences (CoNLL-2003).

    -DOCSTART- is no word. A line that cannot be read costs its sentence.

    Args:
        lines: number and text. broken: lines that are no text, with the reason.
    """
    first, words, tags, fault = 0, [], [], ""

    def row() -> dict[str, Any] | str:
        return fault or {"tokens": " ".join(words), "tags": " ".join(tags)}

    for number, line in lines:
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            first = first or number
            if number in broken or len(columns) < 2:
                fault = fault or broken.get(number, f"line {number}: found {line[:60]!r}, expected a word and its tag")
            else:
                words.append(columns[0])
                tags.append(columns[-1])
        elif first:
            yield first, row()
            first, words, tags, fault = 0, [], [], ""
    if first:
        yield first, row()
