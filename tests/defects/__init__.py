"""Planted defects for tests/mutants.py: a file, a text that stands in it once, another, and the test that must fail."""

import importlib
import pkgutil

ROWS = tuple(
    row
    for module in pkgutil.iter_modules(__path__, f"{__name__}.")
    for row in importlib.import_module(module.name).ROWS
)
