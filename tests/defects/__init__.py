"""Planted defects for tests/mutants.py: a file, a text that stands in it once, another, and the test that must fail."""

from tests.defects import (
    artifacts,
    benchmarks,
    kubeflow,
    library,
    objectives,
    passes,
    report,
    rest,
    telemetry,
    updates,
    weightings,
)

PARTS = (rest, passes, objectives, weightings, updates, library, benchmarks, kubeflow, artifacts, telemetry, report)
ROWS = tuple(row for part in PARTS for row in part.ROWS)
