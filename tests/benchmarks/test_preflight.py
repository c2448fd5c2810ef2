"""docs/preflight.md: whole, and one family of it as the code has it."""

import pytest

from benchmarks import preflight
from gradworks.methods._shared import entries

FEW = {"weighting `reweight`", *(f"`reweight: {{backend: {name}}}`" for name in ("ghost", "logit_fd", "jvp"))}


@pytest.fixture(scope="module")
def page():
    return preflight.PAGE.read_text(encoding="utf-8")


def test_every_entry_and_family_has_its_cell(page):
    found = preflight.parsed(page)
    assert list(found) == list(preflight.FAMILIES)
    named = [f"{slot} `{name}`" for slot in preflight.SLOTS for name in entries.names(slot)]
    for family in found.values():
        assert list(family) == list(preflight.cases()) and set(named) < set(family) and all(family.values())
    assert preflight.page(found) == page


@pytest.mark.parametrize("family", ["DistilBERT"])
def test_the_page_says_what_the_code_does(page, family):
    made = preflight.column(family, FEW)
    assert made == {name: one for name, one in preflight.parsed(page)[family].items() if name in FEW}
    assert made["weighting `reweight`"].startswith("yes, ")
