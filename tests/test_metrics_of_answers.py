"""F1a, F1m and exact match of questions against loops, and against the published baselines of MultiRC."""

import numpy as np
import pyarrow as pa
import pytest

from gradworks import tasks
from gradworks.data import files
from gradworks.metrics import answers

GROUPS = ["a", "a", "a", "b", "b", "c", "d", "d"]
LABELS = np.array([1, 0, 1, 0, 0, 1, 1, 0])
MADE = np.array([1, 0, 0, 0, 1, 0, 1, 0])


def by_question():
    return [
        (LABELS[at], MADE[at]) for g in dict.fromkeys(GROUPS) if (at := [i for i, x in enumerate(GROUPS) if x == g])
    ]


def f1(true, made):
    both, total = sum(a and b for a, b in zip(true, made, strict=True)), sum(true) + sum(made)
    return 2 * both / total if total else 1.0


def test_against_loops():
    exact = [list(a) == list(b) for a, b in by_question()]
    assert answers.score("question_em", GROUPS, LABELS, MADE).value == np.mean(exact) == 0.25
    assert answers.score("f1m", GROUPS, LABELS, MADE).value == pytest.approx(
        np.mean([f1(a, b) for a, b in by_question()])
    )
    assert answers.score("f1a", GROUPS, LABELS, MADE).value == pytest.approx(f1(LABELS, MADE)) == pytest.approx(4 / 7)
    assert answers.score("f1a", GROUPS, LABELS, MADE).n == 4


def test_edges():
    assert answers.score("question_em", ["a"], [0], [0]).value == 1  # no right answer, none chosen
    assert answers.score("f1m", ["a", "b"], [0, 0], [0, 1]).value == 0.5
    assert answers.score("f1a", ["a"], [0], [0]).value is None
    assert answers.score("f1a", [], [], []).value is None
    assert answers.score("f1a", ["a"], [1], [0]).value == 0
    # the order of rows does not matter, nor that those of a question stand apart
    order = np.random.default_rng(0).permutation(len(GROUPS))
    for metric in answers.METRICS:
        moved = answers.score(metric, [GROUPS[i] for i in order], LABELS[order], MADE[order])
        assert moved.value == answers.score(metric, GROUPS, LABELS, MADE).value


@pytest.mark.parametrize("metric", answers.METRICS)
def test_shares_have_mean_and_variance_of_questions(metric):
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 40, 200).astype(str).tolist()
    labels, made = draw.integers(0, 2, 200), draw.integers(0, 2, 200)
    found = answers.shares(metric, groups, labels, made)
    names = sorted(set(groups))
    whole = answers.score(metric, groups, labels, made).value
    each = []
    for name in names:
        rest = [i for i, x in enumerate(groups) if x != name]
        without = answers.score(metric, [groups[i] for i in rest], labels[rest], made[rest]).value
        each.append(len(names) * whole - (len(names) - 1) * without)
    assert found.mean() == pytest.approx(np.mean(each))
    assert found.var() / len(found) == pytest.approx(np.var(each) / len(names))


def test_the_interval_covers_questions_not_rows():
    """Rows of a question that are right or wrong together: the interval is that of as many questions."""
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        right = (draw.random(60) < 0.7).repeat(5)
        groups = np.arange(60).repeat(5).astype(str).tolist()
        found = answers.score("question_em", groups, np.ones(300), right)
        held += found.low <= 0.7 <= found.high
    assert held >= 186


def test_multirc_has_its_published_sizes_and_baselines(data):
    kind = tasks.kind(tasks.find("multirc", {}))
    folder = data / "superglue/MultiRC"
    found = files.read(kind, {s: folder / f"{s}.jsonl" for s in ("train", "val")}, "m", folder, "m")[0]
    assert len(found["val"].records) == kind.spec.sizes["validation"]
    from gradworks.data import records

    truths = kind.truths(pa.concat_tables(records.to_tables(kind, found["val"].records)))
    assert len({group for group, _ in truths}) == 953
    best = {m: max(kind.score(m, truths, one).value or 0 for one in kind.constants(truths)) for m in kind.spec.metrics}
    assert best["f1a"] == pytest.approx(kind.spec.majority["f1a"], abs=0.02)
    assert len(found["train"].records) + len(found["train"].bad) == kind.spec.sizes["train"]  # 3 answers without text
