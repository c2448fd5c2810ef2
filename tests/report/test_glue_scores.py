"""The GLUE average of a mixture's tasks, seed by seed."""

import pytest

from gradworks.report import glue


def row(task, metric, *values, method="erm"):
    return {"condition": "clean", "encoder": "gru", "method": method, "task": task, "metric": metric, "values": values}


PARTS = [
    row("rte", "accuracy", 0.6, 0.7, 0.8), row("rte", "log_loss", 9, 9, 9), row("mrpc", "f1", 0.8, 0.8, 0.9),
    row("mrpc", "accuracy", 0.6, 0.8, 0.7), row("boolq", "accuracy", 0.1, 0.1, 0.1),
    row("stsb", "pearson", 0.1, 0.1, 0.1),
    row("rte", "accuracy", 0.5, method="alone"),
]  # fmt: skip


def test_the_average_is_of_the_tasks_that_have_all_their_metrics():
    (found,) = glue.scores(PARTS)
    assert found["values"] == pytest.approx([0.65, 0.75, 0.8]) and found["value"] == pytest.approx(2.2 / 3)
    assert found["tasks"] == {"mrpc": pytest.approx(2.3 / 3), "rte": pytest.approx(0.7)} and found["n"] == 3
    assert "RTE" not in found["missing"] and "STS-B" in found["missing"] and len(found["missing"]) == 7


def test_a_seed_that_lacks_a_score_leaves_the_row_out():
    assert glue.scores([*PARTS[:2], row("mrpc", "f1", 0.8), row("mrpc", "accuracy", 0.6)]) == []
