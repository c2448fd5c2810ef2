"""Tasks: what published data sets call their labels and in which order."""

from itertools import groupby
from pathlib import Path

import pytest

from components.fetch import Source
from gradworks import tasks
from gradworks.base.errors import InputError
from gradworks.tasks import glue, minbert, nli, squad, summaries, superglue, tagging, vision

ROWS = [one for file in (nli, glue, superglue, minbert, tagging, squad, summaries, vision) for one in file.ROWS]


def row(name):
    return tasks.find(name, {})


def test_class_indices_are_those_of_published_files():
    # GLUE and SuperGLUE write these as 0, 1, ...: an exchanged order trains on the opposite task
    assert row("nli").classes == ("entailment", "neutral", "contradiction")
    assert row("wnli").classes == ("not_entailment", "entailment")
    assert row("rte").classes == row("qnli").classes == ("entailment", "not_entailment")
    assert row("cola").classes == ("unacceptable", "acceptable")
    assert row("copa").classes == ("choice1", "choice2")
    assert row("boolq").classes == row("wic").classes == row("multirc").classes == ("false", "true")
    assert row("stsb").classes is None


@pytest.mark.parametrize("one", ROWS, ids=lambda one: one.name)
def test_every_row_is_whole(one):
    assert one.texts and one.metrics and len({"id", "label", *one.texts}) == 2 + len(one.texts)
    made = tasks.kind(one)
    for metric in one.metrics:
        made.check_metric(metric, one.name)
    if one.classes is not None:
        assert len(set(one.classes)) == len(one.classes) >= 2
        assert set(one.collapse.values()) <= set(one.classes) and not set(one.collapse) & set(one.classes)


def test_rows_are_found_by_listing_the_folder_and_no_name_is_taken_twice():
    assert tasks.shipped() == {one.name: one for one in ROWS} and len(tasks.shipped()) == len(ROWS)


def test_an_unknown_task_lists_those_there_are():
    with pytest.raises(InputError, match=r"task: found 'nil'; did you mean nli\?\nexpected one of: .*nli-binary"):
        row("nil")


def hub_table():
    """The rows of docs/data.md: which repository has which tasks, in which config."""
    found = [(one, name) for name, row in tasks.shipped().items() for one in row.hub]
    for source, parts in groupby(found, lambda one: f"hub:{one[0].repository}@{one[0].revision}"):
        made = list(parts)
        named = {one.config for one, _ in made} == {name for _, name in made}
        config = "the row's name" if named else ", ".join(f"`{one.config}`" for one, _ in made if one.config) or "–"
        yield f"| {', '.join(f'`{name}`' for _, name in made)} | `{source}` | {config} |"


def test_what_lies_on_the_hub_is_a_commit_that_fetch_takes_and_the_docs_name():
    for name, row in tasks.shipped().items():
        assert len(set(row.hub)) == len(row.hub)
        for one in row.hub:
            assert Source.model_validate(one.source | {"task": name}).kind == "hub"
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    table = page.partition("| row | `from` | `config` |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == list(hub_table())
