"""Planted defects for tests/mutants.py: a file, a text that stands in it once, another, and the test that must fail."""

from tests.defects import benchmarks, kubeflow, library, objectives, rest, updates, weightings

ROWS = tuple(
    row for part in (rest, objectives, weightings, updates, library, benchmarks, kubeflow) for row in part.ROWS
)
