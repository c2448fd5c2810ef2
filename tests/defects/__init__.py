"""Planted defects for tests/mutants.py: a file, a text that stands in it once, another, and the test that must fail."""

from tests.defects import (
    batches,
    benchmarks,
    kinds,
    library,
    mixtures,
    objectives,
    parameters,
    passes,
    pipelines,
    ranks,
    report,
    rest,
    slices,
    telemetry,
    updates,
    vision,
    weightings,
    written,
)

PARTS = (
    batches,
    benchmarks,
    kinds,
    library,
    mixtures,
    objectives,
    parameters,
    passes,
    pipelines,
    ranks,
    report,
    rest,
    slices,
    telemetry,
    updates,
    vision,
    weightings,
    written,
)
ROWS = tuple(row for part in PARTS for row in part.ROWS)
